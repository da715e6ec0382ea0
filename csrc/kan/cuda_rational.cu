// Grouped rational functions: one pass over x [N, G, L], coefficients in registers, 16 bytes at a
// time where L allows. Sums for coefficients stay in registers over a fixed share of a group, are
// added within the block in a fixed order, and go to a slot of the block.
#include "kan/cuda_plan.cuh"

namespace saccade::kan_gpu {
namespace {

constexpr int kShare = 8192;      // elements of a block, at least
constexpr int kMostBlocks = 512;  // of a group

// Coefficients padded with zeros, which an infinite x turns into NaN.
template <int kNumerator, int kDenominator>
struct Coefficients {
  float a[kNumerator], b[kDenominator];
};

template <class T, int kNumerator, int kDenominator>
__device__ __forceinline__ Coefficients<kNumerator, kDenominator> load_coefficients(
    const Rational& p, int group) {
  Coefficients<kNumerator, kDenominator> c;
  const T* const a = static_cast<const T*>(p.a) + (p.shared_numerator ? 0 : group * p.numerator);
  const T* const b =
      static_cast<const T*>(p.b) + (p.shared_denominator ? 0 : group * p.denominator);
#pragma unroll
  for (int k = 0; k < kNumerator; ++k) c.a[k] = k < p.numerator ? cuda::to_float(a[k]) : 0.f;
#pragma unroll
  for (int k = 0; k < kDenominator; ++k)
    c.b[k] = k < p.denominator ? fabsf(cuda::to_float(b[k])) : 0.f;
  return c;
}

struct Parts {
  float p, p_slope, q, q_slope;  // the denominator's slope by |x|
};

template <int kNumerator, int kDenominator>
__device__ __forceinline__ Parts evaluate_parts(const Coefficients<kNumerator, kDenominator>& c,
                                                float x) {
  const float size = fabsf(x);
  Parts parts{0.f, 0.f, 0.f, 0.f};
#pragma unroll
  for (int k = kNumerator - 1; k >= 0; --k) {
    parts.p_slope = parts.p_slope * x + parts.p;
    parts.p = parts.p * x + c.a[k];
  }
#pragma unroll
  for (int k = kDenominator - 1; k >= 0; --k) {
    parts.q_slope = parts.q_slope * size + parts.q;
    parts.q = parts.q * size + c.b[k];
  }
  parts.q_slope = parts.q_slope * size + parts.q;
  parts.q = 1.f + parts.q * size;
  return parts;
}

// Calls f(index, count) for pieces of kVector elements (one where L has no whole pieces) of the
// block's share of a group.
template <class T, class F>
__device__ __forceinline__ void for_each_piece(const Rational& p, int group, int block, int blocks,
                                               F f) {
  const int step = p.length % cuda::kVector<T> == 0 ? cuda::kVector<T> : 1;
  const int64_t line = p.length / step, pieces = p.batch * line;
  const int64_t first = pieces * block / blocks, last = pieces * (block + 1) / blocks;
  // no division in the loop: a 64-bit one costs as much as the function itself
  int64_t item = (first + threadIdx.x) / line, along = (first + threadIdx.x) % line;
  const int64_t items = kThreads / line, more = kThreads % line;
  for (int64_t piece = first + threadIdx.x; piece < last; piece += kThreads) {
    f((item * p.groups + group) * p.length + along * step, step);
    item += items, along += more;
    if (along >= line) along -= line, ++item;
  }
}

// A tensor of the caller's may start anywhere.
__device__ __forceinline__ bool is_aligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

template <class T>
__device__ __forceinline__ cuda::Vector<T> load_piece(const void* data, int64_t at, int step) {
  const T* const from = static_cast<const T*>(data) + at;
  if (step == cuda::kVector<T> && is_aligned(data))
    return *reinterpret_cast<const cuda::Vector<T>*>(from);
  cuda::Vector<T> v;
#pragma unroll
  for (int i = 0; i < cuda::kVector<T>; ++i) v.element[i] = i < step ? from[i] : from[0];
  return v;
}

template <class T>
__device__ __forceinline__ void store_piece(void* data, int64_t at, int step,
                                            const cuda::Vector<T>& v) {
  T* const to = static_cast<T*>(data) + at;
  if (step == cuda::kVector<T>) {
    *reinterpret_cast<cuda::Vector<T>*>(to) = v;
  } else {
    *to = v.element[0];
  }
}

template <class T, int kNumerator, int kDenominator>
__global__ void __launch_bounds__(kThreads)
    rational_forward_kernel(const __grid_constant__ Rational p, int blocks) {
  const int group = static_cast<int>(blockIdx.x) / blocks;
  const auto c = load_coefficients<T, kNumerator, kDenominator>(p, group);
  for_each_piece<T>(p, group, static_cast<int>(blockIdx.x) % blocks, blocks,
                    [&](int64_t at, int step) {
                      cuda::Vector<T> v = load_piece<T>(p.x, at, step);
#pragma unroll
                      for (int i = 0; i < cuda::kVector<T>; ++i) {
                        if (i >= step) break;
                        const Parts parts = evaluate_parts(c, cuda::to_float(v.element[i]));
                        v.element[i] = cuda::from_float<T>(parts.p / parts.q);
                      }
                      store_piece<T>(p.y, at, step, v);
                    });
}

template <class T, int kNumerator, int kDenominator>
__global__ void __launch_bounds__(kThreads)
    rational_backward_kernel(const __grid_constant__ Rational p, int blocks) {
  constexpr int kSums = kNumerator + kDenominator;
  const int group = static_cast<int>(blockIdx.x) / blocks;
  const int block = static_cast<int>(blockIdx.x) % blocks;
  const auto c = load_coefficients<T, kNumerator, kDenominator>(p, group);
  float sum[kSums];
#pragma unroll
  for (int k = 0; k < kSums; ++k) sum[k] = 0.f;
  for_each_piece<T>(p, group, block, blocks, [&](int64_t at, int step) {
    cuda::Vector<T> v = load_piece<T>(p.x, at, step);
    const cuda::Vector<T> grads = load_piece<T>(p.grad_out, at, step);
#pragma unroll
    for (int i = 0; i < cuda::kVector<T>; ++i) {
      if (i >= step) break;
      const float x = cuda::to_float(v.element[i]), size = fabsf(x);
      const Parts parts = evaluate_parts(c, x);
      const float inverse = 1.f / parts.q, share = cuda::to_float(grads.element[i]) * inverse;
      const float y = parts.p * inverse;
      const float slope = x < 0.f ? -parts.q_slope : parts.q_slope;
      v.element[i] = cuda::from_float<T>(share * (parts.p_slope - y * slope));
      float power = share;
#pragma unroll
      for (int k = 0; k < kNumerator; ++k) {
        sum[k] += power;
        power *= x;
      }
      power = -share * y;
#pragma unroll
      for (int k = 0; k < kDenominator; ++k) {
        power *= size;
        sum[kNumerator + k] += power;
      }
    }
    store_piece<T>(p.grad_x, at, step, v);
  });
  float* const warps = cuda::dynamic_shared<float>();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    const float total = cuda::lanes_reduce<1, 32>(sum[k], [](float a, float b) { return a + b; });
    if (lane == 0) warps[warp * kSums + k] = total;
  }
  __syncthreads();
  const int k = static_cast<int>(threadIdx.x);
  if (k >= kSums) return;
  float total = 0.f;
  for (int w = 0; w < kThreads / 32; ++w) total += warps[w * kSums + k];
  const int64_t slot = int64_t{block} * p.groups + group;
  if (k < p.numerator && k < kNumerator) p.slots_a[slot * p.numerator + k] = total;
  const int j = k - kNumerator;
  if (j >= 0 && j < p.denominator) {
    const T* const b =
        static_cast<const T*>(p.b) + (p.shared_denominator ? 0 : group * p.denominator);
    p.slots_b[slot * p.denominator + j] = cuda::to_float(b[j]) < 0.f ? -total : total;
  }
}

// Calls f<T, orders>: those of the Kolmogorov-Arnold transformer, or the highest.
template <class F>
cudaError_t dispatch_orders(const Rational& p, F f) {
  return dispatch(p.dtype, [&]<class T>(T) {
    if (p.numerator <= 6 && p.denominator <= 4) return f.template operator()<T, 6, 4>();
    return f.template operator()<T, kMostNumerator, kMostDenominator>();
  });
}

cudaError_t sum_coefficients(const Rational& p, const float* slots, bool shared, int count,
                             void* target, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  // shared coefficients: the groups are slots too
  const int64_t entries = shared ? count : int64_t{p.groups} * count;
  return sum_slots(slots, rational_slots(p) * p.groups * count / entries, entries,
                   contiguous_target(target, p.dtype, entries), stream);
}

}  // namespace

