// Passes over a row of costs as one thread makes them, vector by vector.
#pragma once

#include "common/simd.inl"
#include "transport/exact.h"

#define SACCADE_TRANSPORT_NAMESPACE SACCADE_ISA_NAMESPACE
#define SACCADE_TRANSPORT_FUNCTION inline
#define SACCADE_TRANSPORT_LAYOUT inline
#include "transport/assignment.inl"
#include "transport/assignment_whole.inl"

namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE {

using saccade::SACCADE_ISA_NAMESPACE::broadcast;
using saccade::SACCADE_ISA_NAMESPACE::kWidth;
using saccade::SACCADE_ISA_NAMESPACE::Lanes;
using saccade::SACCADE_ISA_NAMESPACE::load;
using saccade::SACCADE_ISA_NAMESPACE::Mask;
using saccade::SACCADE_ISA_NAMESPACE::max;
using saccade::SACCADE_ISA_NAMESPACE::Simd;
using saccade::SACCADE_ISA_NAMESPACE::store;
using saccade::SACCADE_ISA_NAMESPACE::swap_halves;
using saccade::SACCADE_ISA_NAMESPACE::Vec;

template <typename T>
inline __attribute__((always_inline)) Vec<T> min(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}

template <typename T, int half = kWidth<T> / 2>
inline __attribute__((always_inline)) T horizontal_min(Vec<T> v) {
  v = min<T>(v, swap_halves<T, half>(v, Lanes<T>{}));
  if constexpr (half == 1) {
    return v[0];
  } else {
    return horizontal_min<T, half / 2>(v);
  }
}

// The smallest two of all lanes of both.
template <typename T, int half = kWidth<T> / 2>
inline __attribute__((always_inline)) void merge(Vec<T>& first, Vec<T>& second) {
  const Vec<T> other = swap_halves<T, half>(first, Lanes<T>{});
  second = min<T>(min<T>(second, swap_halves<T, half>(second, Lanes<T>{})), max<T>(first, other));
  first = min<T>(first, other);
  if constexpr (half > 1) merge<T, half / 2>(first, second);
}

// Integers of a vector of T, and T's of half a vector of bytes.
template <typename T>
struct Indices {
  typedef int32_t Vec __attribute__((vector_size(kWidth<T> * 4)));
  typedef int32_t Unaligned __attribute__((vector_size(kWidth<T> * 4), aligned(4), may_alias));
  static inline __attribute__((always_inline)) Vec load(const int32_t* p) {
    return *reinterpret_cast<const Unaligned*>(p);
  }
  static inline __attribute__((always_inline)) void store(int32_t* p, Vec v) {
    *reinterpret_cast<Unaligned*>(p) = v;
  }
  // Lanes of a comparison of T, as wide as an index.
  static inline __attribute__((always_inline)) Vec narrow(Mask<T> mask) {
    return __builtin_convertvector(mask, Vec);
  }
};

template <typename T>
inline __attribute__((always_inline)) bool any(Mask<T> mask) {
  typedef int64_t Words __attribute__((vector_size(SACCADE_BYTES)));
  const Words words = reinterpret_cast<Words>(mask);
  int64_t all = 0;
  for (int i = 0; i < SACCADE_BYTES / 8; ++i) all |= words[i];
  return all != 0;
}

struct Alone {
  template <class F>
  void each(int32_t count, const F& f) const {
    for (int32_t i = 0; i < count; ++i) f(i);
  }
  bool leads() const { return true; }
  void sync() const {}
  double sum(double x) const { return x; }
  double smallest(double x) const { return x; }

  template <typename T>
  void smallest_of_columns(const Problem<T>& p, T* smallest, int32_t* row) const {
    using I = Indices<T>;
    for (int32_t j = 0; j < p.ld; j += kWidth<T>) {
      store(smallest + j, load(p.cost + j));
      I::store(row + j, typename I::Vec{});
    }
    for (int32_t i = 1; i < p.n; ++i) {
      const T* const cost = p.cost + int64_t{i} * p.ld;
      const typename I::Vec index = i - typename I::Vec{};
      for (int32_t j = 0; j < p.ld; j += kWidth<T>) {
        const Vec<T> c = load(cost + j), least = load(smallest + j);
        const Mask<T> less = c < least;
        store(smallest + j, less ? c : least);
        I::store(row + j, I::narrow(less) ? index : I::load(row + j));
      }
    }
  }

  template <typename T>
  TwoSmallest<T> smallest_values(const Problem<T>& p, int32_t i) const {
    const T* const cost = p.cost + int64_t{i} * p.ld;
    Vec<T> first = broadcast(static_cast<T>(kInfinity)), second = first;
    for (int32_t j = 0; j < p.ld; j += kWidth<T>) {
      const Vec<T> c = load(cost + j) - load(p.v + j);
      second = min<T>(second, max<T>(first, c));
      first = min<T>(first, c);
    }
    merge<T>(first, second);
    return {first[0], second[0], -1, -1};
  }

  // The first column from `begin` on where c_ij - v_j has this value, which is there.
  template <typename T>
  int32_t find(const Problem<T>& p, int32_t i, T value, int32_t begin) const {
    const T* const cost = p.cost + int64_t{i} * p.ld;
    int32_t j = begin / kWidth<T> * kWidth<T>;
    for (; j < p.ld; j += kWidth<T>) {
      if (any<T>(load(cost + j) - load(p.v + j) == broadcast(value))) {
        for (int32_t k = j < begin ? begin : j; k < j + kWidth<T>; ++k) {
          if (cost[k] - p.v[k] == value) return k;
        }
      }
    }
    return -1;
  }

  template <typename T>
  TwoSmallest<T> two_smallest(const Problem<T>& p, int32_t i) const {
    TwoSmallest<T> best = smallest_values(p, i);
    if (best.first < static_cast<T>(kInfinity)) {
      best.at = find(p, i, best.first, 0);
      if (best.second == best.first) best.second_at = find(p, i, best.first, best.at + 1);
    }
    return best;
  }

  // Column j has the smallest.
  template <typename T>
  T smallest_but(const Problem<T>& p, int32_t i, int32_t) const {
    return smallest_values(p, i).second;
  }

  template <typename T>
  T begin_search(const Problem<T>& p, int32_t i) const {
    using I = Indices<T>;
    const T* const cost = p.cost + int64_t{i} * p.ld;
    const typename I::Vec index = i - typename I::Vec{};
    Vec<T> least = broadcast(static_cast<T>(kInfinity));
    for (int32_t j = 0; j < p.ld; j += kWidth<T>) {
      const Vec<T> c = load(cost + j) - load(p.open + j);
      store(p.distance + j, c);
      I::store(p.from + j, index);
      least = min<T>(least, c);
    }
    return horizontal_min<T>(least);
  }

  // Distances through row i; the smallest of all open columns.
  template <typename T>
  T relax(const Problem<T>& p, int32_t i, T offset) const {
    using I = Indices<T>;
    const T* const cost = p.cost + int64_t{i} * p.ld;
    const typename I::Vec index = i - typename I::Vec{};
    Vec<T> least = broadcast(static_cast<T>(kInfinity));
    for (int32_t j = 0; j < p.ld; j += kWidth<T>) {
      const Vec<T> c = (load(cost + j) - load(p.open + j)) - offset;
      const Vec<T> before = load(p.distance + j);
      const Mask<T> less = c < before;
      const Vec<T> distance = less ? c : before;
      store(p.distance + j, distance);
      I::store(p.from + j, I::narrow(less) ? index : I::load(p.from + j));
      least = min<T>(least, distance);
    }
    return horizontal_min<T>(least);
  }

  // Of the columns at this distance the first free one, or else the first.
  template <typename T>
  int32_t nearest(const Problem<T>& p, T distance) const {
    int32_t first = -1;
    for (int32_t j = 0; j < p.ld; j += kWidth<T>) {
      if (!any<T>(load(p.distance + j) == broadcast(distance))) continue;
      for (int32_t k = j; k < j + kWidth<T>; ++k) {
        if (p.distance[k] != distance) continue;
        if (p.row_of[k] < 0) return k;
        if (first < 0) first = k;
      }
    }
    return first;
  }
};

}  // namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE
