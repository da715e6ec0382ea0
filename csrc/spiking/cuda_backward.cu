// Backward. A thread owns one or four neighbouring columns and a share of their rows. It runs the
// neurons of a row forward again, keeping voltages of a segment of steps in shared memory, and
// walks the segment back; of earlier segments only the voltage at their start is kept. Nothing but
// x is needed from the forward. Sums over neurons (gradients of tau, threshold, weight and bias)
// stay in registers over a share and become one number a column; sum_kernel adds these in a fixed
// order.
#include "spiking/cuda_neuron.cuh"
#include "spiking/cuda_surrogate.cuh"

namespace saccade::lif {
namespace {

constexpr int kAhead = 4;
constexpr int kLeastBlocks = 4;  // of a multiprocessor: leaves enough registers not to spill
constexpr int kSumThreads = 256;
constexpr int64_t kPartEntries = 8192;       // entries of a block of sum_kernel
constexpr int64_t kWantedThreads = 1 << 18;  // fills any device of today, and the same on all

template <class T, int kVec, bool kChannels>
struct Walk {
  const Problem& p;
  const Neurons<kVec, kChannels>& of;
  const T* x;
  int64_t at;
  float* voltage;  // of this thread in shared memory: [kSegment, kThreads, kVec]

  __device__ __forceinline__ float* kept(int i) const { return voltage + i * kThreads * kVec; }

  // Runs steps [begin, end) from v, keeping h where asked.
  template <bool kKeep>
  __device__ __forceinline__ void run(int64_t begin, int64_t end, float (&v)[kVec]) const {
    for (int64_t first = begin; first < end; first += kAhead) {
      float ahead[kAhead][kVec];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first + i < end) {
          load<T, kVec>(x + (first + i) * p.x_step, ahead[i]);
        } else {
          fill<kVec>(0.f, ahead[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t step = first + i;
        if (step >= end) break;
        current<T>(p, of, step, at, ahead[i]);
        float h[kVec];
#pragma unroll
        for (int j = 0; j < kVec; ++j) {
          h[j] = charge(p, v[j], ahead[i][j], of.tau(j));
          v[j] = reset(p, h[j], of.threshold(j));
        }
        if constexpr (kKeep) store<float, kVec>(kept(static_cast<int>(step - begin)), h);
      }
    }
  }
};

template <class T, int kVec, bool kChannels, bool kSum>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    backward_kernel(const __grid_constant__ Backward b, const Shape shape, const int64_t slots,
                    const int64_t share) {
  const Problem& p = b.problem;
  const int thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x);
  const int64_t slot = int64_t{block / shape.column_blocks} * shape.along() + thread / shape.across;
  const int column = (block % shape.column_blocks * shape.across + thread % shape.across) * kVec;
  if (slot >= slots || column >= p.columns) return;
  const Neurons<kVec, kChannels> of(p, column);
  const int64_t neurons = p.rows * p.columns;
  const int64_t last_row = (slot + 1) * share < p.rows ? (slot + 1) * share : p.rows;
  const int64_t last = (p.steps - 1) / kSegment;
  float sum[kSums][kVec];
#pragma unroll
  for (int k = 0; k < kSums; ++k) fill<kVec>(0.f, sum[k]);

