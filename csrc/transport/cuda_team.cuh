// Passes over a row of costs as a block makes them, a column a thread and stride.
#pragma once

#include "common/cuda_device.cuh"
#include "transport/exact.h"

#define SACCADE_TRANSPORT_NAMESPACE device
#define SACCADE_TRANSPORT_FUNCTION __device__ __forceinline__
#define SACCADE_TRANSPORT_LAYOUT __host__ __device__ inline
#include "transport/assignment.inl"
#include "transport/assignment_whole.inl"

namespace saccade::transport::exact::device {

constexpr uint32_t kNone = 0xffffffffu;

// Numbers as integers of the same order; 0 and -0 are one.
struct Key {
  uint32_t high, low;
};

__device__ __forceinline__ Key key_of(float x) {
  const uint32_t bits = static_cast<uint32_t>(__float_as_int(x + 0.f));
  return {bits >> 31 ? ~bits : bits | 0x80000000u, 0};
}
__device__ __forceinline__ Key key_of(double x) {
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(x + 0.0));
  const uint64_t key = bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
  return {static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key)};
}
__device__ __forceinline__ void number_of(Key key, float& x) {
  x = __int_as_float(static_cast<int>(key.high >> 31 ? key.high & 0x7fffffffu : ~key.high));
}
__device__ __forceinline__ void number_of(Key key, double& x) {
  const uint64_t bits = static_cast<uint64_t>(key.high) << 32 | key.low;
  x = __longlong_as_double(static_cast<int64_t>(bits >> 63 ? bits & ~(uint64_t{1} << 63) : ~bits));
}

// A number and where it stands; of equal ones the lower index is the smaller.
template <typename T>
struct Place {
  T value;
  uint32_t at;
};

template <typename T>
__device__ __forceinline__ Place<T> nowhere() {
  return {static_cast<T>(kInfinity), kNone};
}

// The smallest of a warp, on every lane.
template <typename T>
__device__ __forceinline__ Place<T> warp_least(Place<T> own) {
  const Key key = key_of(own.value);
  Key least;
  least.high = __reduce_min_sync(cuda::kFullWarp, key.high);
  bool is_least = key.high == least.high;
  least.low = 0;
  if constexpr (sizeof(T) == sizeof(double)) {
    least.low = __reduce_min_sync(cuda::kFullWarp, is_least ? key.low : kNone);
    is_least = is_least && key.low == least.low;
  }
  Place<T> place;
  number_of(least, place.value);
  place.at = __reduce_min_sync(cuda::kFullWarp, is_least ? own.at : kNone);
  return place;
}

// The smallest two of a warp's pairs.
template <typename T>
__device__ __forceinline__ void warp_least_two(Place<T>& first, Place<T>& second) {
  const Place<T> least = warp_least(first);
  if (first.at == least.at) first = second;
  second = warp_least(first);
  first = least;
}

template <int kThreads>
struct Block {
  static constexpr int kWarps = kThreads / 32;
  // what warps hand to each other; two turns, so that one barrier is enough
  struct Exchange {
    double values[2][2 * kWarps];
    uint32_t places[2][2 * kWarps];
  };

  Exchange* exchange;
  mutable int turn = 0;

