// One step of a neuron, as the forward and the backward compute it. No product is contracted with a
// sum: spikes are those of the plain formula, bit by bit.
#pragma once

#include "common/cuda_device.cuh"
#include "spiking/cuda_kernel.cuh"

namespace saccade::lif {

// kVec neighbours; four of them are one access.
template <class T, int kVec>
struct alignas(kVec * sizeof(T)) Pack {
  T element[kVec];
};

template <class T, int kVec>
__device__ __forceinline__ void load(const T* from, float (&x)[kVec]) {
  const auto pack = *reinterpret_cast<const Pack<T, kVec>*>(from);
#pragma unroll
  for (int i = 0; i < kVec; ++i) x[i] = cuda::to_float(pack.element[i]);
}

template <class T, int kVec>
__device__ __forceinline__ void store(T* to, const float (&x)[kVec]) {
  Pack<T, kVec> pack;
#pragma unroll
  for (int i = 0; i < kVec; ++i) pack.element[i] = cuda::from_float<T>(x[i]);
  *reinterpret_cast<Pack<T, kVec>*>(to) = pack;
}

template <int kVec>
__device__ __forceinline__ void fill(float x, float (&v)[kVec]) {
#pragma unroll
  for (int i = 0; i < kVec; ++i) v[i] = x;
}

template <int kVec>
__device__ __forceinline__ void load_or(float otherwise, const float* from, int64_t at,
                                        float (&x)[kVec]) {
  if (from != nullptr) {
    load<float, kVec>(from + at, x);
  } else {
    fill<kVec>(otherwise, x);
  }
}

// The constants of kVec neighbouring columns: registers where channels differ, else the same few
// kernel arguments for all.
template <int kVec, bool kChannels>
struct Neurons {
  const Problem& p;
  __device__ __forceinline__ Neurons(const Problem& problem, int) : p(problem) {}
  __device__ __forceinline__ float tau(int) const { return p.tau.number; }
  __device__ __forceinline__ float threshold(int) const { return p.threshold.number; }
  __device__ __forceinline__ float weight(int) const { return 1.f; }
  __device__ __forceinline__ float bias(int) const { return 0.f; }
};

template <int kVec>
struct Neurons<kVec, true> {
  float constant[4][kVec];

  __device__ __forceinline__ Neurons(const Problem& p, int column) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      const int channel = (column + i) / p.inner;
      constant[0][i] = value(p.tau, channel);
      constant[1][i] = value(p.threshold, channel);
      constant[2][i] = p.weight != nullptr ? p.weight[channel] : 1.f;
      constant[3][i] = p.weight != nullptr ? p.bias[channel] : 0.f;
    }
  }
  __device__ __forceinline__ static float value(const Parameter& of, int channel) {
    return of.values != nullptr ? of.values[of.per_channel * channel] : of.number;
  }
  __device__ __forceinline__ float tau(int i) const { return constant[0][i]; }
  __device__ __forceinline__ float threshold(int i) const { return constant[1][i]; }
  __device__ __forceinline__ float weight(int i) const { return constant[2][i]; }
  __device__ __forceinline__ float bias(int i) const { return constant[3][i]; }
};

__device__ __forceinline__ float over_tau(const Problem& p, float x, float tau) {
  return p.inverse != 0.f ? __fmul_rn(x, p.inverse) : __fdiv_rn(x, tau);
}

// The voltage before the neuron fires, h.
__device__ __forceinline__ float charge(const Problem& p, float v, float x, float tau) {
  if (p.charge == Charge::kIntegrate) return __fadd_rn(v, x);
  const float above = __fsub_rn(v, p.v_reset);
  if (p.charge == Charge::kDecayInput) {
    return __fadd_rn(v, over_tau(p, __fsub_rn(x, above), tau));
  }
  return __fadd_rn(__fsub_rn(v, over_tau(p, above, tau)), x);
}

__device__ __forceinline__ bool fires(float h, float threshold) {
  return __fsub_rn(h, threshold) >= 0.f;
}

__device__ __forceinline__ float reset(const Problem& p, float h, float threshold) {
  if (!fires(h, threshold)) return h;
  return p.soft ? __fsub_rn(h, threshold) : p.v_reset;
}

// The input of a step: the affine map and the residual, each rounded as written.
template <class T, int kVec, bool kChannels>
__device__ __forceinline__ void current(const Problem& p, const Neurons<kVec, kChannels>& of,
                                        int64_t step, int64_t at, float (&x)[kVec]) {
  if (kChannels && p.weight != nullptr) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) x[i] = __fadd_rn(__fmul_rn(of.weight(i), x[i]), of.bias(i));
  }
  if (p.residual != nullptr) {
    float residual[kVec];
    load<T, kVec>(static_cast<const T*>(p.residual) + step * p.residual_step + at, residual);
#pragma unroll
    for (int i = 0; i < kVec; ++i) x[i] = __fadd_rn(x[i], residual[i]);
  }
}

// How a block lies over rows and columns: threads go along columns as far as these reach, and what
// is left of the threads goes along rows.
struct Shape {
  int across;  // threads along columns, a power of two
  int column_blocks;

  static Shape over(int64_t columns, int vec, int least) {
    int across = least;
    while (across < kThreads && int64_t{across} * vec < columns) across *= 2;
    const int64_t wide = int64_t{across} * vec;
    return {across, static_cast<int>((columns + wide - 1) / wide)};
  }
  __host__ __device__ int along() const { return kThreads / across; }
};

template <class T, int kVec>
struct Case {};

// Calls run(Case<T, kVec>{}) with the type of x and the number of neighbours of an access.
template <class F>
cudaError_t dispatch(const Problem& p, F run) {
  const auto width = [&]<class T>(T) { return p.aligned ? run(Case<T, 4>{}) : run(Case<T, 1>{}); };
  if (p.dtype == Dtype::kHalf) return width(__half{});
  if (p.dtype == Dtype::kBfloat16) return width(__nv_bfloat16{});
  return width(float{});
}

inline bool has_channels(const Problem& p) {
  return p.tau.values != nullptr || p.threshold.values != nullptr || p.weight != nullptr;
}

}  // namespace saccade::lif
