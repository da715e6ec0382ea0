// Torch's side of the CUDA kernels of KAN layers: checks, allocation, sizes and strides as the
// kernels want them.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "kan/bind.h"
#include "kan/cuda_kernel.cuh"

namespace saccade::kan_gpu {
namespace {

using Ints = std::vector<int64_t>;

Dtype dtype_of(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBfloat16;
    default:
      STD_TORCH_CHECK(false, name, " must be float16, bfloat16 or float32 on CUDA.");
  }
}

int fits(const char* name, int64_t size) {
  STD_TORCH_CHECK(size <= INT32_MAX, name, " must be at most 2147483647 on CUDA, got ", size, ".");
  return static_cast<int>(size);
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

const void* data(const OptionalTensor& tensor) {
  return tensor.has_value() ? tensor->const_data_ptr() : nullptr;
}

// Weights and their gradients, of rank 4 or, without functions, 3. A weight that is only read goes
// through the pointer of its gradient's type.
Edges edges(const Tensor& tensor) {
  Edges e{};
  e.data = const_cast<void*>(tensor.const_data_ptr());
  for (int64_t i = 0; i < tensor.dim(); ++i) e.stride[i] = tensor.stride(i);
  return e;
}

// A call's inputs as the kernels read them, kept alive while the kernels are launched.
struct Inputs {
  Layer layer{};
  Tensor x;
  OptionalTensor points, scales;

  Inputs(const kan::Problem& p, const Tensor& x_, const Tensor& weight,
         const OptionalTensor& base_weight, const OptionalTensor& points_,
         const OptionalTensor& scales_, const Ints& options)
      : x(torch::stable::contiguous(x_)),
        points(to_contiguous(points_, ScalarType::Float)),
        scales(to_contiguous(scales_, ScalarType::Float)) {
    layer.dtype = dtype_of("weight", weight);
    layer.x_dtype = dtype_of("x", x);
    layer.heads = fits("the number of heads", p.heads);
    layer.rows = fits("the number of rows", p.rows);
    layer.inputs = fits("I", p.in);
    layer.outputs = fits("O", p.out);
    const bool spline = p.basis == kan::Basis::kBspline;
    Basis& basis = layer.basis;
    basis.code = static_cast<int>(p.basis);
    basis.option = options.empty() ? 0 : static_cast<int>(options[0]);
    basis.range = spline ? static_cast<int>(options[1]) : 0;
    basis.count = fits("n", p.functions);
    basis.knots = spline ? fits("the number of knots", p.knots) : 0;
    basis.stride = spline && p.knot_rows > 1 ? p.knots : 0;
    basis.scale_step = p.num_scales > 1 ? 1 : 0;
    basis.points = static_cast<const float*>(data(points));
    basis.scales = static_cast<const float*>(data(scales));
    layer.x = x.const_data_ptr();
    layer.weight = edges(weight);
    if (base_weight.has_value()) layer.base_weight = edges(*base_weight);
  }
};

// Scratch tensors of a call.
class Scratch {
 public:
  explicit Scratch(const Tensor& like) : like_(like) {}

  // In the type of `like`.
  void* typed(int64_t size) { return allocate(size, like_.scalar_type()); }
  float* floats(int64_t size) { return static_cast<float*>(allocate(size, ScalarType::Float)); }

 private:
  void* allocate(int64_t size, ScalarType type) {
    if (size == 0) return nullptr;
    kept_.push_back(torch::stable::new_empty(like_, Ints{size}, type));
    return kept_.back().mutable_data_ptr();
  }

  Tensor like_;
  std::vector<Tensor> kept_;
};

bool is_empty(const kan::Problem& p) { return p.heads * p.rows * p.in * p.out == 0; }

Tensor forward_op(const Tensor& x, const Tensor& weight, const OptionalTensor& base_weight,
                  const OptionalTensor& bias, const OptionalTensor& points,
                  const OptionalTensor& scales, int64_t basis, const Ints& options) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const kan::Problem problem =
      kan::check_problem(x, weight, base_weight, bias, points, scales, basis, options);
  STD_TORCH_CHECK(!is_empty(problem), "x and weight must not be empty on CUDA.");
  const Inputs inputs(problem, x, weight, base_weight, points, scales, options);
  const OptionalTensor offset =
      bias.has_value() ? OptionalTensor(torch::stable::contiguous(*bias)) : std::nullopt;
  Tensor y = torch::stable::new_empty(weight, {problem.heads, problem.rows, problem.out});
  const Sizes size = sizes(inputs.layer);
  Scratch scratch(weight);
  Forward call{};
  call.layer = inputs.layer;
  call.bias = data(offset);
  call.weight = scratch.typed(size.forward_weight);
  call.slots = scratch.floats(size.forward_slots);
  call.y = y.mutable_data_ptr();
  STD_CUDA_CHECK(forward(call, current_stream(x)));
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward_op(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight,
    const OptionalTensor& base_weight, const OptionalTensor& points, const OptionalTensor& scales,
    int64_t basis, const Ints& options, const Ints& wanted) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const kan::Problem problem =
      kan::check_problem(x, weight, base_weight, std::nullopt, points, scales, basis, options);
  kan::check_wanted(wanted, grad_out, problem);
  STD_TORCH_CHECK(!is_empty(problem), "x and weight must not be empty on CUDA.");
  STD_TORCH_CHECK(grad_out.scalar_type() == weight.scalar_type(),
                  "grad_out must have the type of weight.");
  const Inputs inputs(problem, x, weight, base_weight, points, scales, options);
  const Tensor grad = torch::stable::contiguous(grad_out);
  const auto none = [](const Tensor& like) { return torch::stable::new_empty(like, Ints{0}); };
  const auto like = [&](const OptionalTensor& tensor, size_t place) {
    if (!tensor.has_value()) return none(weight);
    if (wanted[place] == 0) return none(*tensor);
    return torch::stable::new_empty(*tensor, tensor->sizes());
  };
  const auto pointer = [](Tensor& tensor) {
    return tensor.numel() > 0 ? tensor.mutable_data_ptr() : nullptr;
  };
  Tensor grad_x = like(OptionalTensor(x), 0);
  Tensor grad_weight = wanted[1] != 0 ? torch::stable::empty_like(weight) : none(weight);
  Tensor grad_base = like(base_weight, 2);
  Tensor grad_bias =
      torch::stable::new_empty(weight, wanted[3] != 0 ? Ints{problem.heads, problem.out} : Ints{0});
  Tensor grad_points = like(points, 4), grad_scales = like(scales, 5);

  const Sizes size = sizes(inputs.layer);
  const bool products = problem.basis != kan::Basis::kWavelet;
  const bool of_features =
      products && (grad_x.numel() > 0 || grad_points.numel() > 0 || grad_scales.numel() > 0);
  const bool of_weights = grad_weight.numel() > 0 || grad_base.numel() > 0;
  Scratch scratch(weight);
  const auto floats = [&](int64_t count, bool used) { return scratch.floats(used ? count : 0); };
  Backward call{};
  call.layer = inputs.layer;
  call.grad_out = grad.const_data_ptr();
  call.weight = scratch.typed(of_features ? size.weight : 0);
  call.grad_rows = scratch.typed(of_features ? size.grad_rows : 0);
  call.grad_columns = scratch.typed(of_weights ? size.grad_columns : 0);
  call.weight_slots = floats(size.weight_slots, !products || grad_weight.numel() > 0);
  call.base_slots = floats(size.base_slots, grad_base.numel() > 0);
  call.bias_slots = floats(size.bias_slots, grad_bias.numel() > 0);
  call.point_slots = floats(size.point_slots, grad_points.numel() > 0);
  call.scale_slots = floats(size.scale_slots, grad_scales.numel() > 0);
  call.base_grad = floats(size.base_grad, grad_x.numel() > 0);
  call.grad_x = pointer(grad_x);
  if (grad_weight.numel() > 0) call.grad_weight = edges(grad_weight);
  if (grad_base.numel() > 0) call.grad_base_weight = edges(grad_base);
  call.grad_bias = pointer(grad_bias);
  call.grad_points = static_cast<float*>(pointer(grad_points));
  call.grad_scales = static_cast<float*>(pointer(grad_scales));
  STD_CUDA_CHECK(backward(call, current_stream(x)));
  return {grad_x, grad_weight, grad_base, grad_bias, grad_points, grad_scales};
}

// The tensors of a rational function, kept alive.
struct RationalInputs {
  Rational problem{};
  Tensor x, numerator, denominator;

