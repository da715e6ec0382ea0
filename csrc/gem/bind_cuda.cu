// Torch's side of the CUDA kernels: checks, allocation, and columns as pieces of launches. Nothing
// waits for the device, so every call fits into a CUDA graph.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "gem/bind.h"
#include "gem/cuda_kernel.cuh"
#include "gem/cuda_launches.h"

namespace saccade::gem {
namespace {

Dtype dtype_of(const Tensor& grad) {
  switch (grad.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBfloat16;
    default:
      STD_TORCH_CHECK(false, "grad must be float16, bfloat16 or float32 on CUDA.");
  }
}

void check_device_limits(int64_t batch, int64_t rows) {
  STD_TORCH_CHECK(rows <= kMostRows, "memory may have at most ", kMostRows, " rows on CUDA, got ",
                  rows, ".");
  STD_TORCH_CHECK(batch <= INT32_MAX, "a batch may have at most 2147483647 problems, got ", batch,
                  ".");
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

template <typename T = double>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}
template <typename T = double>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

// memory [B, t, P] with any strides and grad [B, P], whose columns are contiguous.
Launches launches_of(const Tensor& memory, const Tensor& grad, const Sizes& sizes) {
  Launches launches(dtype_of(grad), sizes.batch, sizes.rows);
  launches.set_strides(memory.stride(2), memory.stride(0), grad.stride(0));
  const auto* const first = data<char>(memory);
  const int64_t step = memory.stride(1) * static_cast<int64_t>(memory.element_size());
  launches.add(sizes.columns, grad.const_data_ptr(), [&](int i) { return first + i * step; });
  return launches;
}

Tensor make_doubles(const Tensor& like, const std::vector<int64_t>& shape) {
  return torch::stable::new_empty(like, shape, ScalarType::Double);
}

// Sums of all products, as partials for the solver.
Tensor products(Launches& launches, const Tensor& grad, int64_t batch, int64_t rows,
                cudaStream_t stream) {
  const std::vector<Pieces>& all = launches.finished();
  Tensor partials = make_doubles(
      grad, {gram_partials(static_cast<int>(batch), static_cast<int>(rows), launches.slots())});
  for (const Pieces& pieces : all) STD_CUDA_CHECK(gram(pieces, data(partials), stream));
  return partials;
}

Solve arguments_of(int64_t batch, int64_t rows, double lower, double ridge, double part) {
  Solve arguments{};
  arguments.batch = static_cast<int>(batch);
  arguments.rows = static_cast<int>(rows);
  arguments.lower = lower;
  arguments.ridge = ridge;
  arguments.tolerance = part;
  return arguments;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& grad, const Tensor& memory,
                                                   const OptionalTensor& slack,
                                                   double memory_strength, double ridge,
                                                   bool always) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const Sizes sizes = check_problem(memory, grad);
  check_slack(slack, sizes.batch, sizes.rows, grad);
  check_bounds(memory_strength, ridge);
  check_device_limits(sizes.batch, sizes.rows);
  const Tensor g = with_contiguous_columns(grad);
  const OptionalTensor w = to_contiguous(slack, ScalarType::Double);
  Tensor out = torch::stable::new_empty(grad, grad.sizes());
  Tensor dual = make_doubles(grad, {sizes.batch, sizes.rows});
  Tensor status = torch::stable::new_empty(grad, std::vector{sizes.batch}, ScalarType::Int);
  Tensor gram_out = make_doubles(grad, {sizes.batch, sizes.rows, sizes.rows});
  if (sizes.batch > 0) {
    const cudaStream_t stream = current_stream(grad);
    Launches launches = launches_of(memory, g, sizes);
    const Tensor partials = products(launches, grad, sizes.batch, sizes.rows, stream);
    Solve arguments =
        arguments_of(sizes.batch, sizes.rows, memory_strength, ridge, tolerance(ScalarType::Float));
    arguments.slots = launches.slots();
    arguments.partials = data(partials);
    arguments.slack = data_or_null<double>(w);
    arguments.always = always;
    arguments.dual = data(dual);
    arguments.status = data<int32_t>(status);
    arguments.gram_out = data(gram_out);
    STD_CUDA_CHECK(solve(arguments, stream));
    if (sizes.columns > 0) {
      STD_CUDA_CHECK(combine(launches.finished()[0], data(dual), out.mutable_data_ptr(), stream));
    }
  }
  return {out, dual, status, gram_out};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& memory,
                                            const Tensor& out, const Tensor& dual,
                                            const Tensor& gram_in, double memory_strength,
                                            double ridge) {
  const torch::stable::accelerator::DeviceGuard guard(grad_out.get_device_index());
  const Sizes sizes = check_problem(memory, grad_out);
  check_problem(memory, out);
  check_rows("dual", dual, sizes, memory);
  check_quadratic(gram_in, dual);
  check_bounds(memory_strength, ridge);
  check_device_limits(sizes.batch, sizes.rows);
  const Tensor u = with_contiguous_columns(grad_out), v = with_contiguous_columns(out);
  const Tensor lambda = to_contiguous(dual, ScalarType::Double);
  const Tensor k = to_contiguous(gram_in, ScalarType::Double);
  Tensor grad_grad = torch::stable::new_empty(grad_out, grad_out.sizes());
  Tensor grad_memory = torch::stable::new_empty(grad_out, memory.sizes());
  Tensor minus_y = make_doubles(grad_out, {sizes.batch, sizes.rows});
  if (sizes.batch > 0) {
    const cudaStream_t stream = current_stream(grad_out);
    Launches launches = launches_of(memory, u, sizes);
    const Pieces& pieces = launches.finished()[0];
    Tensor partials =
        make_doubles(grad_out, {dot_partials(pieces.batch, pieces.rows, launches.slots())});
    if (sizes.rows > 0) {
      STD_CUDA_CHECK(dot(pieces, data(lambda), memory_strength, data(partials), stream));
      Solve arguments = arguments_of(sizes.batch, sizes.rows, memory_strength, ridge,
                                     tolerance(ScalarType::Float));
      arguments.slots = launches.slots();
      arguments.partials = data(partials);
      arguments.gram = data(k);
      arguments.dual = const_cast<double*>(data(lambda));
      STD_CUDA_CHECK(solve_active(arguments, data(minus_y), stream));
    }
    if (sizes.columns > 0) {
      const Outer arguments{data(lambda),
                            data(minus_y),
                            v.const_data_ptr(),
                            v.stride(0),
                            grad_grad.mutable_data_ptr(),
                            grad_memory.mutable_data_ptr()};
      STD_CUDA_CHECK(outer(pieces, arguments, stream));
    }
  }
  return {grad_grad, grad_memory, minus_y};
}

std::tuple<Tensor, Tensor> gram_dot(const Tensor& memory, const Tensor& grad) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const Sizes sizes = check_problem(memory, grad);
  check_device_limits(sizes.batch, sizes.rows);
  const Tensor g = with_contiguous_columns(grad);
  Tensor gram_out = make_doubles(grad, {sizes.batch, sizes.rows, sizes.rows});
  Tensor dot_out = make_doubles(grad, {sizes.batch, sizes.rows});
  if (sizes.batch > 0 && sizes.rows > 0) {
    const cudaStream_t stream = current_stream(grad);
    Launches launches = launches_of(memory, g, sizes);
    const Tensor partials = products(launches, grad, sizes.batch, sizes.rows, stream);
    Solve arguments = arguments_of(sizes.batch, sizes.rows, 0.0, 0.0, 0.0);
    arguments.slots = launches.slots();
    arguments.partials = data(partials);
    arguments.gram_out = data(gram_out);
    arguments.dot_out = data(dot_out);
    STD_CUDA_CHECK(solve(arguments, stream));
  }
  return {gram_out, dot_out};
}