  for (int64_t row = slot * share; row < last_row; ++row) {
    const int64_t at = row * p.columns + column;
    const Walk<T, kVec, kChannels> walk{p, of, static_cast<const T*>(p.x) + at, at,
                                        cuda::dynamic_shared<float>() + thread * kVec};
    float v[kVec], carry[kVec];
    load_or<kVec>(p.v_reset, p.v0, at, v);
    load_or<kVec>(0.f, b.grad_v_last, at, carry);
    for (int64_t segment = 0; segment < last; ++segment) {
      walk.template run<false>(segment * kSegment, (segment + 1) * kSegment, v);
      store<float, kVec>(b.checkpoints + segment * neurons + at, v);
    }
    for (int64_t segment = last; segment >= 0; --segment) {
      const int64_t begin = segment * kSegment;
      const int64_t end = segment == last ? p.steps : begin + kSegment;
      if (segment < last) {
        if (segment > 0) {
          load<float, kVec>(b.checkpoints + (segment - 1) * neurons + at, v);
        } else {
          load_or<kVec>(p.v_reset, p.v0, at, v);
        }
      }
      float start[kVec];
#pragma unroll
      for (int j = 0; j < kVec; ++j) start[j] = v[j];
      walk.template run<true>(begin, end, v);

      for (int64_t first = end - 1; first >= begin; first -= kAhead) {
        float grad_spikes[kAhead][kVec];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          if (b.grad_spikes != nullptr && first - i >= begin) {
            load<T, kVec>(static_cast<const T*>(b.grad_spikes) + (first - i) * b.grad_step + at,
                          grad_spikes[i]);
          } else {
            fill<kVec>(0.f, grad_spikes[i]);
          }
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          const int64_t step = first - i;
          if (step < begin) break;
          float h[kVec], before[kVec], raw[kVec], input[kVec], grad[kVec];
          load<float, kVec>(walk.kept(static_cast<int>(step - begin)), h);
          if constexpr (kSum) {
            load<T, kVec>(walk.x + step * p.x_step, raw);
#pragma unroll
            for (int j = 0; j < kVec; ++j) {
              input[j] = raw[j];
              before[j] = start[j];
            }
            current<T>(p, of, step, at, input);
            if (step > begin) {
              load<float, kVec>(walk.kept(static_cast<int>(step - begin) - 1), before);
#pragma unroll
              for (int j = 0; j < kVec; ++j) before[j] = reset(p, before[j], of.threshold(j));
            }
          }
          if (b.grad_v_seq != nullptr) {
            load<float, kVec>(b.grad_v_seq + step * neurons + at, grad);
#pragma unroll
            for (int j = 0; j < kVec; ++j) carry[j] += grad[j];
          }
#pragma unroll
          for (int j = 0; j < kVec; ++j) {
            // carry is the gradient of the voltage after the reset
            const bool s = fires(h[j], of.threshold(j));
            const float slope = surrogate(p.surrogate, p.alpha, h[j] - of.threshold(j));
            float of_spike = grad_spikes[i][j];
            if (!p.detach) of_spike += carry[j] * (p.soft ? -of.threshold(j) : p.v_reset - h[j]);
            const float through = of_spike * slope;
            const float of_charge = through + (s && !p.soft ? 0.f : carry[j]);
            float of_input = of_charge;
            if constexpr (kSum) {
              sum[1][j] -= through;
              if (s && p.soft) sum[1][j] -= carry[j];
            }
            if (p.charge == Charge::kIntegrate) {
              carry[j] = of_charge;
            } else {
              const float shared = over_tau(p, of_charge, of.tau(j));
              if (p.charge == Charge::kDecayInput) of_input = shared;
              carry[j] = of_charge - shared;
              if constexpr (kSum) {
                const float x = p.charge == Charge::kDecayInput ? input[j] : 0.f;
                sum[0][j] -= shared / of.tau(j) * (x - (before[j] - p.v_reset));
              }
            }
            grad[j] = of_input;
            if constexpr (kSum) {
              sum[2][j] += of_input * raw[j];
              sum[3][j] += of_input;
            }
          }
          const int64_t to = step * neurons + at;
          if (b.grad_residual != nullptr)
            store<T, kVec>(static_cast<T*>(b.grad_residual) + to, grad);
          if (b.grad_x == nullptr) continue;
          if (kChannels && p.weight != nullptr) {
#pragma unroll
            for (int j = 0; j < kVec; ++j) grad[j] *= of.weight(j);
          }
          store<T, kVec>(static_cast<T*>(b.grad_x) + to, grad);
        }
      }
    }
    if (b.grad_v0 != nullptr) store<float, kVec>(b.grad_v0 + at, carry);
  }
  if constexpr (kSum) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      store<float, kVec>(b.partial + (k * slots + slot) * p.columns + column, sum[k]);
    }
  }
}

