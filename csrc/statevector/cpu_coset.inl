// A group of passes on one coset of blocks after another.
#pragma once

#include "statevector/cpu_pair.inl"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

// Scratch of a coset run, in elements of T: gathered blocks of two states, variants, coefficients
// and sums.
template <typename T>
struct Space {
  static constexpr int64_t kGathered = (int64_t{1} << kCosetBits) * kBlock<T>;
  static constexpr int64_t kVariants = (int64_t{kPhasesAtOnce} << kWholeBits) / sizeof(T);
  static constexpr int64_t kPairs = int64_t{1 << kMaxMasks} * 4 * kWidth<T>;
  // 2^(wires + controls) variants of 2^wires columns
  static constexpr int64_t kDense = int64_t{16 * 16} * kBlock<T>;
  static constexpr int64_t kCoefficients =
      kPhasesAtOnce * kPairs > kDense ? kPhasesAtOnce * kPairs : kDense;
  static constexpr int64_t kSums = kPhasesAtOnce * kPairs;
  static constexpr int64_t kTotal = 2 * kGathered + kVariants + kCoefficients + kSums;

  T *psi, *gradient, *coefficients, *sums;
  uint8_t* variants;

  explicit Space(T* scratch) {
    psi = scratch;
    gradient = psi + kGathered;
    coefficients = gradient + kGathered;
    sums = coefficients + kCoefficients;
    variants = reinterpret_cast<uint8_t*>(sums + kSums);
  }
};

// The block that stands for coset c: c's bits where the group has no pivot, zeros where it has.
template <typename T>
SACCADE_INLINE int64_t representative(const Circuit<T>& circuit, const Group& group, int64_t c) {
  int64_t base = 0;
  int pivot = 0;
  for (int b = 0; b < circuit.bits - circuit.lane_bits; ++b) {
    if (pivot < group.bits && group.pivots[pivot] == b) {
      ++pivot;
    } else {
      base |= (c & 1) << b;
      c >>= 1;
    }
  }
  return base;
}

// visit(element, block) for all blocks of a coset.
template <typename F>
SACCADE_INLINE void for_coset(const Group& group, int64_t base, const F& visit) {
  int64_t block = base;
  visit(0, block);
  // a counter's step from e - 1 to e turns its trailing bits: Gray's way would have another order
  for (int e = 1; e < 1 << group.bits; ++e) {
    for (int turned = e ^ (e - 1), k = 0; turned; turned >>= 1, ++k) block ^= group.basis[k];
    visit(e, block);
  }
}

template <typename T>
void pass_forward(const Circuit<T>& circuit, const Pass& pass, int64_t base, int bits, const T* u,
                  T* psi, Space<T>& space) {
  const int lanes = lanes_of(circuit), count = 1 << bits;
  const Entry* const entries = circuit.entries + pass.first;
  if (pass.kind == PassKind::kPhase) {
    for (int begin = 0; begin < pass.count; begin += kPhasesAtOnce) {
      const int some = pass.count - begin < kPhasesAtOnce ? pass.count - begin : kPhasesAtOnce;
      const uint8_t* variants[kPhasesAtOnce];
      const T* coefficients[kPhasesAtOnce];
      for (int k = 0; k < some; ++k) {
        const Entry& entry = entries[begin + k];
        uint8_t* const own = space.variants + (int64_t{k} << kWholeBits);
        T* const table = space.coefficients + k * Space<T>::kPairs;
        fill_variants(entry, first_variant(entry, base), bits, own);
        pair_coefficients(entry, u + int64_t{entry.chain} * 8 * lanes, lanes, false, table);
        variants[k] = own;
        coefficients[k] = table;
      }
      phase_forward(psi, count, some, variants, coefficients);
    }
    return;
  }
  const Entry& entry = entries[0];
  fill_variants(entry, first_variant(entry, base), bits, space.variants);
  if (pass.kind == PassKind::kDense) {
    dense_coefficients(pass, entry, circuit.dense + entry.chain, false, space.coefficients);
    dense(psi, count, pass, space.variants, space.coefficients);
    return;
  }
  pair_coefficients(entry, u + int64_t{entry.chain} * 8 * lanes, lanes, false, space.coefficients);
  pair_forward_of(pass.low[0], psi, count, pass.local[0], space.variants, space.coefficients);
}

