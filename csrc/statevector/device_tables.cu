#include "statevector/device_tables.h"

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "statevector/span.h"

namespace saccade::statevector {
namespace {

// A pass in physical indices. The first gates on |0...0>, which the planner keeps apart, are passes
// like the others here: both directions then have one kind of work.
struct Physical {
  PassKind kind;
  std::vector<int32_t> x;
  struct Where {
    int32_t chain, flips;
    std::vector<int32_t> masks;
  };
  std::vector<Where> entries;
};

std::vector<Physical> physical_passes(const Program& program) {
  std::vector<Physical> out;
  for (const Product& p : program.product) {
    out.push_back({PassKind::kPair, {1 << p.bit}, {{p.chain, p.flip, {1 << p.bit}}}});
  }
  for (size_t i = 0; i < program.passes.size(); ++i) {
    const Pass& pass = program.passes[i];
    for (int32_t first = 0; first < pass.count; first += kUses) {
      Physical physical{pass.kind, program.flips[i], {}};
      for (int32_t k = first; k < std::min(pass.count, first + kUses); ++k) {
        const Entry& e = program.entries[pass.first + k];
        physical.entries.push_back({e.chain, e.flips, program.masks[pass.first + k]});
      }
      out.push_back(std::move(physical));
    }
  }
  return out;
}

class Builder {
 public:
  std::vector<Sweep> sweeps;
  std::vector<Step> steps;
  std::vector<Move> moves;
  std::vector<Use> uses;
  std::vector<int32_t> wanted;  // of every chain
  int32_t n_wanted = 0;

  Builder(const Program& program, std::vector<int32_t> places)
      : wanted(program.chains.size(), -1),
        program_(program),
        places_(std::move(places)),
        used_(program.chains.size()),
        passes_(physical_passes(program)) {
    const size_t count = passes_.size();
    size_t first = 0;
    Span span = low_bits();
    for (size_t p = 0; p < count; ++p) {
      Span wider = span;
      for (const int32_t x : passes_[p].x) wider.add(x);
      if (wider.size() > kTileBits) {
        add_sweep(first, p, span);
        first = p;
        wider = low_bits();
        for (const int32_t x : passes_[p].x) wider.add(x);
      }
      span = wider;
    }
    add_sweep(first, count, span);
  }

 private:
  const Program& program_;
  std::vector<int32_t> places_;
  std::vector<bool> used_;
  std::vector<Physical> passes_;

  // Small states are filled up with bits that are always 0.
  int bits() const { return std::max(program_.bits, kStepBits); }

  Span low_bits() const {
    Span span;
    span.fill(std::min(bits(), kRunBits), kRunBits);
    return span;
  }

  void add_sweep(size_t first, size_t end, Span span) {
    span.fill(bits(), kTileBits);
    Sweep sweep{};
    sweep.bits = span.size();
    const std::vector<int64_t> basis = span.sorted();
    for (int k = 0; k < sweep.bits; ++k) {
      sweep.basis[k] = static_cast<uint32_t>(basis[k]);
      sweep.pivots[k] = top_bit(basis[k]);
    }
    sweep.first = static_cast<int32_t>(steps.size());
    while (first < end) first = add_step(sweep, first, end);
    sweep.count = static_cast<int32_t>(steps.size()) - sweep.first;
    sweeps.push_back(sweep);
  }

  // An index in the span as an element of a tile.
  static uint16_t element(const Sweep& sweep, int64_t x) {
    int e = 0;
    for (int k = 0; k < sweep.bits; ++k) e |= static_cast<int>(x >> sweep.pivots[k] & 1) << k;
    return static_cast<uint16_t>(e);
  }

  // The parity under a mask, as a mask of elements.
  static uint16_t local(const Sweep& sweep, int64_t mask) {
    int out = 0;
    for (int k = 0; k < sweep.bits; ++k) out |= (odd_parity(mask & sweep.basis[k]) ? 1 : 0) << k;
    return static_cast<uint16_t>(out);
  }

