// Torch's side of the CUDA kernels of spiking neurons: checks, allocation, and a call's sizes and
// steps as the kernels want them.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "spiking/cuda_kernel.cuh"

namespace saccade::lif {
namespace {

using Ints = std::vector<int64_t>;

constexpr int kVector = 4;
enum Wanted { kX, kV0, kTau, kThreshold, kWeight, kBias, kResidual };
constexpr int64_t kSumBits = 1 << kTau | 1 << kThreshold | 1 << kWeight | 1 << kBias;

Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBfloat16;
    default:
      STD_TORCH_CHECK(false, "x must be float16, bfloat16 or float32 on CUDA.");
  }
}

void check_like(const char* name, const Tensor& tensor, const Tensor& x, ScalarType type,
                const Ints& sizes) {
  bool same = tensor.dim() == static_cast<int64_t>(sizes.size());
  for (size_t i = 0; same && i < sizes.size(); ++i) {
    same = tensor.size(static_cast<int64_t>(i)) == sizes[i];
  }
  STD_TORCH_CHECK(same, name, " does not fit x of shape ", shape(x), ", got ", shape(tensor), ".");
  STD_TORCH_CHECK(tensor.scalar_type() == type && tensor.device() == x.device(), name,
                  " must be on x's device, and float32, or of x's dtype where it has x's shape.");
}

// [T, A, C, I] as it is where every time step is contiguous, else a contiguous copy.
Tensor steps_contiguous(const Tensor& tensor) {
  int64_t expected = 1;
  for (int64_t i = 3; i > 0; --i) {
    if (tensor.size(i) != 1 && tensor.stride(i) != expected) {
      return torch::stable::contiguous(tensor);
    }
    expected *= tensor.size(i);
  }
  return tensor;
}

bool is_aligned(const void* data, size_t element) {
  return reinterpret_cast<uintptr_t>(data) % (kVector * element) == 0;
}

