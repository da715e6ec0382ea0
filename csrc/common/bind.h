// What the CPU bindings share: half types are computed in float32 and rounded once.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "common/check.h"

namespace saccade {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The type that an input of this type is computed in: float64 for float64, else float32.
inline ScalarType compute_type(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
    case ScalarType::Double:
      return tensor.scalar_type();
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return ScalarType::Float;
    default:
      STD_TORCH_CHECK(false, name, " must be float16, bfloat16, float32 or float64.");
  }
}

// The tensor itself where it has this type already.
inline Tensor to_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

inline Tensor to_contiguous(const Tensor& tensor, ScalarType type) {
  return torch::stable::contiguous(to_type(tensor, type));
}

inline OptionalTensor to_contiguous(const OptionalTensor& tensor, ScalarType type) {
  if (!tensor.has_value()) return std::nullopt;
  return to_contiguous(*tensor, type);
}

// The data of a tensor, or null.
template <typename T>
const T* data_or_null(const OptionalTensor& tensor) {
  return tensor.has_value() ? static_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}

}  // namespace saccade
