// Depthwise causal convolution. A team walks a segment of one channel: a warp side by side in time
// where time is contiguous, a single thread where channels are, so that neighbouring threads touch
// neighbouring addresses; taps that overlap come from the first-level cache. The backward walks
// against time and computes the gradient of each sum before the activation once; the next W - 1 of
// them, which an input also reaches, are still in registers. Gradients of weight and bias are
// summed a segment, then over segments and the batch in a fixed order.
#include "scan/cuda_scan.cuh"

namespace saccade::scan_device {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Steps of a segment.
template <int kTeam>
constexpr int kSegment = kTeam == 1 ? 32 : 1024;

bool along_time(const Convolution& c) { return c.x.step == 1 || c.x.row != 1; }

int segments(const Convolution& c) {
  return static_cast<int>(ceil_div(c.length, along_time(c) ? kSegment<32> : kSegment<1>));
}

template <int kTeam>
struct Unit {
  bool here;
  int batch, segment, channel, lane;

  __device__ __forceinline__ Unit(const Convolution& c, int segments) {
    const int64_t unit = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kTeam;
    lane = static_cast<int>(threadIdx.x) % kTeam;
    channel = static_cast<int>(unit % c.channels);
    segment = static_cast<int>(unit / c.channels % segments);
    batch = static_cast<int>(unit / c.channels / segments);
    here = batch < c.batch;
  }
};

// The filter of a channel and its view of the past; entry k meets what is k steps back.
template <int kWidth>
struct Filter {
  float weight[kWidth];
  float bias;
  int64_t x, initial, sequence;  // offsets

  template <int kTeam>
  __device__ __forceinline__ Filter(const Convolution& c, const Unit<kTeam>& unit) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      weight[k] = unit.here && k < c.width
                      ? c.weight[int64_t{unit.channel} * c.width + c.width - 1 - k]
                      : 0.f;
    }
    bias = unit.here && c.bias != nullptr ? c.bias[unit.channel] : 0.f;
    x = unit.batch * c.x.batch + unit.channel * c.x.row;
    initial = unit.batch * c.initial.batch + unit.channel * c.initial.row;
    sequence = unit.batch * c.sequence_batch;
  }

  // Whether step t sees what is k steps back.
  __device__ __forceinline__ bool sees(const Convolution& c, int t, int k) const {
    if (c.sequence == nullptr) return true;
    return t - k >= 0 && c.sequence[sequence + (t - k) * c.sequence_step] ==
                             c.sequence[sequence + t * c.sequence_step];
  }

  __device__ __forceinline__ float sum(const Convolution& c, int t, float (&taps)[kWidth]) const {
    float pre = bias;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      taps[k] = 0.f;
      if (k < c.width && sees(c, t, k)) {
        if (t >= k) {
          taps[k] = load(c.x, x + (t - k) * c.x.step);
        } else if (c.initial.data != nullptr) {
          taps[k] = load(c.initial, initial + (t - k + c.width - 1) * c.initial.step);
        }
        pre = fmaf(weight[k], taps[k], pre);
      }
    }
    return pre;
  }
};

template <int kTeam, int kWidth>
__global__ void __launch_bounds__(kThreads)
    convolution_kernel(const __grid_constant__ ConvolutionForward f, int segments) {
  const Convolution& c = f.problem;
  const Unit<kTeam> unit(c, segments);
  if (!unit.here) return;
  const Filter<kWidth> filter(c, unit);
  const int begin = unit.segment * kSegment<kTeam>;
  const int end = begin + kSegment<kTeam> < c.length ? begin + kSegment<kTeam> : c.length;
  const int64_t to = unit.batch * f.out.batch + unit.channel * f.out.row;
#pragma unroll 2
  for (int t = begin + unit.lane; t < end; t += kTeam) {
    float taps[kWidth];
    const float pre = filter.sum(c, t, taps);
    store(f.out, to + t * f.out.step, c.silu ? pre * sigmoid(pre) : pre);
  }
}

