// causal_conv1d on CUDA: torch's side.
#include "scan/bind_cuda.h"

namespace saccade::scan_device {
namespace {

struct ConvolutionInputs {
  Convolution problem{};
  Tensor weight;
  OptionalTensor bias;

  ConvolutionInputs(const Tensor& x, const Tensor& w, const OptionalTensor& b,
                    const OptionalTensor& initial_states, const OptionalTensor& seq_idx, bool silu)
      : weight(to_contiguous(w, ScalarType::Float)), bias(to_floats(b)) {
    STD_TORCH_CHECK(x.dim() == 3, "x must be [B, D, L], got ", shape(x), ".");
    STD_TORCH_CHECK(w.dim() == 2 && w.size(1) >= 1 && w.size(1) <= kMostWidth,
                    "weight must be [D, W] with W from 1 to ", kMostWidth, " on CUDA, got ",
                    shape(w), ".");
    check_shape("weight", w, x, {x.size(1), w.size(1)});
    if (b.has_value()) check_shape("bias", *b, x, {x.size(1)});
    Convolution& p = problem;
    p.batch = to_int("B", x.size(0));
    p.channels = to_int("D", x.size(1));
    p.length = to_int("L", x.size(2));
    p.width = static_cast<int>(w.size(1));
    p.silu = silu;
    p.x = view(x, "bdl");
    p.weight = static_cast<const float*>(weight.const_data_ptr());
    p.bias = data_or_null<float>(bias);
    if (initial_states.has_value()) {
      check_like("initial_states", *initial_states, x, {x.size(0), x.size(1), w.size(1) - 1});
      if (p.width > 1) p.initial = view(*initial_states, "bdl");
    }
    const Sequence s = sequence(seq_idx, x, x.size(0), x.size(2));
    STD_TORCH_CHECK(s.ids == nullptr || !initial_states.has_value(),
                    "seq_idx and initial_states do not go together.");
    p.sequence = s.ids;
    p.sequence_batch = s.batch;
    p.sequence_step = s.step;
  }
};

Tensor convolution_forward_op(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                              const OptionalTensor& initial_states, const OptionalTensor& seq_idx,
                              bool silu) {
  const DeviceGuard guard(x.get_device_index());
  const ConvolutionInputs in(x, weight, bias, initial_states, seq_idx, silu);
  Tensor out = laid_out_like(x);
  if (x.numel() > 0) {
    const ConvolutionForward f{in.problem, view(out, "bdl")};
    STD_CUDA_CHECK(convolve_forward(f, current_stream(x)));
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> convolution_backward_op(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
    const OptionalTensor& initial_states, const OptionalTensor& seq_idx, bool silu) {
  const DeviceGuard guard(x.get_device_index());
  const ConvolutionInputs in(x, weight, bias, initial_states, seq_idx, silu);
  check_like("grad_out", grad_out, x, {x.size(0), x.size(1), x.size(2)});
  STD_TORCH_CHECK(x.numel() > 0, "x must not be empty in a backward on CUDA, got ", shape(x), ".");
  const Ints none{0};
  Tensor grad_x = laid_out_like(x), grad_weight = floats(x, {weight.size(0), weight.size(1)});
  Tensor grad_bias = bias.has_value() ? floats(x, {x.size(1)}) : torch::stable::new_empty(x, none);
  Tensor grad_initial = initial_states.has_value()
                            ? torch::stable::new_empty(x, initial_states->sizes())
                            : torch::stable::new_empty(x, none);
  Tensor scratch = scratch_for(x, convolution_scratch(in.problem));
  ConvolutionBackward back{};
  back.problem = in.problem;
  back.grad_out = view(grad_out, "bdl");
  back.grad_x = view(grad_x, "bdl");
  if (in.problem.initial.data != nullptr) back.grad_initial = view(grad_initial, "bdl");
  back.grad_weight = data(grad_weight);
  if (bias.has_value()) back.grad_bias = data(grad_bias);
  back.scratch = data(scratch);
  STD_CUDA_CHECK(convolve_backward(back, current_stream(x)));
  return {grad_x, grad_weight, grad_bias, grad_initial};
}

}  // namespace
}  // namespace saccade::scan_device

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("causal_conv1d_forward", TORCH_BOX(&saccade::scan_device::convolution_forward_op));
  m.impl("causal_conv1d_backward", TORCH_BOX(&saccade::scan_device::convolution_backward_op));
}