int64_t rational_slots(const Rational& p) {
  const int64_t shares = ceil_div<int64_t>(p.batch * p.length, kShare);
  return shares < kMostBlocks ? shares : kMostBlocks;
}

cudaError_t rational_forward(const Rational& p, cudaStream_t stream) {
  // no sums: as many blocks as there is work
  const int64_t shares = ceil_div<int64_t>(p.batch * p.length, kShare / 2);
  const int blocks = static_cast<int>(shares < (1 << 20) ? shares : (1 << 20));
  return dispatch_orders(p, [&]<class T, int kNumerator, int kDenominator>() {
    return cuda::launch(rational_forward_kernel<T, kNumerator, kDenominator>,
                        int64_t{blocks} * p.groups, kThreads, 0, stream, p, blocks);
  });
}

cudaError_t rational_backward(const Rational& p, cudaStream_t stream) {
  const int blocks = static_cast<int>(rational_slots(p));
  cudaError_t error = dispatch_orders(p, [&]<class T, int kNumerator, int kDenominator>() {
    return cuda::launch(
        rational_backward_kernel<T, kNumerator, kDenominator>, int64_t{blocks} * p.groups, kThreads,
        kThreads / 32 * (kNumerator + kDenominator) * sizeof(float), stream, p, blocks);
  });
  if (error == cudaSuccess)
    error = sum_coefficients(p, p.slots_a, p.shared_numerator, p.numerator, p.grad_a, stream);
  if (error == cudaSuccess)
    error = sum_coefficients(p, p.slots_b, p.shared_denominator, p.denominator, p.grad_b, stream);
  return error;
}

}  // namespace saccade::kan_gpu