// A block adds up one part of one group: entries [part, part + 1) * kPartEntries of the slots' sums
// of the group's columns. partial is [slots, groups, inner], sum [parts, groups].
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(const float* partial, float* sum, int slots, int groups, int inner) {
  __shared__ float of_thread[kSumThreads];
  const int thread = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  const int group = block % groups;
  const int64_t entries = int64_t{slots} * inner, begin = block / groups * kPartEntries;
  const int64_t end = begin + kPartEntries < entries ? begin + kPartEntries : entries;
  float total = 0.f;
  for (int64_t entry = begin + thread; entry < end; entry += kSumThreads) {
    total += partial[(entry / inner * groups + group) * inner + entry % inner];
  }
  of_thread[thread] = total;
  for (int half = kSumThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) of_thread[thread] += of_thread[thread + half];
  }
  if (thread == 0) sum[blockIdx.x] = of_thread[0];
}

int columns_of(const Problem& p, bool per_channel) { return per_channel ? p.inner : p.columns; }

int64_t parts_of(int64_t entries) { return (entries + kPartEntries - 1) / kPartEntries; }

// The sum over the slots of a parameter, part by part until one is left.
cudaError_t sum(const Problem& p, const float* partial, bool per_channel, float* scratch, float* to,
                cudaStream_t stream) {
  const int groups = p.columns / columns_of(p, per_channel);
  int count = static_cast<int>(slots(p)), inner = columns_of(p, per_channel);
  for (;;) {
    const int64_t left = parts_of(int64_t{count} * inner);
    float* const into = left > 1 ? scratch : to;
    const cudaError_t error = cuda::launch(sum_kernel, left * groups, kSumThreads, 0, stream,
                                           partial, into, count, groups, inner);
    if (error != cudaSuccess || left == 1) return error;
    partial = scratch;
    scratch += left * groups;
    count = static_cast<int>(left);
    inner = 1;
  }
}

}  // namespace

int64_t slots(const Problem& p) {
  const Shape shape = Shape::over(p.columns, p.aligned ? 4 : 1, 1);
  const int64_t wanted = kWantedThreads / (int64_t{shape.column_blocks} * shape.across);
  return wanted < 1 ? 1 : wanted < p.rows ? wanted : p.rows;
}

int64_t part_numbers(const Problem& p, bool per_channel) {
  int64_t numbers = 0, left = slots(p) * columns_of(p, per_channel);
  while ((left = parts_of(left)) > 1) numbers += left;
  return numbers * (p.columns / columns_of(p, per_channel));
}

cudaError_t backward(const Backward& b, cudaStream_t stream) {
  const Problem& p = b.problem;
  const bool sums = b.partial != nullptr;
  const int64_t count = sums ? slots(p) : p.rows, share = (p.rows + count - 1) / count;
  const int64_t kept = p.steps < kSegment ? p.steps : kSegment;
  cudaError_t error = dispatch(p, [&]<class T, int kVec>(Case<T, kVec>) {
    const Shape shape = Shape::over(p.columns, kVec, 1);
    const int64_t blocks = shape.column_blocks * ((count + shape.along() - 1) / shape.along());
    const size_t shared = sizeof(float) * kThreads * kVec * static_cast<size_t>(kept);
    const auto kernel = sums              ? backward_kernel<T, kVec, true, true>
                        : has_channels(p) ? backward_kernel<T, kVec, true, false>
                                          : backward_kernel<T, kVec, false, false>;
    return cuda::launch(kernel, blocks, kThreads, shared, stream, b, shape, count, share);
  });
  float* const wanted[kSums] = {b.grad_tau, b.grad_threshold, b.grad_weight, b.grad_bias};
  const bool per_channel[kSums] = {p.tau.per_channel != 0, p.threshold.per_channel != 0, true,
                                   true};
  for (int k = 0; k < kSums && error == cudaSuccess; ++k) {
    if (wanted[k] == nullptr) continue;
    error = sum(p, b.partial + k * count * p.columns, per_channel[k], b.parts, wanted[k], stream);
  }
  return error;
}

}  // namespace saccade::lif
