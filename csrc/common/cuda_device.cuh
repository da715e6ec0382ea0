// What CUDA kernels share: number types, 16-byte accesses, asynchronous copies, reductions over a
// team of lanes, launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace saccade::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr size_t kDefaultShared = 48 * 1024;  // what a launch may use without opting in

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

template <class T>
struct alignas(16) Vector {
  T element[kVector<T>];
};

// A row of kPadded elements is held by kPadded / 8 lanes, 8 elements each, in pieces of 16 bytes:
// consecutive lanes take consecutive pieces, so that a shared-memory access has no bank conflict
// within a row.
template <class T, int kPadded>
__device__ __forceinline__ int piece_offset(int lane, int piece) {
  return piece * (kPadded * kVector<T> / 8) + lane * kVector<T>;
}

template <class T, int kPadded>
__device__ __forceinline__ void load_shared(const T* row, int lane, float (&x)[8]) {
#pragma unroll
  for (int piece = 0; piece < 8 / kVector<T>; ++piece) {
    const Vector<T> v =
        *reinterpret_cast<const Vector<T>*>(row + piece_offset<T, kPadded>(lane, piece));
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) x[piece * kVector<T> + i] = to_float(v.element[i]);
  }
}

// Elements at `dim` and beyond read as zero.
template <class T, int kPadded>
__device__ __forceinline__ void load_global(const T* row, int lane, int dim, bool aligned,
                                            float (&x)[8]) {
#pragma unroll
  for (int piece = 0; piece < 8 / kVector<T>; ++piece) {
    const int at = piece_offset<T, kPadded>(lane, piece);
    if (aligned && at < dim) {
      const Vector<T> v = *reinterpret_cast<const Vector<T>*>(row + at);
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) x[piece * kVector<T> + i] = to_float(v.element[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i)
        x[piece * kVector<T> + i] = at + i < dim ? to_float(row[at + i]) : 0.f;
    }
  }
}

template <class Out, class T, int kPadded>
__device__ __forceinline__ void store_global(Out* row, int lane, int dim, const float (&x)[8]) {
  const bool aligned = dim % kVector<Out> == 0;
#pragma unroll
  for (int piece = 0; piece < 8 / kVector<T>; ++piece) {
    const int at = piece_offset<T, kPadded>(lane, piece);
    if constexpr (sizeof(Out) == sizeof(T)) {
      if (aligned && at < dim) {
        Vector<Out> v;
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i)
          v.element[i] = from_float<Out>(x[piece * kVector<T> + i]);
        *reinterpret_cast<Vector<Out>*>(row + at) = v;
        continue;
      }
    }
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      if (at + i < dim) row[at + i] = from_float<Out>(x[piece * kVector<T> + i]);
    }
  }
}

#ifdef __CUDACC__
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(global) : "memory");
}

__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_all;\n" ::: "memory");
}

template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char saccade_shared[];
  return reinterpret_cast<T*>(saccade_shared);
}
#endif

// N values on each of kLanes lanes become sums over the lanes; of the N sums each lane keeps
// kOwned. Halving exchanges cost about N + log2(kLanes) shuffles where a butterfly for every value
// would cost N * log2(kLanes).
template <int N, int kLanes, int kCount = N>
__device__ __forceinline__ void team_reduce(float (&v)[N], int lane) {
  if constexpr (kLanes > 1) {
    constexpr int partner = kLanes / 2;
    if constexpr (kCount > 1) {
      constexpr int half = kCount / 2;
      const bool upper = (lane & partner) != 0;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const float send = upper ? v[i] : v[i + half];
        const float keep = upper ? v[i + half] : v[i];
        v[i] = keep + __shfl_xor_sync(kFullWarp, send, partner);
      }
      team_reduce<N, partner, half>(v, lane);
    } else {
      v[0] += __shfl_xor_sync(kFullWarp, v[0], partner);
      team_reduce<N, partner, 1>(v, lane);
    }
  }
}

// Which lane holds which sum after team_reduce: value i is element i % kOwned of lane lane_of(i).
template <int N, int kLanes>
struct Owner {
  static constexpr int kOwned = N >= kLanes ? N / kLanes : 1;
  static constexpr int kCopies = N >= kLanes ? 1 : kLanes / N;
  __device__ static __forceinline__ int first(int lane) { return lane / kCopies * kOwned; }
  __device__ static __forceinline__ constexpr int lane_of(int i) { return i / kOwned * kCopies; }
};

// Reduces over the lanes of a team whose numbers differ in the bits from kFrom up to, not
// including, kTo.
template <int kFrom, int kTo, class F>
__device__ __forceinline__ float lanes_reduce(float x, F combine) {
#pragma unroll
  for (int bit = kFrom; bit < kTo; bit *= 2) x = combine(x, __shfl_xor_sync(kFullWarp, x, bit));
  return x;
}

#ifdef __CUDACC__
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared,
                   cudaStream_t stream, const Arguments&... arguments) {
  if (shared > kDefaultShared) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (error != cudaSuccess) return error;
  }
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared, stream>>>(
      arguments...);
  return cudaGetLastError();
}
#endif

}  // namespace saccade::cuda
