// Circuits forwards: matrices of merged gates, then sweeps over the states.
#include <cstring>

#include "statevector/cuda_chain.cuh"
#include "statevector/cuda_gates.cuh"

namespace saccade::statevector {
namespace {

constexpr int kThreads = 512;

// What a launch can carry as an argument since CUDA 12.1, and with older toolkits.
#if !defined(CUDART_VERSION) || CUDART_VERSION >= 12010
constexpr size_t kCarried = 32000;
#else
constexpr size_t kCarried = 4000;
#endif
constexpr size_t kCarriedSmall = 4000;

template <size_t kBytes>
struct Parcel {
  uint32_t words[kBytes / 4];
};

template <size_t kBytes>
__global__ void upload_kernel(const __grid_constant__ Parcel<kBytes> parcel, uint32_t* to,
                              int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    to[i] = parcel.words[i];
  }
}

template <size_t kBytes>
cudaError_t send(const unsigned char* from, size_t bytes, uint32_t* to, cudaStream_t stream) {
  Parcel<kBytes> parcel;
  std::memcpy(parcel.words, from, bytes);
  return cuda::launch(upload_kernel<kBytes>, 1, 256, 0, stream, parcel, to,
                      static_cast<int>(bytes / 4));
}

template <class T>
__global__ void __launch_bounds__(kMatrixThreads)
    matrices_kernel(const __grid_constant__ Run<T> run) {
  const int64_t i = int64_t{blockIdx.x} * kMatrixThreads + threadIdx.x;
  if (i >= run.n_shared + run.batch * run.n_own) return;
  const bool own = i >= run.n_shared;
  const int64_t b = own ? (i - run.n_shared) / run.n_own : 0;
  const DeviceChain& chain =
      own ? run.program.own[(i - run.n_shared) % run.n_own] : run.program.shared[i];
  const Matrix<double> u = chain_matrix(run, chain, b);
#pragma unroll
  for (int k = 0; k < 8; ++k) run.matrices[i].e[k] = static_cast<T>(u.e[k]);
}

template <class T>
__device__ __forceinline__ void run_step(const Walk<T>& w, const Step& step, int64_t first_sample,
                                         uint32_t first_index, Complex<T>* tile) {
  const int all = 1 << (w.sweep.bits + w.sub_bits - kStepBits);
  for (int t = static_cast<int>(threadIdx.x); t < all; t += static_cast<int>(blockDim.x)) {
    const Held held = hold(w, step, t);
    const Matrix<T>* const own = own_matrices(w, first_sample + held.sub);
    Complex<T> z[kHeld];
    gather(tile, held, z);
    for (int i = step.first; i < step.first + step.count; ++i) {
      const Move move = w.program.moves[i];
      for (int k = move.first; k < move.first + move.count; ++k) {
        const Use& use = w.program.uses[k];
        const Meeting<T> m = meet(w, use, held, own, first_index);
        switch (move.axis) {
          case 0:
            apply_pair<0>(use, m, z);
            break;
          case 1:
            apply_pair<1>(use, m, z);
            break;
          case 2:
            apply_pair<2>(use, m, z);
            break;
          default:
            apply_phases(m, z);
        }
      }
    }
    scatter(tile, held, z);
  }
}

// A block takes the samples of one tile, or a share of one sample's tiles.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ Walk<T> w, const Complex<T>* from, Complex<T>* to,
                   bool logical) {
  Complex<T>* const tile = cuda::dynamic_shared<Complex<T>>();
  const int64_t first_sample = int64_t{blockIdx.x / w.slots} << w.sub_bits;
  const int64_t cosets = w.bits > w.sweep.bits ? int64_t{1} << (w.bits - w.sweep.bits) : 1;
  for (int64_t coset = blockIdx.x % w.slots; coset < cosets; coset += w.slots) {
    const uint32_t first_index = representative(w.sweep, coset);
    for_elements(w, first_sample, first_index, false, [&](int e, int64_t at, uint32_t p) {
      Complex<T> z{};
      if (at >= 0) z = from ? from[at] : Complex<T>{p == 0 ? T(1) : T(0), T(0)};
      tile[swizzled<T>(e)] = z;
    });
    __syncthreads();
    for (int s = w.sweep.first; s < w.sweep.first + w.sweep.count; ++s) {
      const Step& step = w.program.steps[s];
      if (step.dense) {
        run_dense(w, step, false, first_index, tile);
      } else {
        run_step(w, step, first_sample, first_index, tile);
      }
      __syncthreads();
    }
    for_elements(w, first_sample, first_index, logical, [&](int e, int64_t at, uint32_t) {
      if (at >= 0) to[at] = tile[swizzled<T>(e)];
    });
    __syncthreads();
  }
}

}  // namespace

cudaError_t upload(const std::vector<unsigned char>& bytes, void* device, cudaStream_t stream) {
  auto* const to = static_cast<unsigned char*>(device);
  for (size_t at = 0; at < bytes.size(); at += kCarried) {
    const size_t count = bytes.size() - at < kCarried ? bytes.size() - at : kCarried;
    auto* const words = reinterpret_cast<uint32_t*>(to + at);
    const cudaError_t error = count <= kCarriedSmall
                                  ? send<kCarriedSmall>(bytes.data() + at, count, words, stream)
                                  : send<kCarried>(bytes.data() + at, count, words, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <class T>
cudaError_t make_matrices(const Run<T>& run, cudaStream_t stream) {
  const int64_t count = run.n_shared + run.batch * run.n_own;
  if (count == 0 || run.batch == 0) return cudaSuccess;
  return cuda::launch(matrices_kernel<T>, (count + kMatrixThreads - 1) / kMatrixThreads,
                      kMatrixThreads, 0, stream, run);
}

template <class T>
cudaError_t run_forward(const Run<T>& run, const Tables& tables, const Complex<T>* state,
                        Complex<T>* work, Complex<T>* out, bool logical, cudaStream_t stream) {
  const Cut cut = cut_of(run.bits, run.batch);
  if (cut.blocks == 0) return cudaSuccess;
  for (size_t i = 0; i < tables.sweeps.size(); ++i) {
    const bool last = i + 1 == tables.sweeps.size();
    const Walk<T> walk = walk_of(run, tables.sweeps[i]);
    const int elements = 1 << (walk.sweep.bits + walk.sub_bits);
    const int threads = elements / kHeld < kThreads ? elements / kHeld : kThreads;
    const cudaError_t error =
        cuda::launch(forward_kernel<T>, cut.blocks, threads, elements * sizeof(Complex<T>), stream,
                     walk, i == 0 ? state : work, last ? out : work, last && logical);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

#define SACCADE_INSTANTIATE(T)                                                         \
  template cudaError_t make_matrices<T>(const Run<T>&, cudaStream_t);                  \
  template cudaError_t run_forward<T>(const Run<T>&, const Tables&, const Complex<T>*, \
                                      Complex<T>*, Complex<T>*, bool, cudaStream_t);
SACCADE_INSTANTIATE(float)
SACCADE_INSTANTIATE(double)
#undef SACCADE_INSTANTIATE

}  // namespace saccade::statevector
