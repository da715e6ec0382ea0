// Gates on the amplitudes that a thread holds, forwards and backwards.
#pragma once

#include "statevector/cuda_tile.cuh"

namespace saccade::statevector {

constexpr unsigned kAll = (1u << kHeld) - 1;

// Bit r: amplitude r has bit `axis` in its own number.
__device__ __forceinline__ constexpr unsigned own_bit(int axis) {
  return axis == 0 ? 0xaa : axis == 1 ? 0xcc : 0xf0;
}

template <class T>
__device__ __forceinline__ Complex<T> conjugate(Complex<T> a) {
  return {a.re, -a.im};
}

template <class T>
__device__ __forceinline__ Complex<T> product(Complex<T> a, Complex<T> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// a p + b q
template <class T>
__device__ __forceinline__ Complex<T> combination(Complex<T> a, Complex<T> p, Complex<T> b,
                                                  Complex<T> q) {
  return {a.re * p.re - a.im * p.im + b.re * q.re - b.im * q.im,
          a.re * p.im + a.im * p.re + b.re * q.im + b.im * q.re};
}

// Whether bit k of the variant of a thread's first amplitude is set.
__device__ __forceinline__ bool is_set(const MaskBits& mask, int element, uint32_t first_index) {
  const unsigned both = (static_cast<unsigned>(element) & mask.local) ^ (first_index & mask.high);
  return ((static_cast<unsigned>(__popc(both)) ^ mask.flip) & 1) != 0;
}

// Bit r: amplitude r has controls that are all 1.
__device__ __forceinline__ unsigned active(const Use& use, int element, uint32_t first_index) {
  unsigned out = kAll;
  for (int k = 1; k < use.masks; ++k) {
    const MaskBits& mask = use.mask[k];
    out &= is_set(mask, element, first_index) ? ~mask.pattern : mask.pattern;
  }
  return out;
}

// The matrix with rows and columns exchanged where `turn` is set: as if the first amplitude were in
// row 0.
template <class T>
__device__ __forceinline__ Matrix<T> turned(const Matrix<T>& m, bool turn) {
  Matrix<T> out;
#pragma unroll
  for (int i = 0; i < 8; ++i) out.e[i] = turn ? m.e[i ^ 6] : m.e[i];
  return out;
}

template <class T>
__device__ __forceinline__ Complex<T> entry(const Matrix<T>& m, bool row, bool column) {
  return row ? (column ? Complex<T>{m.e[6], m.e[7]} : Complex<T>{m.e[4], m.e[5]})
             : (column ? Complex<T>{m.e[2], m.e[3]} : Complex<T>{m.e[0], m.e[1]});
}

// use(r, s, row of r, row of s) for all pairs of amplitudes that differ in a bit of their number.
template <int kAxis, class F>
__device__ __forceinline__ void for_pairs(unsigned rows, unsigned on, const F& use) {
#pragma unroll
  for (int r = 0; r < kHeld; ++r) {
    if (r >> kAxis & 1) continue;
    const int s = r | 1 << kAxis;
    // both have the same controls
    if (on >> r & 1) use(r, s, (rows >> r & 1) != 0, (rows >> s & 1) != 0);
  }
}

template <int kAxis, class T>
__device__ __forceinline__ void turn_pairs(const Matrix<T>& m, unsigned rows, unsigned on,
                                           Complex<T> (&z)[kHeld]) {
  for_pairs<kAxis>(rows, on, [&](int r, int s, bool row, bool other) {
    const Complex<T> p = z[r], q = z[s];
    z[r] = combination(entry(m, row, row), p, entry(m, row, !row), q);
    z[s] = combination(entry(m, other, other), q, entry(m, other, !other), p);
  });
}

// The adjoint of turn_pairs.
template <int kAxis, class T>
__device__ __forceinline__ void undo_pairs(const Matrix<T>& m, unsigned rows, unsigned on,
                                           Complex<T> (&z)[kHeld]) {
  for_pairs<kAxis>(rows, on, [&](int r, int s, bool row, bool other) {
    const Complex<T> p = z[r], q = z[s];
    z[r] = combination(conjugate(entry(m, row, row)), p, conjugate(entry(m, other, !other)), q);
    z[s] = combination(conjugate(entry(m, other, other)), q, conjugate(entry(m, row, !row)), p);
  });
}

// sums[row][column] += conj(g) z
template <class T>
__device__ __forceinline__ void add_inner(Matrix<T>& sums, bool row, bool column, Complex<T> g,
                                          Complex<T> z) {
  const Complex<T> x{g.re * z.re + g.im * z.im, g.re * z.im - g.im * z.re};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool here = (i >> 1 != 0) == row && (i & 1) == column;
    sums.e[2 * i] += here ? x.re : T(0);
    sums.e[2 * i + 1] += here ? x.im : T(0);
  }
}

// The sums that the gradient of the matrix needs: z before the gate, g behind it.
template <int kAxis, class T>
__device__ __forceinline__ Matrix<T> pair_sums(unsigned rows, unsigned on,
                                               const Complex<T> (&z)[kHeld],
                                               const Complex<T> (&g)[kHeld]) {
  Matrix<T> sums{};
  for_pairs<kAxis>(rows, on, [&](int r, int s, bool row, bool other) {
    add_inner(sums, row, row, g[r], z[r]);
    add_inner(sums, row, !row, g[r], z[s]);
    add_inner(sums, other, other, g[s], z[s]);
    add_inner(sums, other, !other, g[s], z[r]);
  });
  return sums;
}

// How a 2x2 meets a thread's amplitudes: as if the first one were in row 0.
template <class T>
struct Meeting {
  Matrix<T> matrix;
  unsigned rows, on;
  bool turn;
};

template <class T>
__device__ __forceinline__ Meeting<T> meet(const Walk<T>& w, const Use& use, const Held& held,
                                           const Matrix<T>* own, uint32_t first_index) {
  const bool turn = is_set(use.mask[0], held.element, first_index);
  const Matrix<T>* const all = use.own ? own : w.matrices;
  return {turned(all[use.place], turn), use.mask[0].pattern, active(use, held.element, first_index),
          turn};
}

template <int kAxis, class T>
__device__ __forceinline__ void apply_pair(const Use& use, const Meeting<T>& m,
                                           Complex<T> (&z)[kHeld]) {
  // most gates have no controls, and rows that are told by the bit they flip
  if (use.masks == 1 && m.rows == own_bit(kAxis)) {
    turn_pairs<kAxis>(m.matrix, own_bit(kAxis), kAll, z);
  } else {
    turn_pairs<kAxis>(m.matrix, m.rows, m.on, z);
  }
}

template <int kAxis, class T>
__device__ __forceinline__ Matrix<T> unapply_pair(const Use& use, const Meeting<T>& m,
                                                  Complex<T> (&z)[kHeld], Complex<T> (&g)[kHeld]) {
  Matrix<T> sums{};
  if (use.masks == 1 && m.rows == own_bit(kAxis)) {
    undo_pairs<kAxis>(m.matrix, own_bit(kAxis), kAll, z);
    if (use.wanted >= 0) sums = pair_sums<kAxis, T>(own_bit(kAxis), kAll, z, g);
    undo_pairs<kAxis>(m.matrix, own_bit(kAxis), kAll, g);
  } else {
    undo_pairs<kAxis>(m.matrix, m.rows, m.on, z);
    if (use.wanted >= 0) sums = pair_sums<kAxis, T>(m.rows, m.on, z, g);
    undo_pairs<kAxis>(m.matrix, m.rows, m.on, g);
  }
  return sums;
}

template <class T>
__device__ __forceinline__ void apply_phases(const Meeting<T>& m, Complex<T> (&z)[kHeld]) {
#pragma unroll
  for (int r = 0; r < kHeld; ++r) {
    const bool row = (m.rows >> r & 1) != 0;
    if (m.on >> r & 1) z[r] = product(entry(m.matrix, row, row), z[r]);
  }
}

template <class T>
__device__ __forceinline__ Matrix<T> unapply_phases(const Use& use, const Meeting<T>& m,
                                                    Complex<T> (&z)[kHeld],
                                                    Complex<T> (&g)[kHeld]) {
  Matrix<T> sums{};
#pragma unroll
  for (int r = 0; r < kHeld; ++r) {
    const bool row = (m.rows >> r & 1) != 0;
    if (!(m.on >> r & 1)) continue;
    const Complex<T> back = conjugate(entry(m.matrix, row, row));
    z[r] = product(back, z[r]);
    if (use.wanted >= 0) add_inner(sums, row, row, g[r], z[r]);
    g[r] = product(back, g[r]);
  }
  return sums;
}

// A dense gate, or its adjoint, on a tile; every thread has cosets of its own.
template <class T>
__device__ __forceinline__ void run_dense(const Walk<T>& w, const Step& step, bool adjoint,
                                          uint32_t first_index, Complex<T>* tile) {
  constexpr int kMost = 1 << kMaxFlips;
  const Use& use = w.program.uses[step.first_use];
  const double* const matrix = w.program.dense + use.place;
  const int size = 1 << step.dense, all = 1 << (w.sweep.bits + w.sub_bits - step.dense);
  for (int t = static_cast<int>(threadIdx.x); t < all; t += static_cast<int>(blockDim.x)) {
    const int base = expand(t, step.pivots, step.dense);
    const int element = base & ((1 << w.sweep.bits) - 1);
    int row = 0;
    bool on = true;
    for (int k = 0; k < use.masks; ++k) {
      const bool set = is_set(use.mask[k], element, first_index);
      if (k < step.dense) {
        row |= (set ? 1 : 0) << k;
      } else {
        on = on && set;
      }
    }
    if (!on) continue;
    const auto place = [&](int r) {
      int e = base;
      for (int k = 0; k < step.dense; ++k) {
        if ((r ^ row) >> k & 1) e ^= step.basis[k];
      }
      return swizzled<T>(e);
    };
    Complex<T> in[kMost];
#pragma unroll
    for (int s = 0; s < kMost; ++s) {
      in[s] = s < size ? tile[place(s)] : Complex<T>{};
    }
    for (int r = 0; r < size; ++r) {
      Complex<T> sum{};
#pragma unroll
      for (int s = 0; s < kMost; ++s) {
        if (s >= size) continue;
        const double* const e = matrix + 2 * (adjoint ? s * size + r : r * size + s);
        Complex<T> u{static_cast<T>(e[0]), static_cast<T>(e[1])};
        if (adjoint) u.im = -u.im;
        const Complex<T> x = product(u, in[s]);
        sum.re += x.re;
        sum.im += x.im;
      }
      tile[place(r)] = sum;
    }
  }
}

}  // namespace saccade::statevector