template <typename T>
void pass_backward(const Circuit<T>& circuit, const Pass& pass, int64_t base, int bits, const T* u,
                   T* psi, T* gradient, Space<T>& space, T* K) {
  const int lanes = lanes_of(circuit), count = 1 << bits;
  const Entry* const entries = circuit.entries + pass.first;
  if (pass.kind == PassKind::kPhase) {
    for (int begin = 0; begin < pass.count; begin += kPhasesAtOnce) {
      const int some = pass.count - begin < kPhasesAtOnce ? pass.count - begin : kPhasesAtOnce;
      const uint8_t* variants[kPhasesAtOnce];
      const T* coefficients[kPhasesAtOnce];
      T* sums[kPhasesAtOnce];
      for (int k = 0; k < some; ++k) {
        const Entry& entry = entries[begin + k];
        uint8_t* const own = space.variants + (int64_t{k} << kWholeBits);
        T* const table = space.coefficients + k * Space<T>::kPairs;
        fill_variants(entry, first_variant(entry, base), bits, own);
        pair_coefficients(entry, u + int64_t{entry.chain} * 8 * lanes, lanes, true, table);
        variants[k] = own;
        coefficients[k] = table;
        sums[k] = space.sums + k * Space<T>::kPairs;
        fill_zero(sums[k], (int64_t{1} << entry.masks) * kBlock<T>);
      }
      phase_backward(psi, gradient, count, some, variants, coefficients, sums);
      for (int k = 0; k < some; ++k) {
        const Entry& entry = entries[begin + k];
        add_to_gradient(entry, sums[k], 2, lanes, K + int64_t{entry.chain} * 8 * lanes);
      }
    }
    return;
  }
  const Entry& entry = entries[0];
  fill_variants(entry, first_variant(entry, base), bits, space.variants);
  if (pass.kind == PassKind::kDense) {
    dense_coefficients(pass, entry, circuit.dense + entry.chain, true, space.coefficients);
    dense(psi, count, pass, space.variants, space.coefficients);
    dense(gradient, count, pass, space.variants, space.coefficients);
    return;
  }
  const int64_t chain = int64_t{entry.chain} * 8 * lanes;
  pair_coefficients(entry, u + chain, lanes, true, space.coefficients);
  fill_zero(space.sums, (int64_t{1} << entry.masks) * 4 * kWidth<T>);
  pair_backward_of(pass.low[0], psi, gradient, count, pass.local[0], space.variants,
                   space.coefficients, space.sums);
  add_to_gradient(entry, space.sums, 4, lanes, K + chain);
}

template <typename T>
void forward(const Circuit<T>& circuit, const Group& group, int64_t begin, int64_t end, const T* u,
             T* psi, T* scratch) {
  constexpr int B = kBlock<T>;
  Space<T> space(scratch);
  const bool whole = group.bits == circuit.bits - circuit.lane_bits;
  for (int64_t c = begin; c < end; ++c) {
    const int64_t base = representative(circuit, group, c);
    if (!whole) {
      for_coset(group, base, [&](int e, int64_t b) { put(space.psi + e * B, get(psi + b * B)); });
    }
    T* const own = whole ? psi : space.psi;
    for (int k = 0; k < group.count; ++k) {
      pass_forward(circuit, circuit.passes[group.first + k], base, group.bits, u, own, space);
    }
    if (!whole) {
      for_coset(group, base, [&](int e, int64_t b) { put(psi + b * B, get(space.psi + e * B)); });
    }
  }
}

template <typename T>
void backward(const Circuit<T>& circuit, const Group& group, int64_t begin, int64_t end, const T* u,
              T* psi, T* gradient, T* scratch, T* K) {
  constexpr int B = kBlock<T>;
  Space<T> space(scratch);
  const bool whole = group.bits == circuit.bits - circuit.lane_bits;
  for (int64_t c = begin; c < end; ++c) {
    const int64_t base = representative(circuit, group, c);
    if (!whole) {
      for_coset(group, base, [&](int e, int64_t b) {
        put(space.psi + e * B, get(psi + b * B));
        put(space.gradient + e * B, get(gradient + b * B));
      });
    }
    T *const own = whole ? psi : space.psi, *const slope = whole ? gradient : space.gradient;
    for (int k = group.count; k-- > 0;) {
      pass_backward(circuit, circuit.passes[group.first + k], base, group.bits, u, own, slope,
                    space, K);
    }
    if (!whole) {
      for_coset(group, base, [&](int e, int64_t b) {
        put(psi + b * B, get(space.psi + e * B));
        put(gradient + b * B, get(space.gradient + e * B));
      });
    }
  }
}

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
