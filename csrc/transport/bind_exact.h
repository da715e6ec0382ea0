// What the bindings of the exact solvers share between CPU and CUDA.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "transport/exact.h"

namespace saccade::transport::exact {

template <typename T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

inline constexpr int64_t kMostColumns = int64_t{1} << 30;

inline void check_costs(const Tensor& cost) {
  STD_TORCH_CHECK(cost.dim() == 3, "cost must have shape [B, n, m], got ", shape(cost), ".");
  STD_TORCH_CHECK(cost.size(1) < kMostColumns && cost.size(2) < kMostColumns,
                  "cost must have fewer than 2^30 rows and columns, got ", shape(cost), ".");
}

inline void check_mask(const OptionalTensor& mask, const Tensor& cost) {
  if (!mask.has_value()) return;
  STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool && mask->device() == cost.device(),
                  "mask must be bool and on the device of cost.");
  bool same = mask->dim() == 3;
  for (int64_t i = 0; same && i < 3; ++i) same = mask->size(i) == cost.size(i);
  STD_TORCH_CHECK(same, "mask must have the shape of cost, ", shape(cost), ", got ", shape(*mask),
                  ".");
}

// The costs of problem b, wherever they lie.
template <typename T>
Costs<T> costs_of(const Tensor& cost, const OptionalTensor& mask, int64_t b) {
  Costs<T> costs{static_cast<const T*>(cost.const_data_ptr()) + b * cost.stride(0),
                 cost.stride(1),
                 cost.stride(2),
                 nullptr,
                 0,
                 0};
  if (mask.has_value()) {
    costs.mask = static_cast<const uint8_t*>(mask->const_data_ptr()) + b * mask->stride(0);
    costs.mask_row = mask->stride(1);
    costs.mask_column = mask->stride(2);
  }
  return costs;
}

using AssignmentResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// Partners of rows and columns, the total, the duals of rows and columns; costs have `type`.
inline AssignmentResult make_result(const Tensor& cost, ScalarType type) {
  const int64_t batch = cost.size(0), n = cost.size(1), m = cost.size(2);
  using Sizes = std::vector<int64_t>;
  return {torch::stable::new_empty(cost, Sizes{batch, n}, ScalarType::Long),
          torch::stable::new_empty(cost, Sizes{batch, m}, ScalarType::Long),
          torch::stable::new_empty(cost, Sizes{batch}, type),
          torch::stable::new_empty(cost, Sizes{batch, n}, type),
          torch::stable::new_empty(cost, Sizes{batch, m}, type)};
}

// Where the results of the first problem go.
template <typename T>
Matching<T> first_of(AssignmentResult& result) {
  auto& [row_to_col, col_to_row, total, row_dual, col_dual] = result;
  return {data<int64_t>(row_to_col), data<int64_t>(col_to_row), data<T>(total), data<T>(row_dual),
          data<T>(col_dual)};
}

}  // namespace saccade::transport::exact
