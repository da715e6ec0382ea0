// Torch's side of the CPU kernels of the causal convolution.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "scan/bind_cpu.h"

namespace saccade::scan {

namespace {

// The inputs in the type of computation, kept alive beside the views of them.
template <typename T>
struct Prepared {
  Tensor x, weight;
  OptionalTensor bias, initial, sequence;

  Prepared(ScalarType type, const Tensor& x_, const Tensor& weight_, const OptionalTensor& bias_,
           const OptionalTensor& initial_, const OptionalTensor& seq_idx)
      : x(to_type(x_, type)),
        weight(to_contiguous(weight_, type)),
        bias(to_contiguous(bias_, type)),
        initial(to_contiguous(initial_, type)),
        sequence(to_contiguous(seq_idx, ScalarType::Int)) {}

  ConvInputs<T> inputs() const {
    return {view<const T>(x), static_cast<const T*>(weight.const_data_ptr()),
            saccade::data_or_null<T>(bias), saccade::data_or_null<T>(initial),
            saccade::data_or_null<int32_t>(sequence)};
  }
};

// Runs `kernel` on blocks of channels of every batch entry.
template <typename T, typename Args>
void run(const Args& args,
         void (*kernel)(const Args&, int64_t batch, int64_t channel, int64_t count, T* scratch)) {
  const ConvProblem& problem = args.problem;
  const int64_t lanes = kernels<T>().lanes;
  const int64_t blocks = (problem.channels + lanes - 1) / lanes;
  const int64_t scratch_size = kernels<T>().conv_scratch(problem);
  parallel_tasks(problem.batch * blocks, [&] {
    return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
      const int64_t channel = i % blocks * lanes;
      kernel(args, i / blocks, channel, std::min(lanes, problem.channels - channel),
             scratch.data());
    };
  });
}

Tensor forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
               const OptionalTensor& initial_states, const OptionalTensor& seq_idx, bool silu) {
  const ConvProblem problem = check_conv(x, weight, bias, initial_states, seq_idx, silu);
  const ScalarType type = compute_type("x", x);
  Tensor out = new_like(x, type);
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(type, x, weight, bias, initial_states, seq_idx);
    run<T, ConvForward<T>>({problem, prepared.inputs(), view<T>(out)}, kernels<T>().conv_forward);
  });
  return to_type(out, x.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& x,
                                                    const Tensor& weight,
                                                    const OptionalTensor& bias,
                                                    const OptionalTensor& initial_states,
                                                    const OptionalTensor& seq_idx, bool silu) {
  const ConvProblem problem = check_conv(x, weight, bias, initial_states, seq_idx, silu);
  check_shape("grad_out", grad_out, {problem.batch, problem.channels, problem.length});
  const ScalarType type = compute_type("x", x), result = x.scalar_type();
  const Tensor dout = to_type(grad_out, type);
  Tensor grad_x = new_like(x, type);
  OptionalTensor grad_initial, grad_weight, grad_bias;
  if (initial_states.has_value()) {
    grad_initial = torch::stable::new_empty(x, initial_states->sizes(), type);
  }
  OptionalTensor share_weight =
      shares(x, type, true, {problem.batch, problem.channels, problem.width});
  OptionalTensor share_bias = shares(x, type, bias.has_value(), {problem.batch, problem.channels});
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(type, x, weight, bias, initial_states, seq_idx);
    run<T, ConvBackward<T>>(
        {problem, prepared.inputs(), view<const T>(dout), view<T>(grad_x),
         data_or_null<T>(share_weight), data_or_null<T>(share_bias), data_or_null<T>(grad_initial)},
        kernels<T>().conv_backward);
    grad_weight = sum_batch<T>(*share_weight);
    grad_bias = sum_or_absent<T>(share_bias, x, result);
  });
  return {to_type(grad_x, result), *grad_weight, *grad_bias,
          grad_initial.has_value() ? to_type(*grad_initial, result) : absent(x, result)};
}

}  // namespace

}  // namespace saccade::scan

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("causal_conv1d_forward", TORCH_BOX(&saccade::scan::forward));
  m.impl("causal_conv1d_backward", TORCH_BOX(&saccade::scan::backward));
}
