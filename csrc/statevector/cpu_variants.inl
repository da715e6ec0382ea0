// What a gate does to a block: its variant, and the coefficients of all lanes for every variant.
#pragma once

#include "statevector/cpu_lanes.inl"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

// The variant of every block of a coset; `flips` holds the variant of its first block.
SACCADE_INLINE void fill_variants(const Entry& entry, int flips, int bits, uint8_t* variants) {
  variants[0] = static_cast<uint8_t>(flips);
  for (int b = 0; b < bits; ++b) {
    int turn = 0;
    for (int k = 0; k < entry.masks; ++k) turn |= (entry.local[k] >> b & 1) << k;
    const int half = 1 << b;
    for (int i = 0; i < half; ++i) variants[half + i] = static_cast<uint8_t>(variants[i] ^ turn);
  }
}

// The variant of the first block of the coset that starts at block `base`.
SACCADE_INLINE int first_variant(const Entry& entry, int64_t base) {
  int flips = entry.flips;
  for (int k = 0; k < entry.masks; ++k) flips ^= parity(base & entry.high[k]) << k;
  return flips;
}

// What every lane adds to its block's variant.
template <typename T>
SACCADE_INLINE Mask<T> lane_variants(const Entry& entry) {
  using Int = typename saccade::SACCADE_ISA_NAMESPACE::template Simd<T>::Int;
  Mask<T> turns{};
  for (int l = 0; l < kWidth<T>; ++l) {
    int turn = 0;
    for (int k = 0; k < entry.masks; ++k) turn |= parity(l & entry.low[k]) << k;
    turns[l] = static_cast<Int>(turn);
  }
  return turns;
}

// Row and activity of the lanes of one variant of a 2x2.
template <typename T>
struct Roles {
  Mask<T> row, active;
};

template <typename T>
SACCADE_INLINE Roles<T> roles(const Entry& entry, Mask<T> turns, int variant) {
  using Int = typename saccade::SACCADE_ISA_NAMESPACE::template Simd<T>::Int;
  const Mask<T> total = turns ^ static_cast<Int>(variant);
  const Int controls = static_cast<Int>((1 << entry.masks) - 2);
  return {(total & Int(1)) != Int(0), (total & controls) == controls};
}

// coefficients[variant]: for every lane the factor of its own amplitude and that of its partner, in
// real and imaginary parts. The inverse is the adjoint.
template <typename T>
inline void pair_coefficients(const Entry& entry, const T* u, int lanes, bool inverse,
                              T* coefficients) {
  constexpr int W = kWidth<T>;
  const Mask<T> turns = lane_variants<T>(entry);
  Vec<T> m[8];
  for (int i = 0; i < 8; ++i) m[i] = spread(u + i * lanes, lanes);
  const Vec<T> zero{}, one = broadcast(T(1));
  for (int v = 0; v < 1 << entry.masks; ++v, coefficients += 4 * W) {
    const Roles<T> own = roles<T>(entry, turns, v);
    // the adjoint's element is the conjugate of the one with which the partner reads this lane
    const Mask<T> row = inverse && (entry.across & 1) ? ~own.row : own.row;
    const Vec<T> same_re = own.row ? m[6] : m[0], same_im = own.row ? m[7] : m[1];
    const Vec<T> cross_re = row ? m[4] : m[2], cross_im = row ? m[5] : m[3];
    store<T>(coefficients, own.active ? same_re : one);
    store<T>(coefficients + W, own.active ? (inverse ? -same_im : same_im) : zero);
    store<T>(coefficients + 2 * W, own.active ? cross_re : zero);
    store<T>(coefficients + 3 * W, own.active ? (inverse ? -cross_im : cross_im) : zero);
  }
}

// Adds the sums of every variant, conj(gradient) times the own and the partner's amplitude, to K.
template <typename T>
inline void add_to_gradient(const Entry& entry, const T* sums, int parts, int lanes, T* K) {
  constexpr int W = kWidth<T>;
  const Mask<T> turns = lane_variants<T>(entry);
  const Vec<T> zero{};
  for (int v = 0; v < 1 << entry.masks; ++v, sums += parts * W) {
    const Roles<T> own = roles<T>(entry, turns, v);
    for (int row = 0; row < 2; ++row) {
      const Mask<T> here = own.active & (row ? own.row : ~own.row);
      for (int part = 0; part < parts; ++part) {
        // parts 0 and 1 are of the diagonal, 2 and 3 of the other element
        const int element = (row * 2 + (part < 2 ? row : 1 - row)) * 2 + (part & 1);
        const Vec<T> sum = here ? load(sums + part * W) : zero;
        if (lanes == 1) {
          K[element] += horizontal_sum<T>(sum);
        } else {
          store<T>(K + element * W, load(K + element * W) + sum);
        }
      }
    }
  }
}

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