  // As many passes as fit into one step; returns the first one that does not.
  size_t add_step(const Sweep& sweep, size_t first, size_t end) {
    Step step{};
    Span span;
    std::vector<int64_t> flips;
    size_t last = first, entries = 0;
    if (passes_[first].kind == PassKind::kDense) {
      for (const int32_t x : passes_[first].x) flips.push_back(element(sweep, x));
      for (const int64_t x : flips) span.add(x);
      step.dense = static_cast<int32_t>(flips.size());
      STD_TORCH_CHECK(span.size() == step.dense, "plan has a dense gate of ", step.dense,
                      " flips that span ", span.size(), " dimensions.");
      last = first + 1;
    } else {
      for (; last < end && passes_[last].kind != PassKind::kDense; ++last) {
        const Physical& pass = passes_[last];
        if (entries + pass.entries.size() > kUses) break;
        if (pass.kind == PassKind::kPair) {
          // pairs differ in one of a thread's own bits: a sum of earlier flips waits
          const int64_t x = element(sweep, pass.x[0]);
          if (std::find(flips.begin(), flips.end(), x) == flips.end()) {
            if (flips.size() == kStepBits || span.holds(x)) break;
            flips.push_back(x);
            span.add(x);
          }
        }
        entries += pass.entries.size();
      }
      for (int b = 0; flips.size() < kStepBits; ++b) {
        if (span.holds(int64_t{1} << b)) continue;
        flips.push_back(int64_t{1} << b);
        span.add(int64_t{1} << b);
      }
    }
    const std::vector<int64_t> echelon = span.sorted();
    for (size_t k = 0; k < flips.size(); ++k) {
      step.basis[k] = static_cast<uint16_t>(flips[k]);
      step.pivots[k] = static_cast<uint16_t>(top_bit(echelon[k]));
    }
    step.first = static_cast<int32_t>(moves.size());
    step.first_use = static_cast<int32_t>(uses.size());
    for (size_t p = first; p < last; ++p) add_move(sweep, step, passes_[p]);
    step.count = static_cast<int32_t>(moves.size()) - step.first;
    step.uses = static_cast<int32_t>(uses.size()) - step.first_use;
    steps.push_back(step);
    return last;
  }

