#include "statevector/bind.h"

#include "statevector/kernel.h"

namespace saccade::statevector {

Sizes check_circuit(const Tensor& params, const Tensor& inputs, const OptionalTensor& state,
                    const Tensor& plan, const Tensor& constants, int64_t bits,
                    int64_t observables) {
  STD_TORCH_CHECK(params.dim() == 1, "params must have shape [P], got ", shape(params), ".");
  STD_TORCH_CHECK(inputs.dim() == 2, "inputs must have shape [B, Pb], got ", shape(inputs), ".");
  const auto like = [&](const char* name, const Tensor& tensor) {
    STD_TORCH_CHECK(
        tensor.scalar_type() == params.scalar_type() && tensor.device() == params.device(), name,
        " must have the type and the device of params.");
  };
  STD_TORCH_CHECK(
      params.scalar_type() == ScalarType::Float || params.scalar_type() == ScalarType::Double,
      "params must be float32 or float64.");
  like("inputs", inputs);
  STD_TORCH_CHECK(bits >= 1 && bits <= kMaxBits, "bits must be from 1 to ", kMaxBits, ", got ",
                  bits, ".");
  STD_TORCH_CHECK(observables >= 0, "observables must be at least 0, got ", observables, ".");
  const Sizes sizes{inputs.size(0), params.size(0), inputs.size(1), bits, observables};
  if (state.has_value()) {
    like("state", *state);
    STD_TORCH_CHECK(state->dim() == 3 && state->size(0) == sizes.batch &&
                        state->size(1) == int64_t{1} << bits && state->size(2) == 2,
                    "state must have shape [B, 2**bits, 2] = [", sizes.batch, ", ",
                    int64_t{1} << bits, ", 2], got ", shape(*state), ".");
  }
  STD_TORCH_CHECK(plan.dim() == 1 && plan.scalar_type() == ScalarType::Int && plan.is_cpu() &&
                      plan.is_contiguous(),
                  "plan must be a contiguous vector of int32 on the CPU.");
  STD_TORCH_CHECK(constants.dim() == 1 && constants.scalar_type() == ScalarType::Double &&
                      constants.is_cpu() && constants.is_contiguous(),
                  "constants must be a contiguous vector of float64 on the CPU.");
  return sizes;
}

Program make_program(const Sizes& sizes, const Tensor& plan, const Tensor& constants,
                     const OptionalTensor& state) {
  Program program(static_cast<const int32_t*>(plan.const_data_ptr()), plan.numel(),
                  static_cast<const double*>(constants.const_data_ptr()), constants.numel(),
                  sizes.params, sizes.inputs);
  STD_TORCH_CHECK(program.bits == sizes.bits, "plan is for ", program.bits, " bits, not ",
                  sizes.bits, ".");
  STD_TORCH_CHECK(program.observables <= sizes.observables, "plan has ", program.observables,
                  " observables, not ", sizes.observables, ".");
  STD_TORCH_CHECK(program.zero != state.has_value(), "plan starts at ",
                  program.zero ? "|0...0>" : "a given state", ", but state is ",
                  state.has_value() ? "given." : "absent.");
  return program;
}

Gradients::Gradients(const Tensor& like, const Sizes& sizes, bool with_state)
    : params(torch::stable::new_empty(like, std::vector{sizes.params})),
      inputs(torch::stable::new_empty(like, std::vector{sizes.batch, sizes.inputs})),
      state(torch::stable::new_empty(
          like, with_state ? std::vector{sizes.batch, int64_t{1} << sizes.bits, int64_t{2}}
                           : std::vector{int64_t{0}})) {}

void check_shape(const char* name, const Tensor& tensor, const std::vector<int64_t>& expected,
                 const Tensor& like) {
  bool fits = tensor.dim() == static_cast<int64_t>(expected.size());
  for (int64_t i = 0; fits && i < tensor.dim(); ++i) fits = tensor.size(i) == expected[i];
  std::ostringstream wanted;
  for (size_t i = 0; i < expected.size(); ++i) wanted << (i ? ", " : "") << expected[i];
  STD_TORCH_CHECK(fits, name, " must have shape [", wanted.str(), "], got ", shape(tensor), ".");
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type() && tensor.device() == like.device(),
                  name, " must have the type and the device of params.");
}

int64_t kept_rows(int64_t batch, int64_t bits) {
  return bits <= kLaneBits ? (batch + 15) / 16 * 16 : batch;
}

}  // namespace saccade::statevector