Tensor combine_op(const Tensor& grad, const Tensor& memory, const Tensor& dual) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const Sizes sizes = check_problem(memory, grad);
  check_rows("dual", dual, sizes, memory);
  check_device_limits(sizes.batch, sizes.rows);
  const Tensor g = with_contiguous_columns(grad);
  const Tensor lambda = to_contiguous(dual, ScalarType::Double);
  Tensor out = torch::stable::new_empty(grad, grad.sizes());
  if (sizes.batch > 0 && sizes.columns > 0) {
    Launches launches = launches_of(memory, g, sizes);
    STD_CUDA_CHECK(combine(launches.finished()[0], data(lambda), out.mutable_data_ptr(),
                           current_stream(grad)));
  }
  return out;
}

std::tuple<Tensor, Tensor> nnqp(const Tensor& gram_in, const Tensor& linear, double lower,
                                double ridge) {
  const torch::stable::accelerator::DeviceGuard guard(linear.get_device_index());
  const Sizes sizes = check_quadratic(gram_in, linear);
  check_bounds(lower, ridge);
  check_device_limits(sizes.batch, sizes.rows);
  const Tensor k = to_contiguous(gram_in, ScalarType::Double);
  const Tensor c = to_contiguous(linear, ScalarType::Double);
  Tensor dual = make_doubles(linear, {sizes.batch, sizes.rows});
  Tensor status = torch::stable::new_empty(linear, std::vector{sizes.batch}, ScalarType::Int);
  if (sizes.batch > 0) {
    Solve arguments =
        arguments_of(sizes.batch, sizes.rows, lower, ridge, tolerance(gram_in.scalar_type()));
    arguments.gram = data(k);
    arguments.linear = data(c);
    arguments.always = true;
    arguments.dual = data(dual);
    arguments.status = data<int32_t>(status);
    STD_CUDA_CHECK(solve(arguments, current_stream(linear)));
  }
  return {dual, status};
}

