// The CUDA kernels of state-vector simulation: what they take, and how they are launched. States
// are [B, 2^bits] complex numbers at physical indices, where not said otherwise. Every sum is cut
// by sizes alone and added up in a fixed order.
#pragma once

#include "common/cuda_device.cuh"
#include "statevector/device_tables.h"

namespace saccade::statevector {

template <class T>
struct alignas(2 * sizeof(T)) Complex {
  T re, im;
};

// 2x2 complex, row after row.
template <class T>
struct alignas(16) Matrix {
  T e[8];
};

// Where a sample's physical indices are in logical order.
struct Images {
  int32_t bit[kMaxBits];
  int32_t origin;
};

// A call: the program on the device, and what it is run with.
template <class T>
struct Run {
  DeviceProgram program;
  int64_t batch, inputs_a_row;
  const T *params, *inputs;  // [P], [B, Pb]
  Matrix<T>* matrices;       // [matrices_of(tables, B)]
  int32_t bits, n_shared, n_own, n_wanted;
  Images images;
};

inline int64_t matrices_of(const Tables& t, int64_t batch) { return t.n_shared + batch * t.n_own; }

template <class T>
Run<T> make_run(const Tables& t, const Program& program, const void* device, int64_t batch,
                int64_t inputs_a_row, const T* params, const T* inputs, Matrix<T>* matrices) {
  Run<T> run{t.at(device), batch,      inputs_a_row, params,     inputs, matrices,
             t.bits,       t.n_shared, t.n_own,      t.n_wanted, {}};
  for (int b = 0; b < t.bits; ++b) run.images.bit[b] = program.images[b];
  run.images.origin = program.origin;
  return run;
}

// How a batch is cut into blocks: 2^sub_bits samples a block, or `slots` blocks a sample.
struct Cut {
  int32_t sub_bits, slots;
  int64_t blocks;
};
inline Cut cut_of(int32_t bits, int64_t batch) {
  const int32_t padded = bits < kStepBits ? kStepBits : bits;
  const int32_t sub_bits = padded < kWarpBits ? kWarpBits - padded : 0;
  const int64_t cosets = padded > kTileBits ? int64_t{1} << (padded - kTileBits) : 1;
  const auto slots = static_cast<int32_t>(cosets < kMaxSlots ? cosets : kMaxSlots);
  return {sub_bits, slots, ((batch + (1 << sub_bits) - 1) >> sub_bits) * slots};
}

// Copies the tables to the device as arguments of launches: nothing waits, no memory of the host
// is read later, and a CUDA graph can hold it.
cudaError_t upload(const std::vector<unsigned char>& bytes, void* device, cudaStream_t stream);

// The matrices of all chains.
constexpr int kMatrixThreads = 128;  // a thread a matrix
template <class T>
cudaError_t make_matrices(const Run<T>& run, cudaStream_t stream);

// From |0...0>, or from `state` at physical indices, to `out`, in logical order where that is
// asked for. Between sweeps the states lie in `work`, which may be `out` where that is physical.
template <class T>
cudaError_t run_forward(const Run<T>& run, const Tables& tables, const Complex<T>* state,
                        Complex<T>* work, Complex<T>* out, bool logical, cudaStream_t stream);

// values [B, K] of the observables; partials [B, observe_slots, K].
inline int64_t observe_slots(int32_t bits) {
  return bits <= kTileBits      ? 1
         : bits - kTileBits > 8 ? kMaxSlots
                                : int64_t{1} << (bits - kTileBits);
}
template <class T>
cudaError_t observe(const Run<T>& run, int32_t observables, const Complex<T>* psi, T* partials,
                    T* values, cudaStream_t stream);

// gradient = sum of 2 weight P psi over the terms, with weights [B, K].
template <class T>
cudaError_t observe_backward(const Run<T>& run, int32_t observables, int32_t terms,
                             const Complex<T>* psi, const T* weights, Complex<T>* gradient,
                             cudaStream_t stream);

// Undoes the circuit on psi and on the gradient behind it, which are given in logical order where
// `logical`; writes sums [B, slots, n_wanted] of conj(gradient) psi, and what is left of the
// gradient to grad_state unless that is null. psi_work and gradient_work are for more than one
// sweep; gradient_work may be the gradient.
template <class T>
struct Backward {
  const Complex<T>*psi, *gradient;
  bool logical;
  Complex<T>*psi_work, *gradient_work;
  Matrix<T>* sums;
  Complex<T>* grad_state;
};
template <class T>
cudaError_t run_backward(const Run<T>& run, const Tables& tables, const Backward<T>& arguments,
                         cudaStream_t stream);

// From sums to grad_params [P] and grad_inputs [B, Pb], which hold zeros; `shared` holds
// n_shared_slots and `own` [B, n_own_slots] numbers.
template <class T>
cudaError_t collect_gradients(const Run<T>& run, const Tables& tables, const Matrix<T>* sums,
                              double* shared, double* own, T* grad_params, T* grad_inputs,
                              cudaStream_t stream);

}  // namespace saccade::statevector
