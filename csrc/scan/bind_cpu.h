// What the CPU bindings of scans share.
#pragma once

#include <algorithm>

#include "common/bind.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "scan/bind.h"

namespace saccade::scan {

// A power of two above any core count that shares one memory: tasks aimed at, and the bytes that
// their own sums may take.
constexpr int64_t kTasks = 64;
constexpr int64_t kMaxPartialBytes = int64_t{1} << 28;

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

template <typename T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
T* data_or_null(OptionalTensor& tensor) {
  return tensor.has_value() ? data<T>(*tensor) : nullptr;
}

// A float or double of the tensor's type of computation, for code that is written once.
template <typename F>
void with_type(ScalarType type, const F& function) {
  if (type == ScalarType::Double) {
    function(double{});
  } else {
    function(float{});
  }
}

// Room for a gradient's shares of every batch entry, or nothing where the input is absent.
inline OptionalTensor shares(const Tensor& like, ScalarType type, bool present, Ints sizes) {
  if (!present) return std::nullopt;
  return torch::stable::new_zeros(like, sizes, type);
}

// The sum over the first axis, in order.
template <typename T>
Tensor sum_batch(Tensor& shares) {
  const Ints sizes(shares.sizes().begin() + 1, shares.sizes().end());
  Tensor total = torch::stable::new_zeros(shares, sizes);
  const int64_t batch = shares.size(0), count = total.numel();
  const T* from = data<T>(shares);
  T* to = data<T>(total);
  torch::stable::parallel_for(0, count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t i = begin; i < end; ++i) to[i] += from[b * count + i];
    }
  });
  return total;
}

// Into how many ranges the `parts` of each of `entries` are cut for the backward pass, where a
// range has sums of its own in `bytes`. It follows from sizes alone.
inline int64_t count_ranges(int64_t entries, int64_t parts, int64_t bytes) {
  entries = std::max<int64_t>(entries, 1);
  const int64_t wanted = (kTasks + entries - 1) / entries;
  const int64_t fit = bytes == 0 ? parts : kMaxPartialBytes / (entries * bytes);
  return std::clamp<int64_t>(std::min(wanted, fit), 1, std::max<int64_t>(parts, 1));
}

inline Tensor absent(const Tensor& like, ScalarType type) {
  return torch::stable::new_empty(like, Ints{0}, type);
}

// The sum of shares over the batch, or the empty gradient of an absent input.
template <typename T>
Tensor sum_or_absent(OptionalTensor& shares, const Tensor& like, ScalarType type) {
  return shares.has_value() ? sum_batch<T>(*shares) : absent(like, type);
}

}  // namespace saccade::scan
