// From the sums of conj(gradient) psi to the gradients of parameters and inputs.
#include "statevector/cuda_chain.cuh"

namespace saccade::statevector {
namespace {

constexpr int kThreads = 256;

// The sum of every thread's number, for thread 0.
__device__ __forceinline__ double block_sum(double x) {
  double* const all = cuda::dynamic_shared<double>();
  const int thread = static_cast<int>(threadIdx.x);
  all[thread] = x;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) all[thread] += all[thread + half];
    __syncthreads();
  }
  return all[0];
}

// A block a chain that samples share: sums over all rows, 8 threads a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    shared_gradient_kernel(const __grid_constant__ Run<T> run, const Matrix<T>* sums, int64_t rows,
                           double* slots) {
  double* const all = cuda::dynamic_shared<double>();
  const DeviceChain& chain = run.program.shared[blockIdx.x];
  if (chain.wanted < 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  double sum = 0;
  for (int64_t r = thread / 8; r < rows; r += kThreads / 8) {
    sum += static_cast<double>(sums[r * run.n_wanted + chain.wanted].e[thread % 8]);
  }
  all[thread] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half >= 8; half /= 2) {
    if (thread < half) all[thread] += all[thread + half];
    __syncthreads();
  }
  if (thread > 0) return;
  Matrix<double> K;
  for (int i = 0; i < 8; ++i) K.e[i] = all[i];
  chain_gradient(run, chain, 0, K, [&](const DeviceFactor& f, double d) { slots[f.slot] = d; });
}

// A thread a sample and chain that it has for itself.
template <class T>
__global__ void __launch_bounds__(kThreads)
    own_gradient_kernel(const __grid_constant__ Run<T> run, const Matrix<T>* sums,
                        int rows_a_sample, int n_slots, double* slots) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= run.batch * run.n_own) return;
  const int64_t b = i / run.n_own;
  const DeviceChain& chain = run.program.own[i % run.n_own];
  if (chain.wanted < 0) return;
  Matrix<double> K{};
  for (int64_t r = b * rows_a_sample; r < (b + 1) * rows_a_sample; ++r) {
    const Matrix<T>& row = sums[r * run.n_wanted + chain.wanted];
    for (int k = 0; k < 8; ++k) K.e[k] += static_cast<double>(row.e[k]);
  }
  chain_gradient(run, chain, b, K,
                 [&](const DeviceFactor& f, double d) { slots[b * n_slots + f.slot] = d; });
}

// A block a parameter.
template <class T>
__global__ void __launch_bounds__(kThreads)
    params_kernel(const Collected* all, const int32_t* items, const double* shared,
                  const double* own, int64_t batch, int n_slots, T* gradient) {
  const Collected collected = all[blockIdx.x];
  double sum = 0;
  for (int k = collected.first; k < collected.first + collected.count; ++k) {
    const int slot = items[k] / 2;
    if (items[k] & 1) {
      for (int64_t b = threadIdx.x; b < batch; b += kThreads) sum += own[b * n_slots + slot];
    } else if (threadIdx.x == 0) {
      sum += shared[slot];
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) gradient[collected.index] = static_cast<T>(sum);
}

// A thread an input of a sample.
template <class T>
__global__ void __launch_bounds__(kThreads)
    inputs_kernel(const Collected* all, int n_inputs, const int32_t* items, const double* own,
                  int64_t batch, int n_slots, int64_t inputs_a_row, T* gradient) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= batch * n_inputs) return;
  const int64_t b = i / n_inputs;
  const Collected collected = all[i % n_inputs];
  double sum = 0;
  for (int k = collected.first; k < collected.first + collected.count; ++k) {
    sum += own[b * n_slots + items[k] / 2];
  }
  gradient[b * inputs_a_row + collected.index] = static_cast<T>(sum);
}

}  // namespace

template <class T>
cudaError_t collect_gradients(const Run<T>& run, const Tables& t, const Matrix<T>* sums,
                              double* shared, double* own, T* grad_params, T* grad_inputs,
                              cudaStream_t stream) {
  if (run.batch == 0) return cudaSuccess;
  const int slots = cut_of(run.bits, run.batch).slots;
  const auto blocks = [](int64_t threads) { return (threads + kThreads - 1) / kThreads; };
  constexpr size_t kShared = sizeof(double) * kThreads;
  cudaError_t error = cudaSuccess;
  if (t.n_shared_slots > 0) {
    error = cuda::launch(shared_gradient_kernel<T>, run.n_shared, kThreads, kShared, stream, run,
                         sums, run.batch * slots, shared);
  }
  if (error == cudaSuccess && t.n_own_slots > 0) {
    error = cuda::launch(own_gradient_kernel<T>, blocks(run.batch * run.n_own), kThreads, 0, stream,
                         run, sums, slots, t.n_own_slots, own);
  }
  const double *const of_shared = shared, *const of_own = own;
  if (error == cudaSuccess && t.n_params > 0) {
    error =
        cuda::launch(params_kernel<T>, t.n_params, kThreads, kShared, stream, run.program.params,
                     run.program.items, of_shared, of_own, run.batch, t.n_own_slots, grad_params);
  }
  if (error == cudaSuccess && t.n_inputs > 0) {
    error = cuda::launch(inputs_kernel<T>, blocks(run.batch * t.n_inputs), kThreads, 0, stream,
                         run.program.inputs, t.n_inputs, run.program.items, of_own, run.batch,
                         t.n_own_slots, run.inputs_a_row, grad_inputs);
  }
  return error;
}

#define SACCADE_INSTANTIATE(T)                                                              \
  template cudaError_t collect_gradients<T>(const Run<T>&, const Tables&, const Matrix<T>*, \
                                            double*, double*, T*, T*, cudaStream_t);
SACCADE_INSTANTIATE(float)
SACCADE_INSTANTIATE(double)
#undef SACCADE_INSTANTIATE

}  // namespace saccade::statevector