  RationalInputs(const Tensor& x_, const Tensor& numerator_, const Tensor& denominator_)
      : x(torch::stable::contiguous(x_)),
        numerator(torch::stable::contiguous(numerator_)),
        denominator(torch::stable::contiguous(denominator_)) {
    kan::check_rational(x, numerator, denominator);
    STD_TORCH_CHECK(x.numel() > 0, "x must not be empty on CUDA.");
    problem.dtype = dtype_of("x", x);
    problem.batch = x.size(0);
    problem.length = x.size(2);
    problem.groups = fits("the number of groups", x.size(1));
    problem.numerator = static_cast<int>(numerator.size(1));
    problem.denominator = static_cast<int>(denominator.size(1));
    problem.shared_numerator = numerator.size(0) == 1;
    problem.shared_denominator = denominator.size(0) == 1;
    problem.x = x.const_data_ptr();
    problem.a = numerator.const_data_ptr();
    problem.b = denominator.numel() > 0 ? denominator.const_data_ptr() : nullptr;
  }
};

Tensor rational_forward_op(const Tensor& x, const Tensor& numerator, const Tensor& denominator) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  RationalInputs inputs(x, numerator, denominator);
  Tensor y = torch::stable::new_empty(x, x.sizes());
  inputs.problem.y = y.mutable_data_ptr();
  STD_CUDA_CHECK(rational_forward(inputs.problem, current_stream(x)));
  return y;
}

