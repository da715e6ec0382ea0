// Torch's side of the CUDA kernels of the assignment: checks and allocation. Nothing waits for the
// device, so every call fits into a CUDA graph.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <vector>

#include "transport/bind_exact.h"
#include "transport/cuda_assignment.cuh"

namespace saccade::transport::exact {
namespace {

// Blocks of a launch are numbered in 31 bits.
constexpr int64_t kMostBlocks = INT32_MAX;

template <typename T>
void assign(const Tensor& cost, const OptionalTensor& mask, bool maximize,
            AssignmentResult& result) {
  AssignmentBatch<T> a{};
  a.batch = cost.size(0), a.n = cost.size(1), a.m = cost.size(2);
  a.costs = costs_of<T>(cost, mask, 0);
  a.cost_batch = cost.stride(0);
  a.mask_batch = mask.has_value() ? mask->stride(0) : 0;
  a.maximize = maximize;
  a.out = first_of<T>(result);
  const int64_t bytes = a.batch * assignment_workspace<T>(a.n, a.m);
  Tensor workspace = torch::stable::new_empty(cost, std::vector<int64_t>{bytes}, ScalarType::Byte);
  a.workspace = data<char>(workspace);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(cost.get_device_index(), &stream));
  STD_CUDA_CHECK(exact::assign(a, static_cast<cudaStream_t>(stream)));
}

AssignmentResult assignment(const Tensor& cost, const OptionalTensor& mask, bool maximize) {
  const torch::stable::accelerator::DeviceGuard guard(cost.get_device_index());
  check_costs(cost);
  check_mask(mask, cost);
  STD_TORCH_CHECK(cost.size(0) <= kMostBlocks, "cost may have at most ", kMostBlocks,
                  " problems on CUDA, got ", cost.size(0), ".");
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

}  // namespace
}  // namespace saccade::transport::exact

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("assignment_forward", TORCH_BOX(&saccade::transport::exact::assignment));
}
