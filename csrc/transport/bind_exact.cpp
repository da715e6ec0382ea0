// Torch's side of the exact solvers: checks, allocation, a task for every problem.
#include <torch/csrc/stable/library.h>

#include <cstddef>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "transport/exact.h"

namespace saccade::transport {
namespace {

template <typename T>
const AssignmentKernel<T>& assignment_kernel() {
  return for_type<T>(SACCADE_FOR_ISA(kAssignmentFloat), SACCADE_FOR_ISA(kAssignmentDouble));
}

template <typename T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

constexpr int64_t kMostColumns = int64_t{1} << 30;

void check_costs(const Tensor& cost) {
  STD_TORCH_CHECK(cost.dim() == 3, "cost must have shape [B, n, m], got ", shape(cost), ".");
  STD_TORCH_CHECK(cost.size(1) < kMostColumns && cost.size(2) < kMostColumns,
                  "cost must have fewer than 2^30 rows and columns, got ", shape(cost), ".");
}

void check_mask(const OptionalTensor& mask, const Tensor& cost) {
  if (!mask.has_value()) return;
  STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool && mask->device() == cost.device(),
                  "mask must be bool and on the device of cost.");
  bool same = mask->dim() == 3;
  for (int64_t i = 0; same && i < 3; ++i) same = mask->size(i) == cost.size(i);
  STD_TORCH_CHECK(same, "mask must have the shape of cost, ", shape(cost), ", got ", shape(*mask),
                  ".");
}

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

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
void assign(const Tensor& cost, const OptionalTensor& mask, bool maximize, Result& result) {
  const int64_t n = cost.size(1), m = cost.size(2);
  auto& [row_to_col, col_to_row, total, row_dual, col_dual] = result;
  const Matching<T> first{data<int64_t>(row_to_col), data<int64_t>(col_to_row), data<T>(total),
                          data<T>(row_dual), data<T>(col_dual)};
  const auto& kernel = assignment_kernel<T>();
  parallel_tasks(cost.size(0), [&] {
    return [&, space = AlignedScratch<std::byte>(kernel.space(n, m))](int64_t b) mutable {
      const Matching<T> out{first.row_to_col + b * n, first.col_to_row + b * m, first.total + b,
                            first.row_dual + b * n, first.col_dual + b * m};
      kernel.solve(costs_of<T>(cost, mask, b), n, m, maximize, space.data(), out);
    };
  });
}

Result assignment(const Tensor& cost, const OptionalTensor& mask, bool maximize) {
  check_costs(cost);
  check_mask(mask, cost);
  const ScalarType type = compute_type("cost", cost);
  const Tensor own = to_type(cost, type);
  const int64_t batch = cost.size(0), n = cost.size(1), m = cost.size(2);
  using Sizes = std::vector<int64_t>;
  Result result{torch::stable::new_empty(own, Sizes{batch, n}, ScalarType::Long),
                torch::stable::new_empty(own, Sizes{batch, m}, ScalarType::Long),
                torch::stable::new_empty(own, Sizes{batch}, type),
                torch::stable::new_empty(own, Sizes{batch, n}, type),
                torch::stable::new_empty(own, Sizes{batch, m}, type)};
  if (type == ScalarType::Double) {
    assign<double>(own, mask, maximize, result);
  } else {
    assign<float>(own, mask, maximize, result);
  }
  return result;
}

}  // namespace
}  // namespace saccade::transport

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("assignment_forward", TORCH_BOX(&saccade::transport::assignment));
}
