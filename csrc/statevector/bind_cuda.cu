// Torch's side of the CUDA kernels: checks and allocation. Nothing waits for the device, so every
// call fits into a CUDA graph.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <tuple>
#include <vector>

#include "statevector/bind.h"
#include "statevector/cuda_calls.h"

namespace saccade::statevector {
namespace {

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

template <typename T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}
template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

Tensor empty(const Tensor& like, const std::vector<int64_t>& sizes) {
  return torch::stable::new_empty(like, sizes);
}

// Blocks of a launch are numbered in 31 bits; the matrices of a sample are made by threads.
void check_blocks(const Sizes& sizes, const Program& program) {
  const auto chains = static_cast<int64_t>(program.chains.size());
  const bool fits =
      sizes.batch <= INT32_MAX / kMaxSlots && sizes.batch * chains / kMatrixThreads < INT32_MAX;
  STD_TORCH_CHECK(fits, "B = ", sizes.batch, " samples of a plan of ", chains,
                  " chains are too many for one call on CUDA.");
}

// What every call is given, contiguous, and the program that runs.
struct Inputs {
  Sizes sizes;
  Tensor params, inputs;
  OptionalTensor state;
  Program program;

  Inputs(const Tensor& params_, const Tensor& inputs_, const OptionalTensor& state_,
         const Tensor& plan, const Tensor& constants, int64_t bits, int64_t observables)
      : sizes(check_circuit(params_, inputs_, state_, plan, constants, bits, observables)),
        params(torch::stable::contiguous(params_)),
        inputs(torch::stable::contiguous(inputs_)),
        state(to_contiguous(state_, params_.scalar_type())),
        program(make_program(sizes, plan, constants, state_)) {
    check_blocks(sizes, program);
  }

  std::vector<int64_t> states() const { return {sizes.batch, int64_t{1} << sizes.bits, 2}; }
};

// use(call, zero) with a call in the inputs' type. Its memory goes back to torch's allocator, which
// gives it to later work of the same stream alone.
template <class F>
void with_call(const Inputs& in, const F& use) {
  std::vector<Tensor> memory;
  const auto make = [&](size_t bytes) {
    const auto numbers = static_cast<int64_t>((bytes + sizeof(double) - 1) / sizeof(double));
    memory.push_back(torch::stable::new_empty(in.params, std::vector{numbers}, ScalarType::Double));
    return memory.back().mutable_data_ptr();
  };
  const auto run = [&]<class T>(T zero) {
    Call<T, decltype(make)> call(in.program, in.sizes.observables, in.sizes.batch, in.sizes.inputs,
                                 data<T>(in.params), data<T>(in.inputs), make,
                                 current_stream(in.params));
    STD_CUDA_CHECK(use(call, zero));
  };
  if (in.params.scalar_type() == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
}

Tensor forward(const Tensor& params, const Tensor& inputs, const OptionalTensor& state,
               const Tensor& plan, const Tensor& constants, int64_t bits) {
  const torch::stable::accelerator::DeviceGuard guard(params.get_device_index());
  const Inputs in(params, inputs, state, plan, constants, bits, 0);
  Tensor out = empty(params, in.states());
  if (in.sizes.batch == 0) return out;
  with_call(in, [&]<class T>(auto& call, T) {
    return call.state(data_or_null<T>(in.state), data<T>(out));
  });
  return out;
}

std::tuple<Tensor, Tensor> expval_forward(const Tensor& params, const Tensor& inputs,
                                          const OptionalTensor& state, const Tensor& plan,
                                          const Tensor& constants, int64_t bits,
                                          int64_t observables, bool keep) {
  const torch::stable::accelerator::DeviceGuard guard(params.get_device_index());
  const Inputs in(params, inputs, state, plan, constants, bits, observables);
  Tensor values = empty(params, {in.sizes.batch, observables});
  Tensor kept = empty(params, {0});
  if (keep) {
    const int64_t rows = kept_rows(in.sizes.batch, bits);
    kept = empty(params, {rows, int64_t{1} << bits, 2});
    // rows that no sample fills: the same inputs give the same bits
    if (rows > in.sizes.batch) torch::stable::zero_(kept);
  }
  if (in.sizes.batch == 0) return {values, kept};
  with_call(in, [&]<class T>(auto& call, T) {
    return call.expectations(data_or_null<T>(in.state), data<T>(values),
                             keep ? data<T>(kept) : nullptr);
  });
  return {values, kept};
}

template <class F>
std::tuple<Tensor, Tensor, Tensor> run_backward(const Inputs& in, const F& use) {
  Gradients grads(in.params, in.sizes, in.state.has_value());
  torch::stable::zero_(grads.params);
  torch::stable::zero_(grads.inputs);
  if (in.sizes.batch > 0) {
    with_call(in, [&]<class T>(auto& call, T zero) {
      const typename std::remove_reference_t<decltype(call)>::Gradients to{
          data<T>(grads.params), data<T>(grads.inputs),
          in.state.has_value() ? data<T>(grads.state) : nullptr};
      return use(call, to, zero);
    });
  }
  return {grads.params, grads.inputs, grads.state};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out_, const Tensor& params,
                                            const Tensor& inputs, const OptionalTensor& state,
                                            const Tensor& out_, const Tensor& plan,
                                            const Tensor& constants, int64_t bits) {
  const torch::stable::accelerator::DeviceGuard guard(params.get_device_index());
  const Inputs in(params, inputs, state, plan, constants, bits, 0);
  check_shape("grad_out", grad_out_, in.states(), params);
  check_shape("out", out_, in.states(), params);
  const Tensor grad_out = torch::stable::contiguous(grad_out_);
  const Tensor out = torch::stable::contiguous(out_);
  return run_backward(in, [&]<class T>(auto& call, const auto& to, T) {
    return call.state_backward(data<T>(out), data<T>(grad_out), to);
  });
}

std::tuple<Tensor, Tensor, Tensor> expval_backward(const Tensor& grad_values_, const Tensor& params,
                                                   const Tensor& inputs,
                                                   const OptionalTensor& state, const Tensor& kept_,
                                                   const Tensor& plan, const Tensor& constants,
                                                   int64_t bits) {
  const torch::stable::accelerator::DeviceGuard guard(params.get_device_index());
  STD_TORCH_CHECK(grad_values_.dim() == 2, "grad_values must have shape [B, K], got ",
                  shape(grad_values_), ".");
  const int64_t observables = grad_values_.size(1);
  const Inputs in(params, inputs, state, plan, constants, bits, observables);
  check_shape("grad_values", grad_values_, {in.sizes.batch, observables}, params);
  check_shape("kept", kept_, {kept_rows(in.sizes.batch, bits), int64_t{1} << bits, 2}, params);
  const Tensor grad_values = torch::stable::contiguous(grad_values_);
  const Tensor kept = torch::stable::contiguous(kept_);
  return run_backward(in, [&]<class T>(auto& call, const auto& to, T) {
    return call.expectations_backward(data<T>(kept), data<T>(grad_values), to);
  });
}

}  // namespace
}  // namespace saccade::statevector

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("statevector_backward", TORCH_BOX(&saccade::statevector::backward));
  m.impl("statevector_expval_backward", TORCH_BOX(&saccade::statevector::expval_backward));
  m.impl("statevector_expval_forward", TORCH_BOX(&saccade::statevector::expval_forward));
  m.impl("statevector_forward", TORCH_BOX(&saccade::statevector::forward));
}
