#include "spiking/bind.h"

#include <torch/csrc/stable/ops.h>

namespace saccade::spiking {

namespace {

void check_state(const char* name, const OptionalTensor& tensor, const Tensor& x) {
  STD_TORCH_CHECK(tensor->scalar_type() == compute_type("x", x) && tensor->device() == x.device(),
                  name, " must be on x's device, in float32 (float64 for a float64 x).");
}

// [C], or [1] where one number may serve all channels.
void check_per_channel(const char* name, const OptionalTensor& tensor, const Tensor& x,
                       bool one_for_all) {
  if (!tensor.has_value()) return;
  check_state(name, tensor, x);
  STD_TORCH_CHECK(
      tensor->dim() == 1 && (tensor->size(0) == x.size(2) || (one_for_all && tensor->size(0) == 1)),
      name, " must have one entry for each of ", x.size(2), " channels, got ", shape(*tensor), ".");
}

bool has_sizes(const Tensor& tensor, const Tensor& x, int64_t first) {
  bool same = tensor.dim() == x.dim() - first;
  for (int64_t i = first; same && i < x.dim(); ++i) same = tensor.size(i - first) == x.size(i);
  return same;
}

}  // namespace

Problem check_problem(const Tensor& x, const OptionalTensor& v0, const OptionalTensor& tau,
                      const OptionalTensor& v_threshold, const OptionalTensor& weight,
                      const OptionalTensor& bias, const OptionalTensor& residual,
                      const Options& options) {
  STD_TORCH_CHECK(x.dim() == 4, "x must be [T, A, C, I], got ", shape(x), ".");
  if (v0.has_value()) {
    check_state("v0", v0, x);
    STD_TORCH_CHECK(has_sizes(*v0, x, 1), "v0 must have the shape of x without T, got ", shape(*v0),
                    " for ", shape(x), ".");
  }
  check_per_channel("tau", tau, x, true);
  check_per_channel("v_threshold", v_threshold, x, true);
  STD_TORCH_CHECK(weight.has_value() == bias.has_value(), "weight and bias go together.");
  check_per_channel("weight", weight, x, false);
  check_per_channel("bias", bias, x, false);
  if (residual.has_value()) {
    STD_TORCH_CHECK(residual->scalar_type() == x.scalar_type() &&
                        residual->device() == x.device() && has_sizes(*residual, x, 0),
                    "residual must have x's type, device and shape ", shape(x), ", got ",
                    shape(*residual), ".");
  }
  STD_TORCH_CHECK(options.charge >= kIntegrate && options.charge <= kLeak,
                  "charge must be 0, 1 or 2, got ", options.charge, ".");
  STD_TORCH_CHECK(options.surrogate >= kSigmoid && options.surrogate <= kRectangle,
                  "surrogate must be between 0 and ", static_cast<int>(kRectangle), ", got ",
                  options.surrogate, ".");
  STD_TORCH_CHECK(options.alpha > 0, "alpha must be positive, got ", options.alpha, ".");
  return Problem{x.size(0),
                 x.size(1),
                 x.size(2),
                 x.size(3),
                 options.tau,
                 options.threshold,
                 options.reset,
                 options.alpha,
                 static_cast<Charge>(options.charge),
                 options.hard_reset,
                 options.detach_reset,
                 static_cast<Surrogate>(options.surrogate),
                 options.smooth};
}

void check_row(const Problem& problem, int64_t spike_code, int64_t row) {
  STD_TORCH_CHECK(spike_code >= kFloatSpikes && spike_code <= kBitSpikes,
                  "spike_code must be 0, 1 or 2, got ", spike_code, ".");
  STD_TORCH_CHECK(spike_code == kFloatSpikes || !problem.smooth,
                  "smooth spikes are floating numbers, got spike_code ", spike_code, ".");
  STD_TORCH_CHECK(spike_code != kBitSpikes || (row >= 1 && problem.neurons() % row == 0),
                  "row must divide the ", problem.neurons(), " neurons, got ", row, ".");
}

void check_gradient(const char* name, const OptionalTensor& gradient, const Tensor& x, bool steps) {
  if (!gradient.has_value()) return;
  STD_TORCH_CHECK(gradient->device() == x.device() && has_sizes(*gradient, x, steps ? 0 : 1), name,
                  " must be on x's device and have x's sizes ", shape(x), steps ? "" : " without T",
                  ", got ", shape(*gradient), ".");
}

Tensor with_contiguous_neurons(const Tensor& tensor) {
  int64_t expected = 1;
  for (int64_t i = tensor.dim() - 1; i >= tensor.dim() - 3; --i) {
    if (tensor.size(i) != 1 && tensor.stride(i) != expected)
      return torch::stable::contiguous(tensor);
    expected *= tensor.size(i);
  }
  return tensor;
}

}  // namespace saccade::spiking