template <int kTeam, int kWidth>
__global__ void __launch_bounds__(kThreads)
    convolution_backward_kernel(const __grid_constant__ ConvolutionBackward f, int segments,
                                float* slots_weight, float* slots_bias) {
  const Convolution& c = f.problem;
  const Unit<kTeam> unit(c, segments);
  const Filter<kWidth> filter(c, unit);
  const int begin = unit.segment * kSegment<kTeam>;
  const int end = begin + kSegment<kTeam> < c.length ? begin + kSegment<kTeam> : c.length;
  const bool reaches_past = unit.segment == 0 && f.grad_initial.data != nullptr;
  const int64_t from_out = unit.batch * f.grad_out.batch + unit.channel * f.grad_out.row;
  const int64_t to_x = unit.batch * f.grad_x.batch + unit.channel * f.grad_x.row;
  const int64_t to_initial = unit.batch * f.grad_initial.batch + unit.channel * f.grad_initial.row;
  // Gradients of the sums at the steps behind the present ones: a warp's next 32, or a thread's.
  constexpr int kAhead = kTeam == 1 ? (kWidth > 1 ? kWidth - 1 : 1) : 1;
  float ahead[kAhead] = {}, of_weight[kWidth] = {}, of_bias = 0.f;
  // Steps behind the segment are computed for what they give to inputs within it.
  const int margin = kTeam == 1 ? c.width - 1 : kTeam;
  const int past = kTeam == 1 ? c.width - 1 : kTeam;
  const int stop = begin - (reaches_past ? past : 0);
  const int tiles = (end - begin + kTeam - 1) / kTeam;
#pragma unroll 1
  for (int first = begin + (tiles - 1) * kTeam + margin; first >= stop; first -= kTeam) {
    const int t = first + unit.lane;
    float here = 0.f;
    if (unit.here && t >= 0 && t < c.length) {
      float taps[kWidth];
      const float pre = filter.sum(c, t, taps);
      here = load(f.grad_out, from_out + t * f.grad_out.step);
      if (c.silu) {
        const float s = sigmoid(pre);
        here *= s * (1.f + pre * (1.f - s));
      }
      if (t < end) {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) of_weight[k] = fmaf(here, taps[k], of_weight[k]);
        of_bias += here;
      }
    }
    float of_x = filter.weight[0] * here;
#pragma unroll
    for (int k = 1; k < kWidth; ++k) {
      if (k >= c.width) break;
      float later;
      if constexpr (kTeam == 1) {
        later = ahead[k - 1];
      } else {
        const int lane = (unit.lane + k) % kTeam;
        const float near = __shfl_sync(cuda::kFullWarp, here, lane);
        const float far = __shfl_sync(cuda::kFullWarp, ahead[0], lane);
        later = unit.lane + k < kTeam ? near : far;
      }
      if (unit.here && t + k >= 0 && t + k < c.length && filter.sees(c, t + k, k)) {
        of_x = fmaf(filter.weight[k], later, of_x);
      }
    }
    if constexpr (kTeam == 1) {
#pragma unroll
      for (int k = kAhead - 1; k > 0; --k) ahead[k] = ahead[k - 1];
    }
    ahead[0] = here;
    if (unit.here && t < end) {
      if (t >= begin) {
        store(f.grad_x, to_x + t * f.grad_x.step, of_x);
      } else if (reaches_past && t + c.width - 1 >= 0) {
        store(f.grad_initial, to_initial + (t + c.width - 1) * f.grad_initial.step, of_x);
      }
    }
  }

  const auto add = [](float x, float y) { return x + y; };
  const int64_t slot = (int64_t{unit.batch} * segments + unit.segment) * c.channels + unit.channel;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    if (k >= c.width) break;
    const float total = cuda::lanes_reduce<1, kTeam>(of_weight[k], add);
    if (unit.here && unit.lane == 0) slots_weight[slot * c.width + c.width - 1 - k] = total;
  }
  of_bias = cuda::lanes_reduce<1, kTeam>(of_bias, add);
  if (unit.here && unit.lane == 0 && slots_bias != nullptr) slots_bias[slot] = of_bias;
}

// Calls run(team, width) with both as template arguments of an object.
template <int kTeam, int kWidth>
struct Kind {};

template <class F>
cudaError_t dispatch(const Convolution& c, F run) {
  if (along_time(c)) return c.width <= 4 ? run(Kind<32, 4>{}) : run(Kind<32, kMostWidth>{});
  return c.width <= 4 ? run(Kind<1, 4>{}) : run(Kind<1, kMostWidth>{});
}

int64_t blocks(const Convolution& c, int team) {
  return ceil_div(int64_t{c.batch} * segments(c) * c.channels * team, kThreads);
}

}  // namespace

int64_t convolution_scratch(const Convolution& c) {
  return int64_t{c.batch} * segments(c) * c.channels * (c.width + 1);
}

cudaError_t convolve_forward(const ConvolutionForward& f, cudaStream_t stream) {
  return dispatch(f.problem, [&]<int kTeam, int kWidth>(Kind<kTeam, kWidth>) {
    return cuda::launch(convolution_kernel<kTeam, kWidth>, blocks(f.problem, kTeam), kThreads, 0,
                        stream, f, segments(f.problem));
  });
}

cudaError_t convolve_backward(const ConvolutionBackward& b, cudaStream_t stream) {
  const Convolution& c = b.problem;
  const int64_t slots = int64_t{c.batch} * segments(c), entries = int64_t{c.channels} * c.width;
  float* const slots_bias = b.grad_bias == nullptr ? nullptr : b.scratch + slots * entries;
  cudaError_t error = dispatch(c, [&]<int kTeam, int kWidth>(Kind<kTeam, kWidth>) {
    return cuda::launch(convolution_backward_kernel<kTeam, kWidth>, blocks(c, kTeam), kThreads, 0,
                        stream, b, segments(c), b.scratch, slots_bias);
  });
  if (error == cudaSuccess) {
    error = sum_slots(b.scratch, b.grad_weight, entries, slots, 1, stream);
  }
  if (error != cudaSuccess || b.grad_bias == nullptr) return error;
  return sum_slots(slots_bias, b.grad_bias, c.channels, slots, 1, stream);
}

}  // namespace saccade::scan_device