std::tuple<Tensor, Tensor> project_(std::vector<Tensor> grads, std::vector<Tensor> memory,
                                    int64_t rows, const OptionalTensor& slack,
                                    double memory_strength, double ridge, bool always) {
  const Lists lists = check_lists(grads, memory, rows);
  const torch::stable::accelerator::DeviceGuard guard(grads[0].get_device_index());
  check_slack(slack, 1, rows, grads[0]);
  check_bounds(memory_strength, ridge);
  check_device_limits(1, rows);
  std::vector<Tensor> own = grads;
  for (Tensor& grad : own) {
    if (!is_contiguous(grad)) grad = torch::stable::contiguous(grad);
  }
  for (Tensor& row : memory) {
    if (row.numel() > 0 && !is_contiguous(row, lists.stacked ? 1 : 0)) {
      row = torch::stable::contiguous(row);
    }
  }
  const OptionalTensor w = to_contiguous(slack, ScalarType::Double);
  Tensor dual = make_doubles(grads[0], {1, rows});
  Tensor status = torch::stable::new_empty(grads[0], std::vector<int64_t>{1}, ScalarType::Int);
  const cudaStream_t stream = current_stream(grads[0]);
  Launches launches(dtype_of(grads[0]), 1, rows);
  for (int64_t k = 0; k < lists.count; ++k) {
    launches.add(own[k].numel(), own[k].mutable_data_ptr(), [&](int i) -> const void* {
      const Tensor& row = memory[lists.stacked ? k : i * lists.count + k];
      if (row.numel() == 0) return nullptr;
      const auto* const first = data<char>(row);
      const auto size = static_cast<int64_t>(row.element_size());
      return lists.stacked ? first + i * row.stride(0) * size : first;
    });
  }
  const Tensor partials = products(launches, grads[0], 1, rows, stream);
  Solve arguments = arguments_of(1, rows, memory_strength, ridge, tolerance(ScalarType::Float));
  arguments.slots = launches.slots();
  arguments.partials = data(partials);
  arguments.slack = data_or_null<double>(w);
  arguments.always = always;
  arguments.dual = data(dual);
  arguments.status = data<int32_t>(status);
  STD_CUDA_CHECK(solve(arguments, stream));
  for (const Pieces& pieces : launches.finished()) {
    STD_CUDA_CHECK(combine(pieces, data(dual), nullptr, stream));
  }
  for (int64_t k = 0; k < lists.count; ++k) {
    if (own[k].const_data_ptr() != grads[k].const_data_ptr()) {
      torch::stable::copy_(grads[k], own[k]);
    }
  }
  return {dual, status};
}

}  // namespace
}  // namespace saccade::gem

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("gem_backward", TORCH_BOX(&saccade::gem::backward));
  m.impl("gem_combine", TORCH_BOX(&saccade::gem::combine_op));
  m.impl("gem_forward", TORCH_BOX(&saccade::gem::forward));
  m.impl("gem_gram", TORCH_BOX(&saccade::gem::gram_dot));
  m.impl("gem_nnqp", TORCH_BOX(&saccade::gem::nnqp));
  m.impl("gem_project_", TORCH_BOX(&saccade::gem::project_));
}
