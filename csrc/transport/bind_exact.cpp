// Torch's side of the exact solvers: checks, allocation, a task for every problem.
#include <torch/csrc/stable/library.h>

#include <cstddef>
#include <tuple>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "transport/bind_exact.h"

namespace saccade::transport::exact {
namespace {

template <typename T>
const AssignmentKernel<T>& assignment_kernel() {
  return for_type<T>(SACCADE_FOR_ISA(kAssignmentFloat), SACCADE_FOR_ISA(kAssignmentDouble));
}

template <typename T>
void assign(const Tensor& cost, const OptionalTensor& mask, bool maximize,
            AssignmentResult& result) {
  const int64_t n = cost.size(1), m = cost.size(2);
  const Matching<T> first = first_of<T>(result);
  const auto& kernel = assignment_kernel<T>();
  parallel_tasks(cost.size(0), [&] {
    return [&, space = AlignedScratch<std::byte>(kernel.space(n, m))](int64_t b) mutable {
      const Matching<T> out{first.row_to_col + b * n, first.col_to_row + b * m, first.total + b,
                            first.row_dual + b * n, first.col_dual + b * m};
      kernel.solve(costs_of<T>(cost, mask, b), n, m, maximize, space.data(), out);
    };
  });
}

AssignmentResult assignment(const Tensor& cost, const OptionalTensor& mask, bool maximize) {
  check_costs(cost);
  check_mask(mask, cost);
  const ScalarType type = compute_type("cost", cost);
  const Tensor own = to_type(cost, type);
  AssignmentResult result = make_result(own, type);
  if (type == ScalarType::Double) {
    assign<double>(own, mask, maximize, result);
  } else {
    assign<float>(own, mask, maximize, result);
  }
  return result;
}

template <typename T>
const TransportKernel<T>& transport_kernel() {
  return for_type<T>(SACCADE_FOR_ISA(kTransportFloat), SACCADE_FOR_ISA(kTransportDouble));
}

OptionalTensor check_weights(const char* name, const OptionalTensor& weights, const Tensor& cost,
                             int64_t count, ScalarType type) {
  if (!weights.has_value()) return std::nullopt;
  STD_TORCH_CHECK(weights->dim() == 2 && weights->size(0) == cost.size(0) &&
                      weights->size(1) == count && weights->device() == cost.device(),
                  name, " must have shape [", cost.size(0), ", ", count,
                  "] and the device of cost, got ", shape(*weights), ".");
  return to_type(*weights, type);
}

template <typename T>
Weights<T> weights_of(const OptionalTensor& weights, int64_t b) {
  if (!weights.has_value()) return {nullptr, 0};
  return {static_cast<const T*>(weights->const_data_ptr()) + b * weights->stride(0),
          weights->stride(1)};
}

using Plan = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
void transport(const Tensor& cost, const OptionalTensor& a, const OptionalTensor& b,
               double tolerance, Plan& result) {
  const int64_t n = cost.size(1), m = cost.size(2);
  auto& [plan, f, g, value, err, pivots, status] = result;
  const Transport<T> first{data<T>(plan),        data<T>(f),   data<T>(g),
                           data<T>(value),       data<T>(err), data<int32_t>(pivots),
                           data<int32_t>(status)};
  const auto& kernel = transport_kernel<T>();
  parallel_tasks(cost.size(0), [&] {
    return [&, space = AlignedScratch<std::byte>(kernel.space(n, m))](int64_t k) mutable {
      const Transport<T> out{first.plan + k * n * m, first.f + k * n, first.g + k * m,
                             first.value + k,        first.err + k,   first.pivots + k,
                             first.status + k};
      kernel.solve(costs_of<T>(cost, std::nullopt, k), n, m, weights_of<T>(a, k),
                   weights_of<T>(b, k), tolerance, space.data(), out);
    };
  });
}

// Totals that differ by less, relative to them, differ by rounding.
double tolerance_of_totals(ScalarType given) {
  return given == ScalarType::Float || given == ScalarType::Double ? 1e-5 : 1e-2;
}

Plan emd(const Tensor& cost, const OptionalTensor& a, const OptionalTensor& b) {
  check_costs(cost);
  const ScalarType type = compute_type("cost", cost);
  const int64_t batch = cost.size(0), n = cost.size(1), m = cost.size(2);
  const OptionalTensor own_a = check_weights("a", a, cost, n, type);
  const OptionalTensor own_b = check_weights("b", b, cost, m, type);
  const Tensor own = to_type(cost, type);
  using Sizes = std::vector<int64_t>;
  Plan result{torch::stable::new_empty(own, Sizes{batch, n, m}, type),
              torch::stable::new_empty(own, Sizes{batch, n}, type),
              torch::stable::new_empty(own, Sizes{batch, m}, type),
              torch::stable::new_empty(own, Sizes{batch}, type),
              torch::stable::new_empty(own, Sizes{batch}, type),
              torch::stable::new_empty(own, Sizes{batch}, ScalarType::Int),
              torch::stable::new_empty(own, Sizes{batch}, ScalarType::Int)};
  const double tolerance = tolerance_of_totals(cost.scalar_type());
  if (type == ScalarType::Double) {
    transport<double>(own, own_a, own_b, tolerance, result);
  } else {
    transport<float>(own, own_a, own_b, tolerance, result);
  }
  return result;
}

}  // namespace
}  // namespace saccade::transport::exact

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("assignment_forward", TORCH_BOX(&saccade::transport::exact::assignment));
  m.impl("emd_forward", TORCH_BOX(&saccade::transport::exact::emd));
}
