// Vectors under their short names, and what the lanes of a block mean.
#pragma once

#include "common/math.inl"
#include "common/simd.inl"
#include "statevector/kernel.h"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

using saccade::SACCADE_ISA_NAMESPACE::broadcast;
using saccade::SACCADE_ISA_NAMESPACE::fill_zero;
using saccade::SACCADE_ISA_NAMESPACE::horizontal_sum;
using saccade::SACCADE_ISA_NAMESPACE::in_register;
using saccade::SACCADE_ISA_NAMESPACE::kWidth;
using saccade::SACCADE_ISA_NAMESPACE::Lanes;
using saccade::SACCADE_ISA_NAMESPACE::load;
using saccade::SACCADE_ISA_NAMESPACE::Mask;
using saccade::SACCADE_ISA_NAMESPACE::store;
using saccade::SACCADE_ISA_NAMESPACE::swap_halves;
using saccade::SACCADE_ISA_NAMESPACE::Vec;

#define SACCADE_INLINE inline __attribute__((always_inline))

template <typename T>
constexpr int kBlock = 2 * kWidth<T>;

SACCADE_INLINE int parity(int64_t x) { return __builtin_parityll(static_cast<uint64_t>(x)); }

// Lane i of the result is lane i ^ x of v.
template <typename T, int x>
SACCADE_INLINE Vec<T> flip_lanes(Vec<T> v) {
  if constexpr (x == 0) {
    return v;
  } else {
    return swap_halves<T, x>(v, Lanes<T>{});
  }
}

// The same for an x that is not known before.
template <typename T, int bit = 1>
SACCADE_INLINE Vec<T> flip_lanes(Vec<T> v, int x) {
  if constexpr (bit < kWidth<T>) {
    if (x & bit) v = swap_halves<T, bit>(v, Lanes<T>{});
    return flip_lanes<T, 2 * bit>(v, x);
  } else {
    return v;
  }
}

// How many numbers of a chain's matrix a tile has: one for every sample in its lanes, or one.
template <typename T>
SACCADE_INLINE int lanes_of(const Circuit<T>& circuit) {
  return circuit.lane_bits == 0 ? kWidth<T> : 1;
}

template <typename T>
SACCADE_INLINE int64_t blocks_of(const Circuit<T>& circuit) {
  return int64_t{1} << (circuit.bits - circuit.lane_bits);
}

// All lanes' numbers, from L = 1 or W of them.
template <typename T>
SACCADE_INLINE Vec<T> spread(const T* p, int lanes) {
  return lanes == 1 ? broadcast(*p) : load(p);
}

// (-1)^parity(lane & mask)
template <typename T>
SACCADE_INLINE Vec<T> lane_signs(int mask) {
  Vec<T> signs;
  for (int l = 0; l < kWidth<T>; ++l) signs[l] = parity(l & mask) ? T(-1) : T(1);
  return signs;
}

// In samples' lanes the tile's samples [first, first + count); else sample `tile`.
template <typename T>
SACCADE_INLINE int64_t samples_of(const Circuit<T>& circuit, int64_t tile, int64_t* first) {
  const int64_t width = lanes_of(circuit);
  *first = tile * width;
  return *first + width <= circuit.batch ? width : circuit.batch - *first;
}

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
