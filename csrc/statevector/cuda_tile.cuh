// A block's tile in shared memory: where its elements come from, and how threads find theirs.
#pragma once

#include "statevector/cuda_kernel.cuh"

namespace saccade::statevector {

constexpr int kHeld = 1 << kStepBits;  // amplitudes of a thread

// Everything a sweep's kernel takes but where states lie.
template <class T>
struct Walk {
  Sweep sweep;
  DeviceProgram program;
  const Matrix<T>* matrices;
  Images images;
  int64_t batch;
  int32_t bits, n_shared, n_own, n_wanted, sub_bits, slots;
};

template <class T>
Walk<T> walk_of(const Run<T>& run, const Sweep& sweep) {
  const Cut cut = cut_of(run.bits, run.batch);
  return {sweep,        run.program, run.matrices, run.images,   run.batch, run.bits,
          run.n_shared, run.n_own,   run.n_wanted, cut.sub_bits, cut.slots};
}

// Where element e lies: neighbouring threads, whose elements are a power of two apart, meet
// different banks. It is linear: the place of e ^ f is that of e ^ that of f.
template <class T>
__device__ __forceinline__ int swizzled(int e) {
  return sizeof(T) == 4 ? e ^ (e >> 4 & 15) : e ^ (e >> 3 & 7);
}

// Puts zeros between the bits of t: at the pivots, which ascend.
__device__ __forceinline__ int expand(int t, const uint16_t* pivots, int count) {
  for (int k = 0; k < count; ++k) {
    const int p = pivots[k];
    t = t >> p << (p + 1) | (t & ((1 << p) - 1));
  }
  return t;
}

// The first index of a tile.
__device__ __forceinline__ uint32_t representative(const Sweep& sweep, int64_t coset) {
  for (int k = 0; k < sweep.bits; ++k) {
    const int p = sweep.pivots[k];
    coset = coset >> p << (p + 1) | (coset & ((int64_t{1} << p) - 1));
  }
  return static_cast<uint32_t>(coset);
}

__device__ __forceinline__ uint32_t index_of(const Sweep& sweep, uint32_t first, int element) {
  for (int k = 0; k < sweep.bits; ++k) {
    if (element >> k & 1) first ^= sweep.basis[k];
  }
  return first;
}

__device__ __forceinline__ uint32_t logical_index(const Images& images, int bits, uint32_t p) {
  auto index = static_cast<uint32_t>(images.origin);
  for (int b = 0; b < bits; ++b) {
    if (p >> b & 1) index ^= static_cast<uint32_t>(images.bit[b]);
  }
  return index;
}

// use(element, offset in an array of all states) for a thread's elements of a tile. Elements of
// samples and bits that are there to fill up have the offset -1.
template <class T, class F>
__device__ __forceinline__ void for_elements(const Walk<T>& w, int64_t first_sample,
                                             uint32_t first_index, bool logical, const F& use) {
  const int bits = w.sweep.bits, count = 1 << (bits + w.sub_bits);
  const bool whole = w.bits <= kTileBits;
  for (int e = static_cast<int>(threadIdx.x); e < count; e += static_cast<int>(blockDim.x)) {
    const int64_t b = first_sample + (e >> bits);
    const int element = e & ((1 << bits) - 1);
    uint32_t p = whole ? static_cast<uint32_t>(element) : index_of(w.sweep, first_index, element);
    if (b >= w.batch || p >> w.bits) {
      use(e, int64_t{-1}, p);
      continue;
    }
    const uint32_t at = logical ? logical_index(w.images, w.bits, p) : p;
    use(e, (b << w.bits) + at, p);
  }
}

// A thread's amplitudes in a step.
struct Held {
  int element;          // the first one, in its sample
  int sub;              // its sample in the tile
  int first;            // where it lies in shared memory
  int turn[kStepBits];  // and what each of the three flips adds to that

  __device__ __forceinline__ int place(int r) const {
    int at = first;
#pragma unroll
    for (int k = 0; k < kStepBits; ++k) at ^= r >> k & 1 ? turn[k] : 0;
    return at;
  }
};

template <class T>
__device__ __forceinline__ Held hold(const Walk<T>& w, const Step& step, int t) {
  const int base = expand(t, step.pivots, kStepBits);
  Held held{base & ((1 << w.sweep.bits) - 1), base >> w.sweep.bits, swizzled<T>(base), {}};
#pragma unroll
  for (int k = 0; k < kStepBits; ++k) held.turn[k] = swizzled<T>(step.basis[k]);
  return held;
}

template <class T>
__device__ __forceinline__ void gather(const Complex<T>* tile, const Held& held,
                                       Complex<T> (&z)[kHeld]) {
#pragma unroll
  for (int r = 0; r < kHeld; ++r) z[r] = tile[held.place(r)];
}

template <class T>
__device__ __forceinline__ void scatter(Complex<T>* tile, const Held& held,
                                        const Complex<T> (&z)[kHeld]) {
#pragma unroll
  for (int r = 0; r < kHeld; ++r) tile[held.place(r)] = z[r];
}

// The sums of 8 numbers over a warp by halving exchanges: every lane gets one, that of number
// lane / 4. For both types, which cuda::team_reduce is not.
template <class T, int kCount = 8>
__device__ __forceinline__ T warp_sums(T (&v)[8], int lane, int partner = 16) {
  if constexpr (kCount > 1) {
    constexpr int half = kCount / 2;
    const bool upper = (lane & partner) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T send = upper ? v[i] : v[i + half];
      const T keep = upper ? v[i + half] : v[i];
      v[i] = keep + __shfl_xor_sync(cuda::kFullWarp, send, partner);
    }
    return warp_sums<T, half>(v, lane, partner / 2);
  } else {
    T sum = v[0];
    for (; partner > 0; partner /= 2) sum += __shfl_xor_sync(cuda::kFullWarp, sum, partner);
    return sum;
  }
}

// The matrices that a sample has for itself; samples that fill up a tile take those of the last
// one.
template <class T>
__device__ __forceinline__ const Matrix<T>* own_matrices(const Walk<T>& w, int64_t b) {
  return w.matrices + w.n_shared + (b < w.batch ? b : w.batch - 1) * w.n_own;
}

}  // namespace saccade::statevector