bool is_power_of_two(float x) {
  int exponent = 0;
  return std::isfinite(x) && x > 0.f && std::frexp(x, &exponent) == 0.5f;
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// What forward and backward have in common.
struct Given {
  const Tensor& x;
  const OptionalTensor &v0, &tau, &threshold, &weight, &bias, &residual;
  double tau_value, threshold_value, v_reset, alpha;
  int64_t charge;
  bool hard_reset, detach_reset;
  int64_t surrogate;
};

// The inputs as the kernels read them, kept alive while the kernels are launched.
struct Inputs {
  Problem problem{};
  Tensor x;
  OptionalTensor v0, tau, threshold, weight, bias, residual;
  Ints sizes, state, channels;

  explicit Inputs(const Given& given)
      : x(given.x),
        v0(to_contiguous(given.v0, ScalarType::Float)),
        tau(to_contiguous(given.tau, ScalarType::Float)),
        threshold(to_contiguous(given.threshold, ScalarType::Float)),
        weight(to_contiguous(given.weight, ScalarType::Float)),
        bias(to_contiguous(given.bias, ScalarType::Float)) {
    STD_TORCH_CHECK(x.dim() == 4, "x must be [T, A, C, I], got ", shape(x), ".");
    problem.dtype = dtype_of(x);
    for (int64_t i = 0; i < 4; ++i) sizes.push_back(x.size(i));
    state = {sizes[1], sizes[2], sizes[3]};
    channels = {sizes[2]};
    check(given);
    x = steps_contiguous(x);
    if (given.residual.has_value()) residual = steps_contiguous(*given.residual);

    problem.charge = static_cast<Charge>(given.charge);
    problem.surrogate = static_cast<Surrogate>(given.surrogate);
    problem.soft = !given.hard_reset;
    problem.detach = given.detach_reset;
    problem.alpha = static_cast<float>(given.alpha);
    problem.v_reset = static_cast<float>(given.v_reset);
    problem.tau = parameter(tau, given.tau_value);
    problem.threshold = parameter(threshold, given.threshold_value);
    if (!tau.has_value() && is_power_of_two(problem.tau.number)) {
      problem.inverse = 1.f / problem.tau.number;
    }
    problem.weight = data_or_null<float>(weight);
    problem.bias = data_or_null<float>(bias);
    problem.steps = sizes[0];
    problem.x = x.const_data_ptr();
    problem.x_step = x.stride(0);
    if (residual.has_value()) {
      problem.residual = residual->const_data_ptr();
      problem.residual_step = residual->stride(0);
    }
    problem.v0 = data_or_null<float>(v0);
  }

  int64_t neurons() const { return sizes[1] * sizes[2] * sizes[3]; }

  // Neurons without channels and without sums are one row.
  void fold(bool sums) {
    const bool parameters = tau.has_value() || threshold.has_value() || weight.has_value();
    const bool flat = !parameters && !sums && neurons() <= INT32_MAX;
    const int64_t columns = flat ? neurons() : sizes[2] * sizes[3];
    STD_TORCH_CHECK(columns <= INT32_MAX,
                    "x may have at most 2147483647 neurons a batch entry on CUDA, got ", columns,
                    ".");
    problem.rows = flat ? 1 : sizes[1];
    problem.columns = static_cast<int>(columns);
    problem.inner = static_cast<int>(flat ? columns : sizes[3]);
    const size_t element = x.element_size();
    problem.aligned = columns % kVector == 0 && problem.x_step % kVector == 0 &&
                      problem.residual_step % kVector == 0 && is_aligned(problem.x, element) &&
                      is_aligned(problem.residual, element) &&
                      is_aligned(problem.v0, sizeof(float));
  }

 private:
  void check(const Given& given) const {
    if (v0.has_value()) check_like("v0", *given.v0, given.x, ScalarType::Float, state);
    STD_TORCH_CHECK(weight.has_value() == bias.has_value(),
                    "weight and bias are given together or not at all.");
    if (weight.has_value()) {
      check_like("weight", *given.weight, given.x, ScalarType::Float, channels);
      check_like("bias", *given.bias, given.x, ScalarType::Float, channels);
    }
    for (const OptionalTensor* tensor : {&given.tau, &given.threshold}) {
      if (!tensor->has_value()) continue;
      const bool one = (*tensor)->dim() == 1 && (*tensor)->size(0) == 1;
      check_like("tau or v_threshold", **tensor, given.x, ScalarType::Float,
                 one ? Ints{1} : channels);
    }
    if (given.residual.has_value()) {
      check_like("residual", *given.residual, given.x, given.x.scalar_type(), sizes);
    }
    STD_TORCH_CHECK(given.charge >= 0 && given.charge <= 2, "charge must be 0, 1 or 2, got ",
                    given.charge, ".");
    STD_TORCH_CHECK(given.surrogate >= 0 && given.surrogate <= 7,
                    "surrogate must be from 0 to 7, got ", given.surrogate, ".");
  }

  static Parameter parameter(const OptionalTensor& tensor, double number) {
    const bool per_channel = tensor.has_value() && tensor->numel() > 1;
    return {data_or_null<float>(tensor), per_channel ? 1 : 0, static_cast<float>(number)};
  }
};

void refuse_smooth(bool smooth) {
  STD_TORCH_CHECK(!smooth, "The CUDA kernels have no smooth step in place of the spike.");
}

std::tuple<Tensor, Tensor, Tensor> forward_op(
    const Tensor& x, const OptionalTensor& v0, const OptionalTensor& tau,
    const OptionalTensor& v_threshold, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& residual, double tau_value, double v_threshold_value, double v_reset,
    double alpha, int64_t charge, bool hard_reset, bool detach_reset, int64_t surrogate,
    bool smooth, bool store_v, int64_t spike_code, int64_t row) {
  refuse_smooth(smooth);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Inputs inputs({x, v0, tau, v_threshold, weight, bias, residual, tau_value, v_threshold_value,
                 v_reset, alpha, charge, hard_reset, detach_reset, surrogate});
  inputs.fold(false);
  Problem& p = inputs.problem;
  const int64_t neurons = inputs.neurons(), steps = p.steps;
  STD_TORCH_CHECK(spike_code >= 0 && spike_code <= 2, "spike_code must be 0, 1 or 2, got ",
                  spike_code, ".");
  const bool bits = spike_code == static_cast<int64_t>(Spikes::kBits);
  STD_TORCH_CHECK(!bits || neurons == 0 || (row > 0 && p.columns % row == 0),
                  "Bits are packed along rows that divide the neurons of a batch entry: ",
                  p.columns, ", got ", row, ".");
  const bool packed = bits && row > 0;
  Tensor spikes = !bits
                      ? torch::stable::new_empty(
                            x, inputs.sizes, spike_code == 0 ? x.scalar_type() : ScalarType::Byte)
                      : torch::stable::new_empty(
                            x, Ints{steps, packed ? neurons / row : 0, packed ? (row + 7) / 8 : 0},
                            ScalarType::Byte);
  Tensor v_last = torch::stable::new_empty(x, inputs.state, ScalarType::Float);
  Tensor v_seq = torch::stable::new_empty(x, store_v ? inputs.sizes : Ints{0}, ScalarType::Float);
  if (neurons > 0) {
    p.aligned = p.aligned && (!bits || row % kVector == 0);
    const Forward arguments{p,
                            static_cast<Spikes>(spike_code),
                            static_cast<int>(bits ? row : p.columns),
                            spikes.mutable_data_ptr(),
                            static_cast<float*>(v_last.mutable_data_ptr()),
                            store_v ? static_cast<float*>(v_seq.mutable_data_ptr()) : nullptr};
    STD_CUDA_CHECK(forward(arguments, current_stream(x)));
  }
  return {spikes, v_last, v_seq};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward_op(
    const OptionalTensor& grad_spikes, const OptionalTensor& grad_v_last,
    const OptionalTensor& grad_v_seq, const Tensor& x, const OptionalTensor& v0,
    const OptionalTensor& tau, const OptionalTensor& v_threshold, const OptionalTensor& weight,
    const OptionalTensor& bias, const OptionalTensor& residual, double tau_value,
    double v_threshold_value, double v_reset, double alpha, int64_t charge, bool hard_reset,
    bool detach_reset, int64_t surrogate, bool smooth, int64_t wanted) {
  refuse_smooth(smooth);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Inputs inputs({x, v0, tau, v_threshold, weight, bias, residual, tau_value, v_threshold_value,
                 v_reset, alpha, charge, hard_reset, detach_reset, surrogate});
  const bool sums = (wanted & kSumBits) != 0;
  inputs.fold(sums);
  Problem& p = inputs.problem;

  OptionalTensor of_spikes;
  if (grad_spikes.has_value()) {
    check_like("grad_spikes", *grad_spikes, x, x.scalar_type(), inputs.sizes);
    of_spikes = steps_contiguous(*grad_spikes);
  }
  if (grad_v_last.has_value()) {
    check_like("grad_v_last", *grad_v_last, x, ScalarType::Float, inputs.state);
  }
  if (grad_v_seq.has_value()) {
    check_like("grad_v_seq", *grad_v_seq, x, ScalarType::Float, inputs.sizes);
  }
  const OptionalTensor of_last = to_contiguous(grad_v_last, ScalarType::Float);
  const OptionalTensor of_seq = to_contiguous(grad_v_seq, ScalarType::Float);

  const bool empty = inputs.neurons() == 0;
  const auto result = [&](Wanted which, const Ints& sizes, ScalarType type) {
    const bool given = (wanted >> which & 1) != 0;
    const Ints shape = given ? sizes : Ints{0};
    return empty ? torch::stable::new_zeros(x, shape, type)
                 : torch::stable::new_empty(x, shape, type);
  };
  const auto size_of = [&](const OptionalTensor& tensor) {
    return Ints{tensor.has_value() ? tensor->numel() : 0};
  };
  constexpr auto kState = ScalarType::Float;
  Tensor grad_x = result(kX, inputs.sizes, x.scalar_type());
  Tensor grad_v0 = result(kV0, inputs.state, kState);
  Tensor grad_tau = result(kTau, size_of(inputs.tau), kState);
  Tensor grad_threshold = result(kThreshold, size_of(inputs.threshold), kState);
  Tensor grad_weight = result(kWeight, inputs.channels, kState);
  Tensor grad_bias = result(kBias, inputs.channels, kState);
  Tensor grad_residual = result(kResidual, inputs.sizes, x.scalar_type());

  if (!empty) {
    const auto scratch = [&](int64_t count) {
      return torch::stable::new_empty(x, Ints{count}, kState);
    };
    const auto floats = [](Tensor& tensor) {
      return tensor.numel() > 0 ? static_cast<float*>(tensor.mutable_data_ptr()) : nullptr;
    };
    const auto data = [](Tensor& tensor) {
      return tensor.numel() > 0 ? tensor.mutable_data_ptr() : nullptr;
    };
    Backward b{};
    if (of_spikes.has_value()) {
      b.grad_spikes = of_spikes->const_data_ptr();
      b.grad_step = of_spikes->stride(0);
    }
    b.grad_v_last = data_or_null<float>(of_last);
    b.grad_v_seq = data_or_null<float>(of_seq);
    p.aligned = p.aligned && b.grad_step % kVector == 0 &&
                is_aligned(b.grad_spikes, x.element_size()) &&
                is_aligned(b.grad_v_last, sizeof(float)) && is_aligned(b.grad_v_seq, sizeof(float));
    b.problem = p;
    Tensor checkpoints = scratch(p.steps > 0 ? (segments(p.steps) - 1) * inputs.neurons() : 0);
    Tensor partial = scratch(sums ? kSums * slots(p) * p.columns : 0);
    const int64_t numbers = std::max(part_numbers(p, true), part_numbers(p, false));
    Tensor parts = scratch(sums ? numbers : 0);
    b.checkpoints = floats(checkpoints);
    b.partial = floats(partial);
    b.parts = floats(parts);
    b.grad_x = data(grad_x);
    b.grad_residual = data(grad_residual);
    b.grad_v0 = floats(grad_v0);
    b.grad_tau = floats(grad_tau);
    b.grad_threshold = floats(grad_threshold);
    b.grad_weight = floats(grad_weight);
    b.grad_bias = floats(grad_bias);
    STD_CUDA_CHECK(backward(b, current_stream(x)));
  }
  return {grad_x, grad_v0, grad_tau, grad_threshold, grad_weight, grad_bias, grad_residual};
}

}  // namespace
}  // namespace saccade::lif

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("lif_forward", TORCH_BOX(&saccade::lif::forward_op));
  m.impl("lif_backward", TORCH_BOX(&saccade::lif::backward_op));
}
