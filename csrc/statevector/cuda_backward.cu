// Circuits backwards: every sweep is undone on the states and on the gradient behind them, and sums
// of conj(gradient) psi tell the gradient of every merged gate.
#include "statevector/cuda_gates.cuh"

namespace saccade::statevector {
namespace {

constexpr int kThreads = 256;

// What a thread's sums become. In blocks of several warps they wait for those of the other warps,
// in one of two buffers [kUses][warps][8] by turns; a warp of several samples writes them.
template <class T>
struct Sums {
  T* buffer;
  Matrix<T>* rows;  // [B, slots, n_wanted]
  bool again;       // another tile of the same sample: adds
};

template <class T>
__device__ __forceinline__ void add_up(const Walk<T>& w, const Sums<T>& sums, int use, int wanted,
                                       Matrix<T> own, int64_t b, bool first_round) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int lanes_bits = w.sweep.bits - kStepBits;
  if (lanes_bits >= 5) {
    const T sum = warp_sums(own.e, lane);
    if (lane % 4 != 0) return;
    const int warps = static_cast<int>(blockDim.x) / 32;
    T* const at = sums.buffer + (use * warps + warp) * 8 + lane / 4;
    *at = first_round ? sum : *at + sum;
    return;
  }
  for (int bit = 1; bit < 1 << lanes_bits; bit *= 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) own.e[i] += __shfl_xor_sync(cuda::kFullWarp, own.e[i], bit);
  }
  if ((lane & ((1 << lanes_bits) - 1)) == 0 && b < w.batch) {
    sums.rows[b * w.n_wanted + wanted] = own;
  }
}

// After a step: the sums of all warps.
template <class T>
__device__ __forceinline__ void flush(const Walk<T>& w, const Step& step, const Sums<T>& sums,
                                      int64_t row) {
  if (w.sweep.bits - kStepBits < 5) return;
  const int warps = static_cast<int>(blockDim.x) / 32;
  for (int i = static_cast<int>(threadIdx.x); i < step.uses * 8;
       i += static_cast<int>(blockDim.x)) {
    const int wanted = w.program.uses[step.first_use + i / 8].wanted;
    if (wanted < 0) continue;
    T sum = 0;
    for (int k = 0; k < warps; ++k) sum += sums.buffer[(i / 8 * warps + k) * 8 + i % 8];
    T& out = sums.rows[row * w.n_wanted + wanted].e[i % 8];
    out = sums.again ? out + sum : sum;
  }
}

