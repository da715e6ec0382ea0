// What the bindings of every device share: checks, and sizes and strides as the kernels want them.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "scan/kernel.h"

namespace saccade::scan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

// Raise where sizes do not fit together; the sentences for users are the Python front's. The
// problem keeps a pointer to `directions`.
SelectiveProblem check_selective(const Tensor& u, const Tensor& delta, const Tensor& a,
                                 const Tensor& b, const Tensor& c, const OptionalTensor& skip,
                                 const OptionalTensor& z, const OptionalTensor& delta_bias,
                                 const OptionalTensor& initial_state, const OptionalTensor& seq_idx,
                                 bool softplus, const Ints& directions, int64_t height,
                                 int64_t chunk);

SsdProblem check_ssd(const Tensor& x, const Tensor& dt, const Tensor& a, const Tensor& b,
                     const Tensor& c, const OptionalTensor& skip, const OptionalTensor& z,
                     const OptionalTensor& dt_bias, const OptionalTensor& initial_states,
                     const OptionalTensor& seq_idx, bool softplus, double dt_min, double dt_max,
                     int64_t chunk);

ConvProblem check_conv(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                       const OptionalTensor& initial_states, const OptionalTensor& seq_idx,
                       bool silu);

// Raises where a tensor has not exactly this shape.
void check_shape(const char* name, const Tensor& tensor, const Ints& expected);

// Memory shaped as `like`: channels-last where that is, else contiguous.
Tensor new_like(const Tensor& like, ScalarType type);

// Memory for saved states with T = intervals(...) along an axis: the slot that is not used holds
// zeros, so that results are equal whenever inputs are.
Tensor new_checkpoints(const Tensor& like, const Ints& sizes, int64_t axis, ScalarType type);

// Pointers and strides of [B, K, D, L] or, without paths, [B, D, L].
template <typename T>
View<T> view(const Tensor& tensor) {
  View<T> v{};
  if constexpr (std::is_const_v<T>) {
    v.data = static_cast<T*>(tensor.const_data_ptr());
  } else {
    v.data = static_cast<T*>(tensor.mutable_data_ptr());
  }
  const int64_t rank = tensor.dim();
  v.batch = tensor.stride(0);
  v.path = rank == 4 ? tensor.stride(1) : 0;
  v.channel = tensor.stride(rank - 2);
  v.position = tensor.stride(rank - 1);
  return v;
}

}  // namespace saccade::scan
