#include "statevector/program.h"

#include <torch/headeronly/util/Exception.h>

#include "statevector/span.h"

namespace saccade::statevector {
namespace {

// Reads a stream and refuses to go beyond its end.
template <typename T>
class Reader {
 public:
  Reader(const T* data, int64_t count) : data_(data), left_(count) {}
  const T* take(int64_t count) {
    STD_TORCH_CHECK(count >= 0 && count <= left_, "plan must hold ", count,
                    " more numbers where it holds ", left_, ".");
    const T* const some = data_;
    data_ += count;
    left_ -= count;
    return some;
  }
  T next() { return *take(1); }
  // A number in [low, high].
  T next(T low, T high) {
    const T x = next();
    STD_TORCH_CHECK(x >= low && x <= high, "plan must hold a number from ", low, " to ", high,
                    ", got ", x, ".");
    return x;
  }
  int64_t left() const { return left_; }

 private:
  const T* data_;
  int64_t left_;
};

}  // namespace

Program::Program(const int32_t* ints, int64_t n_ints, const double* floats, int64_t n_floats,
                 int64_t n_params, int64_t n_inputs) {
  Reader<int32_t> in(ints, n_ints);
  Reader<double> numbers(floats, n_floats);
  constexpr int32_t kMany = 1 << 24;
  bits = in.next(1, kMaxBits);
  zero = in.next(0, 1);
  const int32_t n_factors = in.next(0, kMany), n_chains = in.next(0, kMany);
  const int32_t n_product = in.next(0, bits), n_passes = in.next(0, kMany);
  observables = in.next(0, kMany);
  const int32_t n_terms = in.next(0, kMany);
  const int32_t all = static_cast<int32_t>((int64_t{1} << bits) - 1);
  for (int32_t i = 0; i < n_factors; ++i) {
    Factor f;
    f.source = in.next(0, 2);
    const int64_t length = f.source == 0 ? 1 : f.source == 1 ? n_params : n_inputs;
    f.index = in.next();
    STD_TORCH_CHECK(f.source == 0 || (f.index >= 0 && f.index < length), "plan reads number ",
                    f.index, " of ", length, f.source == 1 ? " params." : " inputs.");
    f.fixed = numbers.take(8);
    f.even = numbers.take(8);
    f.odd = numbers.take(8);
    f.rate = numbers.next();
    f.coefficient = numbers.next();
    f.offset = numbers.next();
    factors.push_back(f);
  }
  for (int32_t i = 0; i < n_chains; ++i) {
    Chain c{};
    c.first = in.next(0, n_factors);
    c.count = in.next(1, n_factors - c.first);
    for (int32_t k = c.first; k < c.first + c.count; ++k) {
      c.own |= factors[k].source == 2;
      c.wanted |= factors[k].source != 0;
    }
    chains.push_back(c);
  }
  for (int32_t i = 0; i < n_product; ++i) {
    Product p;
    p.bit = in.next(0, bits - 1);
    p.flip = in.next(0, 1);
    p.chain = in.next(0, n_chains - 1);
    product.push_back(p);
  }
  std::vector<int64_t> sizes;  // of dense gates: where their matrices must end
  for (int32_t i = 0; i < n_passes; ++i) {
    Pass pass{};
    pass.kind = static_cast<PassKind>(in.next(0, 2));
    pass.flips = in.next(0, kMaxFlips);
    pass.first = static_cast<int32_t>(entries.size());
    pass.count = in.next(1, kMany);
    const bool dense_gate = pass.kind == PassKind::kDense;
    STD_TORCH_CHECK(
        pass.kind == PassKind::kPhase ? pass.flips == 0 : pass.flips >= 1 && pass.count == 1,
        "plan has a pass of ", pass.flips, " flips and ", pass.count, " entries.");
    STD_TORCH_CHECK(dense_gate || pass.flips <= 1, "plan has a pair with ", pass.flips, " flips.");
    std::vector<int32_t> x;
    for (int32_t k = 0; k < pass.flips; ++k) x.push_back(in.next(1, all));
    for (int32_t k = 0; k < pass.count; ++k) {
      Entry e{};
      e.chain = in.next(0, dense_gate ? kMany : n_chains - 1);
      e.masks = in.next(dense_gate ? pass.flips : 1, dense_gate ? kMaxFlips : kMaxMasks);
      e.flips = in.next(0, (1 << e.masks) - 1);
      std::vector<int32_t> own;
      for (int32_t m = 0; m < e.masks; ++m) {
        own.push_back(in.next(0, all));
        if (pass.kind == PassKind::kPair && odd_parity(own[m] & x[0])) e.across |= 1 << m;
      }
      if (dense_gate) sizes.push_back(e.chain + (int64_t{2} << (2 * pass.flips)));
      entries.push_back(e);
      masks.push_back(std::move(own));
    }
    flips.push_back(std::move(x));
    passes.push_back(pass);
  }
  origin = in.next(0, all);
  for (int32_t b = 0; b < bits; ++b) images.push_back(in.next(0, all));
  for (int32_t t = 0; t < n_terms; ++t) {
    Term term;
    term.owner = in.next(0, observables - 1);
    term.x = in.next(0, all);
    term.z = in.next(0, all);
    term.phase = in.next(0, 3);
    terms.push_back(term);
  }
  for (Term& term : terms) term.coefficient = numbers.next();
  for (const int64_t size : sizes) {
    STD_TORCH_CHECK(size <= numbers.left(), "plan must hold ", size,
                    " numbers of dense gates, it holds ", numbers.left(), ".");
  }
  dense = numbers.take(numbers.left());
}

std::vector<Group> Program::group(int32_t lane_bits) {
  const int block_bits = bits - lane_bits;
  const bool whole = block_bits <= kWholeBits;
  const int limit = whole ? block_bits : kCosetBits;
  std::vector<Group> groups;
  const auto close = [&](int32_t first, int32_t end, Span span) {
    span.fill(block_bits, limit);
    Group g{};
    g.first = first;
    g.count = end - first;
    g.bits = span.size();
    const std::vector<int64_t> basis = span.sorted();
    for (int k = 0; k < g.bits; ++k) {
      g.basis[k] = basis[k];
      g.pivots[k] = top_bit(basis[k]);
    }
    for (int32_t p = first; p < end; ++p) {
      Pass& pass = passes[p];
      for (int32_t k = 0; k < pass.flips; ++k) {
        const int64_t x = flips[p][k] >> lane_bits;
        pass.low[k] = flips[p][k] & ((1 << lane_bits) - 1);
        pass.local[k] = 0;
        for (int b = 0; b < g.bits; ++b) {
          pass.local[k] |= static_cast<int32_t>(x >> g.pivots[b] & 1) << b;
        }
      }
      for (int32_t e = pass.first; e < pass.first + pass.count; ++e) {
        Entry& entry = entries[e];
        for (int32_t m = 0; m < entry.masks; ++m) {
          entry.high[m] = masks[e][m] >> lane_bits;
          entry.low[m] = masks[e][m] & ((1 << lane_bits) - 1);
          entry.local[m] = 0;
          for (int b = 0; b < g.bits; ++b) {
            entry.local[m] |= static_cast<int32_t>(odd_parity(entry.high[m] & g.basis[b])) << b;
          }
        }
      }
    }
    groups.push_back(g);
  };
  Span span;
  int32_t first = 0;
  const int32_t count = static_cast<int32_t>(passes.size());
  for (int32_t p = 0; p < count; ++p) {
    Span wider = span;
    for (const int32_t x : flips[p]) wider.add(x >> lane_bits);
    if (wider.size() > limit) {
      close(first, p, span);
      first = p;
      wider = Span();
      for (const int32_t x : flips[p]) wider.add(x >> lane_bits);
    }
    span = wider;
  }
  if (first < count) close(first, count, span);
  return groups;
}

}  // namespace saccade::statevector