template <class T>
__device__ __forceinline__ void undo_step(const Walk<T>& w, const Step& step, int64_t first_sample,
                                          uint32_t first_index, Complex<T>* psi,
                                          Complex<T>* gradient, const Sums<T>& sums) {
  const int all = 1 << (w.sweep.bits + w.sub_bits - kStepBits);
  for (int t = static_cast<int>(threadIdx.x); t < all; t += static_cast<int>(blockDim.x)) {
    const Held held = hold(w, step, t);
    const Matrix<T>* const own = own_matrices(w, first_sample + held.sub);
    Complex<T> z[kHeld], g[kHeld];
    gather(psi, held, z);
    gather(gradient, held, g);
    for (int i = step.first + step.count; i-- > step.first;) {
      const Move move = w.program.moves[i];
      for (int k = move.first + move.count; k-- > move.first;) {
        const Use& use = w.program.uses[k];
        const Meeting<T> m = meet(w, use, held, own, first_index);
        Matrix<T> part;
        switch (move.axis) {
          case 0:
            part = unapply_pair<0>(use, m, z, g);
            break;
          case 1:
            part = unapply_pair<1>(use, m, z, g);
            break;
          case 2:
            part = unapply_pair<2>(use, m, z, g);
            break;
          default:
            part = unapply_phases(use, m, z, g);
        }
        if (use.wanted >= 0) {
          add_up(w, sums, k - step.first_use, use.wanted, turned(part, m.turn),
                 first_sample + held.sub, t == static_cast<int>(threadIdx.x));
        }
      }
    }
    scatter(psi, held, z);
    scatter(gradient, held, g);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const __grid_constant__ Walk<T> w, const Complex<T>* from_psi,
                    const Complex<T>* from_gradient, bool logical, Complex<T>* to_psi,
                    Complex<T>* to_gradient, Matrix<T>* rows) {
  const int elements = 1 << (w.sweep.bits + w.sub_bits);
  const int warps = static_cast<int>(blockDim.x) / 32;
  Complex<T>* const psi = cuda::dynamic_shared<Complex<T>>();
  Complex<T>* const gradient = psi + elements;
  T* const buffers = reinterpret_cast<T*>(gradient + elements);
  const int64_t first_sample = int64_t{blockIdx.x / w.slots} << w.sub_bits;
  const int64_t cosets = w.bits > w.sweep.bits ? int64_t{1} << (w.bits - w.sweep.bits) : 1;
  const auto slot = static_cast<int64_t>(blockIdx.x % w.slots);
  const int64_t row = first_sample * w.slots + slot;
  for (int64_t coset = slot; coset < cosets; coset += w.slots) {
    const uint32_t first_index = representative(w.sweep, coset);
    for_elements(w, first_sample, first_index, logical, [&](int e, int64_t at, uint32_t) {
      psi[swizzled<T>(e)] = at >= 0 ? from_psi[at] : Complex<T>{};
      gradient[swizzled<T>(e)] = at >= 0 ? from_gradient[at] : Complex<T>{};
    });
    __syncthreads();
    for (int s = w.sweep.first + w.sweep.count; s-- > w.sweep.first;) {
      const Step& step = w.program.steps[s];
      const Sums<T> sums{buffers + (s & 1) * kUses * warps * 8, rows, coset != slot};
      if (step.dense) {
        run_dense(w, step, true, first_index, psi);
        run_dense(w, step, true, first_index, gradient);
      } else {
        undo_step(w, step, first_sample, first_index, psi, gradient, sums);
      }
      __syncthreads();
      flush(w, step, sums, row);
    }
    for_elements(w, first_sample, first_index, false, [&](int e, int64_t at, uint32_t) {
      if (at < 0) return;
      if (to_psi) to_psi[at] = psi[swizzled<T>(e)];
      if (to_gradient) to_gradient[at] = gradient[swizzled<T>(e)];
    });
    __syncthreads();
  }
}

}  // namespace

template <class T>
cudaError_t run_backward(const Run<T>& run, const Tables& tables, const Backward<T>& a,
                         cudaStream_t stream) {
  const Cut cut = cut_of(run.bits, run.batch);
  if (cut.blocks == 0) return cudaSuccess;
  for (size_t i = tables.sweeps.size(); i-- > 0;) {
    const bool first = i + 1 == tables.sweeps.size(), last = i == 0;
    const Walk<T> walk = walk_of(run, tables.sweeps[i]);
    const int elements = 1 << (walk.sweep.bits + walk.sub_bits);
    const int threads = elements / kHeld < kThreads ? elements / kHeld : kThreads;
    const size_t shared =
        2 * elements * sizeof(Complex<T>) + sizeof(T) * 2 * kUses * (threads / 32) * 8;
    const cudaError_t error =
        cuda::launch(backward_kernel<T>, cut.blocks, threads, shared, stream, walk,
                     first ? a.psi : static_cast<const Complex<T>*>(a.psi_work),
                     first ? a.gradient : static_cast<const Complex<T>*>(a.gradient_work),
                     first && a.logical, last ? static_cast<Complex<T>*>(nullptr) : a.psi_work,
                     last ? a.grad_state : a.gradient_work, a.sums);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template cudaError_t run_backward<float>(const Run<float>&, const Tables&, const Backward<float>&,
                                         cudaStream_t);
template cudaError_t run_backward<double>(const Run<double>&, const Tables&,
                                          const Backward<double>&, cudaStream_t);

}  // namespace saccade::statevector
