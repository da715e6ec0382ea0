// What the bindings of every device share: checks, and a call's sizes and strides lifted to three
// axes.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/check.h"
#include "neighborhood_attention/kernel.h"

namespace saccade::neighborhood_attention {

using torch::stable::Tensor;

// Raises where sizes, dtypes or windows do not fit together; the sentences for users are the Python
// front's.
Problem check_problem(const Tensor& query, const Tensor& key, const Tensor& value,
                      const std::optional<Tensor>& bias,
                      const std::optional<Tensor>& additional_keys,
                      const std::optional<Tensor>& additional_values,
                      const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                      const std::vector<int64_t>& dilation, const std::vector<int64_t>& is_causal,
                      double scale);

// The tensor itself where D is contiguous, else a contiguous copy.
Tensor with_contiguous_dim(const Tensor& tensor);

// [B, *dims, h, D] as a view with three token strides.
template <typename T>
View<T> view(const Tensor& tensor) {
  View<T> v{};
  if constexpr (std::is_const_v<T>) {
    v.data = static_cast<T*>(tensor.const_data_ptr());
  } else {
    v.data = static_cast<T*>(tensor.mutable_data_ptr());
  }
  const int64_t axes = tensor.dim() - 3;
  v.batch = tensor.stride(0);
  for (int64_t a = 0; a < axes; ++a) v.token[3 - axes + a] = tensor.stride(1 + a);
  v.head = tensor.stride(1 + axes);
  return v;
}

}  // namespace saccade::neighborhood_attention
