// The calls of the operators as launches, with memory from whoever makes it.
#pragma once

#include <utility>

#include "statevector/cuda_kernel.cuh"

namespace saccade::statevector {

// make(bytes) gives memory of the device that lives as long as the call.
template <class T, class Make>
class Call {
 public:
  Call(const Program& program, int64_t observables, int64_t batch, int64_t inputs_a_row,
       const T* params, const T* inputs, Make make, cudaStream_t stream)
      : tables_(program, observables), make_(std::move(make)), stream_(stream) {
    void* const device = make_(tables_.bytes.size());
    auto* const matrices = make_array<Matrix<T>>(matrices_of(tables_, batch));
    run_ = make_run(tables_, program, device, batch, inputs_a_row, params, inputs, matrices);
    error_ = batch == 0 ? cudaSuccess : upload(tables_.bytes, device, stream_);
    if (error_ == cudaSuccess) error_ = make_matrices(run_, stream_);
  }

  // out [B, 2^bits] in logical order.
  cudaError_t state(const T* state, T* out) {
    if (error_ != cudaSuccess) return error_;
    Complex<T>* const work = tables_.sweeps.size() > 1 ? make_states() : nullptr;
    return run_forward(run_, tables_, complex(state), work, complex(out), true, stream_);
  }

  // values [B, K]; the states go to `kept` unless that is null.
  cudaError_t expectations(const T* state, T* values, T* kept) {
    if (error_ != cudaSuccess) return error_;
    Complex<T>* const psi = kept ? complex(kept) : make_states();
    const cudaError_t error = run_forward(run_, tables_, complex(state), psi, psi, false, stream_);
    if (error != cudaSuccess) return error;
    const int64_t slots = observe_slots(run_.bits);
    T* const partials =
        slots > 1 ? make_array<T>(run_.batch * slots * tables_.observables) : nullptr;
    return observe(run_, tables_.observables, psi, partials, values, stream_);
  }

  // Where gradients go: params [P] and inputs [B, Pb] hold zeros, state may be null.
  struct Gradients {
    T *params, *inputs, *state;
  };

  cudaError_t state_backward(const T* out, const T* grad_out, const Gradients& to) {
    Backward<T> arguments{complex(out), complex(grad_out), true};
    if (tables_.sweeps.size() > 1) arguments.gradient_work = make_states();
    return backward(arguments, to);
  }

  cudaError_t expectations_backward(const T* kept, const T* weights, const Gradients& to) {
    if (error_ != cudaSuccess) return error_;
    Complex<T>* const gradient = make_states();
    const cudaError_t error = observe_backward(run_, tables_.observables, tables_.n_terms,
                                               complex(kept), weights, gradient, stream_);
    if (error != cudaSuccess) return error;
    Backward<T> arguments{complex(kept), gradient, false};
    arguments.gradient_work = gradient;
    return backward(arguments, to);
  }

 private:
  Tables tables_;
  Make make_;
  cudaStream_t stream_;
  Run<T> run_{};
  cudaError_t error_ = cudaSuccess;

  template <class U>
  U* make_array(int64_t count) {
    return count > 0 ? static_cast<U*>(make_(static_cast<size_t>(count) * sizeof(U))) : nullptr;
  }
  Complex<T>* make_states() { return make_array<Complex<T>>(run_.batch << run_.bits); }
  static Complex<T>* complex(T* p) { return reinterpret_cast<Complex<T>*>(p); }
  static const Complex<T>* complex(const T* p) { return reinterpret_cast<const Complex<T>*>(p); }

  cudaError_t backward(Backward<T>& arguments, const Gradients& to) {
    if (error_ != cudaSuccess) return error_;
    const int64_t rows = run_.batch * cut_of(run_.bits, run_.batch).slots;
    if (tables_.sweeps.size() > 1) arguments.psi_work = make_states();
    arguments.sums = make_array<Matrix<T>>(rows * tables_.n_wanted);
    arguments.grad_state = complex(to.state);
    const cudaError_t error = run_backward(run_, tables_, arguments, stream_);
    if (error != cudaSuccess) return error;
    auto* const shared = make_array<double>(tables_.n_shared_slots);
    auto* const own = make_array<double>(run_.batch * tables_.n_own_slots);
    return collect_gradients(run_, tables_, static_cast<const Matrix<T>*>(arguments.sums), shared,
                             own, to.params, to.inputs, stream_);
  }
};

}  // namespace saccade::statevector