  void add_move(const Sweep& sweep, const Step& step, const Physical& pass) {
    Move move{-1, static_cast<int32_t>(uses.size()), static_cast<int32_t>(pass.entries.size())};
    if (pass.kind == PassKind::kPair) {
      const uint16_t x = element(sweep, pass.x[0]);
      move.axis =
          static_cast<int32_t>(std::find(step.basis, step.basis + kStepBits, x) - step.basis);
    }
    moves.push_back(move);
    for (const Physical::Where& where : pass.entries) {
      Use use{};
      use.masks = static_cast<int32_t>(where.masks.size());
      for (int k = 0; k < use.masks; ++k) {
        MaskBits& mask = use.mask[k];
        mask.high = static_cast<uint32_t>(where.masks[k]);
        mask.local = local(sweep, where.masks[k]);
        mask.flip = static_cast<uint8_t>(where.flips >> k & 1);
        for (int r = 0; r < 1 << kStepBits; ++r) {
          int e = 0;
          for (int b = 0; b < kStepBits; ++b) e ^= (r >> b & 1) * step.basis[b];
          mask.pattern |= static_cast<uint8_t>((odd_parity(e & mask.local) ? 1 : 0) << r);
        }
      }
      use.wanted = -1;
      if (pass.kind == PassKind::kDense) {
        use.place = where.chain;
      } else {
        const Chain& chain = program_.chains[where.chain];
        STD_TORCH_CHECK(!used_[where.chain], "plan uses chain ", where.chain, " twice.");
        used_[where.chain] = true;
        use.place = places_[where.chain];
        use.own = chain.own;
        if (chain.wanted) use.wanted = wanted[where.chain] = n_wanted++;
      }
      uses.push_back(use);
    }
  }
};

// Appends an array at a multiple of 8 and returns where.
template <typename T>
size_t append(std::vector<unsigned char>& bytes, const T* data, size_t count) {
  bytes.resize((bytes.size() + 7) / 8 * 8);
  const size_t at = bytes.size();
  bytes.resize(at + count * sizeof(T));
  if (count > 0) std::memcpy(bytes.data() + at, data, count * sizeof(T));
  return at;
}

template <typename T>
size_t append(std::vector<unsigned char>& bytes, const std::vector<T>& all) {
  return append(bytes, all.data(), all.size());
}

bool same(const Shape& a, const Shape& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

int32_t shape_of(const Factor& f, std::vector<Shape>& shapes) {
  Shape shape{};
  std::copy_n(f.fixed, 8, shape.fixed);
  std::copy_n(f.even, 8, shape.even);
  std::copy_n(f.odd, 8, shape.odd);
  shape.rate = f.rate;
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (same(shapes[i], shape)) return static_cast<int32_t>(i);
  }
  shapes.push_back(shape);
  return static_cast<int32_t>(shapes.size()) - 1;
}

std::vector<Collected> collect(const std::map<int32_t, std::vector<int32_t>>& from,
                               std::vector<int32_t>& items) {
  std::vector<Collected> out;
  for (const auto& [index, slots] : from) {
    out.push_back({index, static_cast<int32_t>(items.size()), static_cast<int32_t>(slots.size())});
    items.insert(items.end(), slots.begin(), slots.end());
  }
  return out;
}

}  // namespace

Tables::Tables(const Program& program, int64_t n_observables)
    : bits(program.bits),
      n_shared(0),
      n_own(0),
      n_shared_slots(0),
      n_own_slots(0),
      observables(static_cast<int32_t>(n_observables)),
      n_terms(static_cast<int32_t>(program.terms.size())) {
  std::vector<int32_t> places;
  for (const Chain& chain : program.chains) places.push_back(chain.own ? n_own++ : n_shared++);
  const Builder built(program, places);
  sweeps = built.sweeps;
  n_wanted = built.n_wanted;

  std::vector<Shape> shape_list;
  std::vector<DeviceFactor> factor_list;
  std::vector<DeviceChain> shared_list, own_list;
  std::map<int32_t, std::vector<int32_t>> of_params, of_inputs;
  for (size_t c = 0; c < program.chains.size(); ++c) {
    const Chain& chain = program.chains[c];
    (chain.own ? own_list : shared_list)
        .push_back({static_cast<int32_t>(factor_list.size()), chain.count, built.wanted[c]});
    for (int32_t k = chain.first; k < chain.first + chain.count; ++k) {
      const Factor& f = program.factors[k];
      DeviceFactor factor{shape_of(f, shape_list), f.source, f.index, -1, f.coefficient, f.offset};
      if (f.source != 0 && built.wanted[c] >= 0) {
        factor.slot = chain.own ? n_own_slots++ : n_shared_slots++;
        (f.source == 1 ? of_params : of_inputs)[f.index].push_back(2 * factor.slot + chain.own);
      }
      factor_list.push_back(factor);
    }
  }
  std::vector<int32_t> item_list;
  const std::vector<Collected> param_list = collect(of_params, item_list);
  const std::vector<Collected> input_list = collect(of_inputs, item_list);
  n_params = static_cast<int32_t>(param_list.size());
  n_inputs = static_cast<int32_t>(input_list.size());

  std::vector<Term> term_list = program.terms;
  std::stable_sort(term_list.begin(), term_list.end(),
                   [](const Term& a, const Term& b) { return a.owner < b.owner; });
  std::vector<int32_t> first_list{0};
  for (int32_t k = 0, t = 0; k < observables; ++k) {
    while (t < static_cast<int32_t>(term_list.size()) && term_list[t].owner == k) ++t;
    first_list.push_back(t);
  }
  int64_t dense_size = 0;
  for (const Step& step : built.steps) {
    if (step.dense == 0) continue;
    dense_size =
        std::max(dense_size, built.uses[step.first_use].place + (int64_t{2} << (2 * step.dense)));
  }

  steps_ = append(bytes, built.steps);
  moves_ = append(bytes, built.moves);
  uses_ = append(bytes, built.uses);
  dense_ = append(bytes, program.dense, static_cast<size_t>(dense_size));
  terms_ = append(bytes, term_list);
  first_terms_ = append(bytes, first_list);
  shapes_ = append(bytes, shape_list);
  factors_ = append(bytes, factor_list);
  shared_ = append(bytes, shared_list);
  own_ = append(bytes, own_list);
  params_ = append(bytes, param_list);
  inputs_ = append(bytes, input_list);
  items_ = append(bytes, item_list);
}

DeviceProgram Tables::at(const void* base) const {
  const auto* const b = static_cast<const unsigned char*>(base);
  DeviceProgram d{};
  const auto set = [&]<typename T>(const T*& pointer, size_t place) {
    pointer = reinterpret_cast<const T*>(b + place);
  };
  set(d.steps, steps_);
  set(d.moves, moves_);
  set(d.uses, uses_);
  set(d.dense, dense_);
  set(d.terms, terms_);
  set(d.first_terms, first_terms_);
  set(d.shapes, shapes_);
  set(d.factors, factors_);
  set(d.shared, shared_);
  set(d.own, own_);
  set(d.params, params_);
  set(d.inputs, inputs_);
  set(d.items, items_);
  return d;
}

}  // namespace saccade::statevector
