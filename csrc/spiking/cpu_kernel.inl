// The CPU kernels of the spiking neurons, for one instruction set: SACCADE_ISA_NAMESPACE and
// SACCADE_BYTES name it. No function here may be shared with another instruction set's file.
#pragma once

#include "spiking/cpu_backward.inl"
#include "spiking/cpu_forward.inl"
#include "spiking/cpu_linear.inl"
#include "spiking/cpu_smooth.inl"

namespace saccade::spiking::SACCADE_ISA_NAMESPACE {

template <typename T>
int64_t scratch(const Problem& problem, int64_t count, bool backward) {
  Scratch<T> sizes(nullptr);
  Operands<T>::count(count, sizes);
  if (backward) {
    BackwardBuffers<T>(problem.steps, count, sizes);
    const int64_t smooth = problem.smooth ? 4 * problem.steps : 0;
    return sizes.used() > smooth ? sizes.used() : smooth;
  }
  sizes.take((count + kWidth<T> + sizeof(T) - 1) / sizeof(T));
  return sizes.used();
}

template <typename T>
void forward(const ForwardArgs<T>& args, const Tile& tile, T* memory) {
  if (args.problem.smooth) return forward_smooth(args, tile);
  Scratch<T> scratch(memory);
  const Operands<T> operands(args.problem, args.in, tile, scratch);
  uint8_t* unpacked = reinterpret_cast<uint8_t*>(scratch.take(0));
  const bool input = args.in.weight != nullptr || args.in.residual.data != nullptr;
  const bool plain = !input && operands.plain() && args.spike_code == kFloatSpikes &&
                     args.v_seq == nullptr && args.problem.steps > 0;
  for_charge(args.problem, operands.multiply, [&](auto charge, auto multiply, auto hard) {
    constexpr Charge kCharge = decltype(charge)::value;
    constexpr bool kMultiply = decltype(multiply)::value, kHard = decltype(hard)::value;
    if (plain) return run_forward_plain<T, kCharge, kMultiply, kHard>(args, tile, operands);
    (input ? run_forward<T, kCharge, kMultiply, kHard, true>
           : run_forward<T, kCharge, kMultiply, kHard, false>)(args, tile, operands, unpacked);
  });
}

template <typename T>
void backward(const BackwardArgs<T>& args, const Tile& tile, const Sums& sums, T* memory) {
  const Problem& problem = args.problem;
  if (problem.smooth) return backward_smooth(args, tile, sums, memory);
  Scratch<T> scratch(memory);
  const Operands<T> operands(problem, args.in, tile, scratch);
  const BackwardBuffers<T> buffer(problem.steps, tile.count, scratch);
  bool general = args.in.weight != nullptr || args.in.residual.data != nullptr;
  for (int input = kTau; input <= kBias; ++input) general |= args.want[input];
  if (general) fill_zero(buffer.tau, 4 * buffer.row);
  const bool plain = !general && operands.plain() && args.grad_x != nullptr;
  for_charge(problem, operands.multiply, [&](auto charge, auto multiply, auto hard) {
    constexpr Charge kCharge = decltype(charge)::value;
    constexpr bool kMultiply = decltype(multiply)::value, kHard = decltype(hard)::value;
    if (plain) return charge_plain<T, kCharge, kMultiply, kHard>(args, tile, operands, buffer);
    (general ? run_backward<T, kCharge, kMultiply, kHard, true>
             : run_backward<T, kCharge, kMultiply, kHard, false>)(args, tile, operands, buffer);
  });
  if (plain) {
    for_surrogate(problem.surrogate, [&](auto surrogate) {
      constexpr Surrogate kSurrogate = decltype(surrogate)::value;
      (problem.hard_reset ? walk_back_plain<T, kSurrogate, true>
                          : walk_back_plain<T, kSurrogate, false>)(args, tile, operands, buffer);
    });
  }
  if (args.grad_v0 != nullptr) {
    // without a step v_last is v0
    const T* from = problem.steps == 0 && args.grad_v_last != nullptr
                        ? args.grad_v_last + tile.begin
                        : buffer.carry;
    memcpy(args.grad_v0 + tile.begin, from, static_cast<size_t>(tile.count) * sizeof(T));
  }
  const auto add = [&](const T* values, bool shared, double* to) {
    if (to != nullptr) add_sums(problem, tile, values, shared, to);
  };
  add(buffer.tau, args.in.tau.shared, sums.tau);
  add(buffer.threshold, args.in.threshold.shared, sums.threshold);
  add(buffer.weight, false, sums.weight);
  add(buffer.bias, false, sums.bias);
}

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
extern const LinearKernels<float> kLinearFloat;
extern const LinearKernels<double> kLinearDouble;
const Kernels<float> kFloat{kWidth<float>, scratch<float>, forward<float>, backward<float>};
const Kernels<double> kDouble{kWidth<double>, scratch<double>, forward<double>, backward<double>};
const LinearKernels<float> kLinearFloat{kColumns<float>, pack_panel<float>, multiply_panel<float>};
const LinearKernels<double> kLinearDouble{kColumns<double>, pack_panel<double>,
                                          multiply_panel<double>};

}  // namespace saccade::spiking::SACCADE_ISA_NAMESPACE
