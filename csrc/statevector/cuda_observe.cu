// Expectation values of Pauli sums, and the gradients that they send back.
#include "statevector/cuda_gates.cuh"

namespace saccade::statevector {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kAtOnce = 8;  // observables whose sums a thread keeps

__device__ __forceinline__ bool is_odd(uint32_t x) { return (__popc(x) & 1) != 0; }

// Re of conj(psi(p)) (P psi)(p), where P|p> = i^phase (-1)^parity(p & z) |p ^ x>
template <class T>
__device__ __forceinline__ T expectation(const Term& term, const Complex<T>* psi, uint32_t p,
                                         Complex<T> own) {
  const auto x = static_cast<uint32_t>(term.x), z = static_cast<uint32_t>(term.z);
  const Complex<T> other = x == 0 ? own : psi[p ^ x];
  const T value = term.phase & 1 ? other.im * own.re - other.re * own.im
                                 : other.re * own.re + other.im * own.im;
  const bool minus = is_odd(p & z) != ((term.phase & 2) != 0);
  const T scale = static_cast<T>(term.coefficient);
  return minus ? -scale * value : scale * value;
}

// sums [B, slots, K] over a slot's share of the indices.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    observe_kernel(const Term* terms, const int32_t* first_terms, int observables, int bits,
                   int slots, const Complex<T>* states, T* sums) {
  T* const of_warps = cuda::dynamic_shared<T>();  // [kAtOnce][warps]
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int64_t row = blockIdx.x, b = row / slots;
  const int64_t share = (int64_t{1} << bits) / slots;
  const int64_t first = row % slots * share;
  const Complex<T>* const psi = states + (b << bits);
  for (int k0 = 0; k0 < observables; k0 += kAtOnce) {
    T v[kAtOnce] = {};
    for (int64_t i = first + thread; i < first + share; i += static_cast<int>(blockDim.x)) {
      const Complex<T> own = psi[i];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (k0 + j >= observables) continue;
        for (int t = first_terms[k0 + j]; t < first_terms[k0 + j + 1]; ++t) {
          v[j] += expectation(terms[t], psi, static_cast<uint32_t>(i), own);
        }
      }
    }
    const T sum = warp_sums(v, lane);
    if (lane % 4 == 0) of_warps[lane / 4 * warps + warp] = sum;
    __syncthreads();
    if (thread < kAtOnce && k0 + thread < observables) {
      T all = 0;
      for (int i = 0; i < warps; ++i) all += of_warps[thread * warps + i];
      sums[row * observables + k0 + thread] = all;
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_slots_kernel(const T* sums, int64_t count, int observables, int slots, T* values) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t b = i / observables, k = i % observables;
  T sum = 0;
  for (int s = 0; s < slots; ++s) sum += sums[(b * slots + s) * observables + k];
  values[i] = sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    observe_backward_kernel(const Term* terms, int n_terms, int observables, int bits,
                            int64_t count, const Complex<T>* states, const T* weights,
                            Complex<T>* gradient) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t b = i >> bits;
  const auto p = static_cast<uint32_t>(i & ((int64_t{1} << bits) - 1));
  const Complex<T>* const psi = states + (b << bits);
  const Complex<T> own = psi[p];
  Complex<T> sum{};
  for (int t = 0; t < n_terms; ++t) {
    const Term& term = terms[t];
    const auto x = static_cast<uint32_t>(term.x), z = static_cast<uint32_t>(term.z);
    const Complex<T> other = x == 0 ? own : psi[p ^ x];
    // (P psi)(p) = i^phase (-1)^parity((p ^ x) & z) psi(p ^ x)
    const bool minus = is_odd((p ^ x) & z) != ((term.phase & 2) != 0);
    const T scale = static_cast<T>(2 * term.coefficient) * weights[b * observables + term.owner];
    const T w = minus ? -scale : scale;
    sum.re += term.phase & 1 ? -w * other.im : w * other.re;
    sum.im += term.phase & 1 ? w * other.re : w * other.im;
  }
  gradient[i] = sum;
}

}  // namespace

template <class T>
cudaError_t observe(const Run<T>& run, int32_t observables, const Complex<T>* psi, T* partials,
                    T* values, cudaStream_t stream) {
  const int64_t count = run.batch * observables;
  if (count == 0) return cudaSuccess;
  const auto slots = static_cast<int>(observe_slots(run.bits));
  const int64_t share = (int64_t{1} << run.bits) / slots;
  const int threads = share >= 8 * kThreads ? kThreads : share >= 512 ? 64 : 32;
  const cudaError_t error =
      cuda::launch(observe_kernel<T>, run.batch * slots, threads, sizeof(T) * kAtOnce * kWarps,
                   stream, run.program.terms, run.program.first_terms, observables, run.bits, slots,
                   psi, slots == 1 ? values : partials);
  if (error != cudaSuccess || slots == 1) return error;
  return cuda::launch(add_slots_kernel<T>, (count + kThreads - 1) / kThreads, kThreads, 0, stream,
                      partials, count, observables, slots, values);
}

template <class T>
cudaError_t observe_backward(const Run<T>& run, int32_t observables, int32_t terms,
                             const Complex<T>* psi, const T* weights, Complex<T>* gradient,
                             cudaStream_t stream) {
  const int64_t count = run.batch << run.bits;
  if (count == 0) return cudaSuccess;
  return cuda::launch(observe_backward_kernel<T>, (count + kThreads - 1) / kThreads, kThreads, 0,
                      stream, run.program.terms, terms, observables, run.bits, count, psi, weights,
                      gradient);
}

#define SACCADE_INSTANTIATE(T)                                                                 \
  template cudaError_t observe<T>(const Run<T>&, int32_t, const Complex<T>*, T*, T*,           \
                                  cudaStream_t);                                               \
  template cudaError_t observe_backward<T>(const Run<T>&, int32_t, int32_t, const Complex<T>*, \
                                           const T*, Complex<T>*, cudaStream_t);
SACCADE_INSTANTIATE(float)
SACCADE_INSTANTIATE(double)
#undef SACCADE_INSTANTIATE

}  // namespace saccade::statevector