  template <class F>
  __device__ __forceinline__ void each(int32_t count, const F& f) const {
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count; i += kThreads) f(i);
  }
  __device__ __forceinline__ bool leads() const { return threadIdx.x == 0; }
  __device__ __forceinline__ void sync() const {
    if constexpr (kWarps == 1) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
  __device__ __forceinline__ int lane() const { return static_cast<int>(threadIdx.x) % 32; }
  __device__ __forceinline__ int warp() const { return static_cast<int>(threadIdx.x) / 32; }

  // Hands a pair of every warp to all; those that there are not are nowhere.
  template <typename T>
  __device__ __forceinline__ void trade(Place<T>& first, Place<T>& second) const {
    turn ^= 1;
    double* const values = exchange->values[turn];
    uint32_t* const places = exchange->places[turn];
    if (lane() == 0) {
      values[warp()] = static_cast<double>(first.value);
      places[warp()] = first.at;
      values[kWarps + warp()] = static_cast<double>(second.value);
      places[kWarps + warp()] = second.at;
    }
    __syncthreads();
    first = second = nowhere<T>();
    if (lane() < kWarps) {
      first = {static_cast<T>(values[lane()]), places[lane()]};
      second = {static_cast<T>(values[kWarps + lane()]), places[kWarps + lane()]};
    }
  }

  template <typename T>
  __device__ __forceinline__ Place<T> least(Place<T> own) const {
    own = warp_least(own);
    if constexpr (kWarps > 1) {
      Place<T> none = nowhere<T>();
      trade(own, none);
      own = warp_least(own);
    }
    return own;
  }
  template <typename T>
  __device__ __forceinline__ T smallest(T x) const {
    return least(Place<T>{x, 0}).value;
  }

  __device__ __forceinline__ double sum(double x) const {
#pragma unroll
    for (int bit = 1; bit < 32; bit *= 2) x += __shfl_xor_sync(cuda::kFullWarp, x, bit);
    if constexpr (kWarps > 1) {
      turn ^= 1;
      if (lane() == 0) exchange->values[turn][warp()] = x;
      __syncthreads();
      x = 0.0;
      for (int k = 0; k < kWarps; ++k) x += exchange->values[turn][k];
    }
    return x;
  }

  template <class P>
  __device__ __forceinline__ void smallest_of_columns(const P& p, typename P::Number* smallest,
                                                      int32_t* row) const {
    each(p.m, [&](int32_t j) {
      typename P::Number least = p.at(0, j);
      int32_t at = 0;
      for (int32_t i = 1; i < p.n; ++i) {
        const typename P::Number c = p.at(i, j);
        at = c < least ? i : at;
        least = c < least ? c : least;
      }
      smallest[j] = least;
      row[j] = at;
    });
  }

  template <class P>
  __device__ __forceinline__ TwoSmallest<typename P::Number> two_smallest(const P& p,
                                                                          int32_t i) const {
    using T = typename P::Number;
    Place<T> first = nowhere<T>(), second = first;
    each(p.m, [&](int32_t j) {
      const T c = p.at(i, j) - p.v[j];
      const Place<T> own{c, static_cast<uint32_t>(j)};
      if (c < first.value) {
        second = first;
        first = own;
      } else if (c < second.value) {
        second = own;
      }
    });
    warp_least_two(first, second);
    if constexpr (kWarps > 1) {
      trade(first, second);
      warp_least_two(first, second);
    }
    return {first.value, second.value, static_cast<int32_t>(first.at),
            static_cast<int32_t>(second.at)};
  }

  template <class P>
  __device__ __forceinline__ typename P::Number smallest_but(const P& p, int32_t i,
                                                             int32_t but) const {
    using T = typename P::Number;
    T least = static_cast<T>(kInfinity);
    each(p.m, [&](int32_t j) {
      const T c = p.at(i, j) - p.v[j];
      if (j != but && c < least) least = c;
    });
    return smallest(least);
  }

  template <class P>
  __device__ __forceinline__ typename P::Number begin_search(const P& p, int32_t i) const {
    using T = typename P::Number;
    T least = static_cast<T>(kInfinity);
    each(p.m, [&](int32_t j) {
      const T c = p.at(i, j) - p.open[j];
      p.distance[j] = c;
      p.from[j] = i;
      if (c < least) least = c;
    });
    return smallest(least);
  }

  // Distances through row i; the smallest of all open columns.
  template <class P>
  __device__ __forceinline__ typename P::Number relax(const P& p, int32_t i,
                                                      typename P::Number offset) const {
    using T = typename P::Number;
    T least = static_cast<T>(kInfinity);
    each(p.m, [&](int32_t j) {
      const T c = (p.at(i, j) - p.open[j]) - offset;
      T distance = p.distance[j];
      if (c < distance) {
        p.distance[j] = distance = c;
        p.from[j] = i;
      }
      if (distance < least) least = distance;
    });
    return smallest(least);
  }

  // Of the columns at this distance the first free one, or else the first.
  template <class P>
  __device__ __forceinline__ int32_t nearest(const P& p, typename P::Number distance) const {
    constexpr uint32_t kTaken = 1u << 30;
    uint32_t best = kNone;
    each(p.m, [&](int32_t j) {
      if (p.distance[j] != distance) return;
      const uint32_t own = static_cast<uint32_t>(j) | (p.row_of[j] < 0 ? 0u : kTaken);
      if (own < best) best = own;
    });
    return static_cast<int32_t>(least(Place<float>{0.f, best}).at & ~kTaken);
  }
};

}  // namespace saccade::transport::exact::device