std::tuple<Tensor, Tensor, Tensor> rational_backward_op(const Tensor& grad_out, const Tensor& x,
                                                        const Tensor& numerator,
                                                        const Tensor& denominator) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  RationalInputs inputs(x, numerator, denominator);
  Rational& problem = inputs.problem;
  STD_TORCH_CHECK(grad_out.numel() == x.numel() && grad_out.scalar_type() == x.scalar_type(),
                  "grad_out must have the shape and type of x.");
  const Tensor grad = torch::stable::contiguous(grad_out);
  Tensor grad_x = torch::stable::new_empty(x, x.sizes());
  Tensor grad_numerator = torch::stable::new_empty(numerator, numerator.sizes());
  Tensor grad_denominator = torch::stable::new_empty(denominator, denominator.sizes());
  Scratch scratch(x);
  const int64_t slots = rational_slots(problem) * problem.groups;
  problem.slots_a = scratch.floats(slots * problem.numerator);
  problem.slots_b = scratch.floats(slots * problem.denominator);
  problem.grad_out = grad.const_data_ptr();
  problem.grad_x = grad_x.mutable_data_ptr();
  problem.grad_a = grad_numerator.mutable_data_ptr();
  problem.grad_b = denominator.numel() > 0 ? grad_denominator.mutable_data_ptr() : nullptr;
  STD_CUDA_CHECK(rational_backward(problem, current_stream(x)));
  return {grad_x, grad_numerator, grad_denominator};
}

}  // namespace
}  // namespace saccade::kan_gpu

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("kan_forward", TORCH_BOX(&saccade::kan_gpu::forward_op));
  m.impl("kan_backward", TORCH_BOX(&saccade::kan_gpu::backward_op));
  m.impl("kan_rational_forward", TORCH_BOX(&saccade::kan_gpu::rational_forward_op));
  m.impl("kan_rational_backward", TORCH_BOX(&saccade::kan_gpu::rational_backward_op));
}
