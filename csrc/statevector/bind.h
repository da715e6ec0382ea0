// What the bindings of state-vector simulation share between CPU and CUDA.
#pragma once

#include <cstdint>
#include <vector>

#include "common/bind.h"
#include "statevector/program.h"

namespace saccade::statevector {

// B samples of 2^bits amplitudes, P parameters, Pb inputs a sample, K observables.
struct Sizes {
  int64_t batch, params, inputs, bits, observables;
};

// params [P], inputs [B, Pb], state [B, 2^bits, 2] or absent, all of one type and device; plan and
// constants are contiguous tensors of int32 and float64 on the CPU.
Sizes check_circuit(const Tensor& params, const Tensor& inputs, const OptionalTensor& state,
                    const Tensor& plan, const Tensor& constants, int64_t bits, int64_t observables);

// The program that plan and constants hold; a state is given where, and only where, it starts at
// one.
Program make_program(const Sizes& sizes, const Tensor& plan, const Tensor& constants,
                     const OptionalTensor& state);

// Empty tensors for the gradients, of the type and on the device of `like`; of a state that was not
// given it has no element.
struct Gradients {
  Tensor params, inputs, state;
  Gradients(const Tensor& like, const Sizes& sizes, bool with_state);
};

// `tensor` has this shape, and the type and device of `like`.
void check_shape(const char* name, const Tensor& tensor, const std::vector<int64_t>& expected,
                 const Tensor& like);

// How many rows of 2^bits amplitudes the state between forward and backward has: small states are
// kept in the lanes of vectors, a full vector at a time.
int64_t kept_rows(int64_t batch, int64_t bits);

}  // namespace saccade::statevector
