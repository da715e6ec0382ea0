// Passes of a 2x2 over the pairs (p, p ^ x) of a coset, and of products of phases.
#pragma once

#include "statevector/cpu_variants.inl"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

// A complex number in every lane.
template <typename T>
struct Number {
  Vec<T> re, im;
};

template <typename T>
SACCADE_INLINE Number<T> get(const T* block) {
  return {load(block), load(block + kWidth<T>)};
}

template <typename T>
SACCADE_INLINE void put(T* block, Number<T> z) {
  store<T>(block, z.re);
  store<T>(block + kWidth<T>, z.im);
}

template <typename T, int x>
SACCADE_INLINE Number<T> flipped(Number<T> z) {
  return {flip_lanes<T, x>(z.re), flip_lanes<T, x>(z.im)};
}

template <typename T>
SACCADE_INLINE Number<T> product(Number<T> a, Number<T> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// a p + b q with the coefficients of a variant.
template <typename T>
SACCADE_INLINE Number<T> combination(const T* c, Number<T> p, Number<T> q) {
  constexpr int W = kWidth<T>;
  const Vec<T> ar = load(c), ai = load(c + W), br = load(c + 2 * W), bi = load(c + 3 * W);
  return {ar * p.re - ai * p.im + br * q.re - bi * q.im,
          ar * p.im + ai * p.re + br * q.im + bi * q.re};
}

// sum += conj(a) b
template <typename T>
SACCADE_INLINE void add_inner(T* sum, Number<T> a, Number<T> b) {
  constexpr int W = kWidth<T>;
  store<T>(sum, load(sum) + a.re * b.re + a.im * b.im);
  store<T>(sum + W, load(sum + W) + a.re * b.im - a.im * b.re);
}

// use(i, j) for all pairs of blocks j = i ^ x, x not 0.
template <typename F>
SACCADE_INLINE void for_pairs(int count, int x, const F& use) {
  const int half = 1 << (31 - __builtin_clz(static_cast<unsigned>(x)));
  for (int base = 0; base < count; base += 2 * half) {
    for (int i = base; i < base + half; ++i) use(i, i ^ x);
  }
}

template <typename T, int low>
void pair_forward(T* psi, int count, int x, const uint8_t* variants, const T* coefficients) {
  constexpr int S = 4 * kWidth<T>, B = kBlock<T>;
  if (x == 0) {
    for (int i = 0; i < count; ++i) {
      const Number<T> p = get(psi + i * B);
      put(psi + i * B, combination(coefficients + variants[i] * S, p, flipped<T, low>(p)));
    }
    return;
  }
  for_pairs(count, x, [&](int i, int j) {
    const Number<T> p = get(psi + i * B), q = get(psi + j * B);
    put(psi + i * B, combination(coefficients + variants[i] * S, p, flipped<T, low>(q)));
    put(psi + j * B, combination(coefficients + variants[j] * S, q, flipped<T, low>(p)));
  });
}

// Undoes the gate on both states; sums[variant] gets conj(gradient) times the amplitudes before it.
template <typename T, int low>
void pair_backward(T* psi, T* gradient, int count, int x, const uint8_t* variants,
                   const T* coefficients, T* sums) {
  constexpr int S = 4 * kWidth<T>, B = kBlock<T>, W = kWidth<T>;
  if (x == 0) {
    for (int i = 0; i < count; ++i) {
      const T* const c = coefficients + variants[i] * S;
      T* const sum = sums + variants[i] * S;
      const Number<T> p = get(psi + i * B), g = get(gradient + i * B);
      const Number<T> before = combination(c, p, flipped<T, low>(p));
      add_inner(sum, g, before);
      add_inner(sum + 2 * W, g, flipped<T, low>(before));
      put(psi + i * B, before);
      put(gradient + i * B, combination(c, g, flipped<T, low>(g)));
    }
    return;
  }
  for_pairs(count, x, [&](int i, int j) {
    const T *const c = coefficients + variants[i] * S, *const d = coefficients + variants[j] * S;
    const Number<T> p = get(psi + i * B), q = get(psi + j * B);
    const Number<T> g = get(gradient + i * B), h = get(gradient + j * B);
    const Number<T> a = combination(c, p, flipped<T, low>(q));
    const Number<T> b = combination(d, q, flipped<T, low>(p));
    put(psi + i * B, a);
    put(psi + j * B, b);
    put(gradient + i * B, combination(c, g, flipped<T, low>(h)));
    put(gradient + j * B, combination(d, h, flipped<T, low>(g)));
    add_inner(sums + variants[i] * S, g, a);
    add_inner(sums + variants[i] * S + 2 * W, g, flipped<T, low>(b));
    add_inner(sums + variants[j] * S, h, b);
    add_inner(sums + variants[j] * S + 2 * W, h, flipped<T, low>(a));
  });
}

template <typename T, int low = 0>
inline void pair_forward_of(int x_low, T* psi, int count, int x, const uint8_t* variants,
                            const T* coefficients) {
  if constexpr (low < kWidth<T>) {
    if (x_low != low)
      return pair_forward_of<T, low + 1>(x_low, psi, count, x, variants, coefficients);
    pair_forward<T, low>(psi, count, x, variants, coefficients);
  }
}

template <typename T, int low = 0>
inline void pair_backward_of(int x_low, T* psi, T* gradient, int count, int x,
                             const uint8_t* variants, const T* coefficients, T* sums) {
  if constexpr (low < kWidth<T>) {
    if (x_low != low) {
      return pair_backward_of<T, low + 1>(x_low, psi, gradient, count, x, variants, coefficients,
                                          sums);
    }
    pair_backward<T, low>(psi, gradient, count, x, variants, coefficients, sums);
  }
}

// Multiplies every block with the phases of up to kPhasesAtOnce entries.
template <typename T>
void phase_forward(T* psi, int count, int entries, const uint8_t* const* variants,
                   const T* const* coefficients) {
  constexpr int S = 4 * kWidth<T>, B = kBlock<T>;
  for (int i = 0; i < count; ++i) {
    Number<T> factor = get(coefficients[0] + variants[0][i] * S);
    for (int k = 1; k < entries; ++k) {
      factor = product(factor, get(coefficients[k] + variants[k][i] * S));
    }
    put(psi + i * B, product(factor, get(psi + i * B)));
  }
}

// conj(gradient) psi is the same before and behind a phase, so all entries take it from one place.
template <typename T>
void phase_backward(T* psi, T* gradient, int count, int entries, const uint8_t* const* variants,
                    const T* const* coefficients, T* const* sums) {
  constexpr int S = 4 * kWidth<T>, B = kBlock<T>, W = kWidth<T>;
  for (int i = 0; i < count; ++i) {
    const Number<T> p = get(psi + i * B), g = get(gradient + i * B);
    const Number<T> inner{g.re * p.re + g.im * p.im, g.re * p.im - g.im * p.re};
    Number<T> factor{broadcast(T(1)), Vec<T>{}};
    for (int k = 0; k < entries; ++k) {
      const Number<T> own = get(coefficients[k] + variants[k][i] * S);
      factor = product(factor, own);
      // before the phase psi is multiplied with its inverse, which `own` is
      const Number<T> z = product(inner, own);
      T* const sum = sums[k] + variants[k][i] * 2 * W;
      store<T>(sum, load(sum) + z.re);
      store<T>(sum + W, load(sum + W) + z.im);
    }
    put(psi + i * B, product(factor, p));
    put(gradient + i * B, product(factor, g));
  }
}

// A matrix on up to four wires: the 2^k blocks of a coset of its flips are read before one is
// written.
template <typename T>
void dense(T* psi, int count, const Pass& pass, const uint8_t* variants, const T* coefficients) {
  constexpr int B = kBlock<T>;
  const int size = 1 << pass.flips;
  T before[16 * B];
  // flips of lanes alone make fewer blocks of a coset; `local` flips that are dependent are skipped
  int steps[kMaxFlips], pivots = 0, dimensions = 0;
  for (int k = 0; k < pass.flips; ++k) {
    int x = pass.local[k];
    for (int d = 0; d < dimensions; ++d) {
      const int y = x ^ steps[d];
      x = y < x ? y : x;
    }
    if (x == 0) continue;
    steps[dimensions++] = x;
    for (int d = dimensions - 1; d > 0 && steps[d] > steps[d - 1]; --d) {
      const int t = steps[d];
      steps[d] = steps[d - 1];
      steps[d - 1] = t;
    }
  }
  for (int d = 0; d < dimensions; ++d) {
    pivots |= 1 << (31 - __builtin_clz(static_cast<unsigned>(steps[d])));
  }
  int flips[16], lows[16];
  for (int j = 0; j < size; ++j) {
    flips[j] = lows[j] = 0;
    for (int k = 0; k < pass.flips; ++k) {
      if (j >> k & 1) {
        flips[j] ^= pass.local[k];
        lows[j] ^= pass.low[k];
      }
    }
  }
  int members[16];
  for (int e = 0; e < 1 << dimensions; ++e) {
    members[e] = 0;
    for (int d = 0; d < dimensions; ++d) members[e] ^= (e >> d & 1) ? steps[d] : 0;
  }
  for (int base = 0; base < count; ++base) {
    if (base & pivots) continue;
    for (int j = 0; j < size; ++j) {
      put(before + j * B, get(psi + (base ^ flips[j]) * B));
    }
    for (int e = 0; e < 1 << dimensions; ++e) {
      const int i = base ^ members[e];
      const T* c = coefficients + variants[i] * size * B;
      Number<T> sum{Vec<T>{}, Vec<T>{}};
      for (int j = 0; j < size; ++j, c += B) {
        // the block of i ^ flips[j] was read as that of some flips[f] = members[e] ^ flips[j]
        const int wanted = members[e] ^ flips[j];
        int f = 0;
        while (flips[f] != wanted) ++f;
        const Number<T> q = get(before + f * B);
        const Number<T> z =
            product(get(c), Number<T>{flip_lanes<T>(q.re, lows[j]), flip_lanes<T>(q.im, lows[j])});
        sum.re += z.re;
        sum.im += z.im;
      }
      put(psi + i * B, sum);
    }
  }
}

// coefficients[variant][j]: what a lane takes of the amplitude that flips j away from it.
template <typename T>
void dense_coefficients(const Pass& pass, const Entry& entry, const double* matrix, bool inverse,
                        T* coefficients) {
  constexpr int W = kWidth<T>;
  const int size = 1 << pass.flips, controls = (1 << entry.masks) - size;
  const Mask<T> turns = lane_variants<T>(entry);
  for (int v = 0; v < 1 << entry.masks; ++v) {
    for (int j = 0; j < size; ++j, coefficients += 2 * W) {
      for (int l = 0; l < W; ++l) {
        const int total = v ^ static_cast<int>(turns[l]);
        const bool active = (total & controls) == controls;
        const int row = total & (size - 1), column = row ^ j;
        const double* const m = matrix + 2 * (inverse ? column * size + row : row * size + column);
        coefficients[l] = static_cast<T>(active ? m[0] : j == 0);
        coefficients[W + l] = static_cast<T>(active ? (inverse ? -m[1] : m[1]) : 0);
      }
    }
  }
}

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
