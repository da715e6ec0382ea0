// The small kernels around the scan: what flows from segment to segment, sums over slots, and sums
// over paths.
#include "scan/cuda_scan.cuh"

namespace saccade::scan_device {
namespace {

constexpr int64_t kMostBlocks = 65536;
constexpr int kSumThreads = 256;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

unsigned blocks_for(int64_t count) {
  const int64_t blocks = ceil_div(count, kSumThreads);
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

// Calls visit(i) for all i below count.
template <class F>
__device__ __forceinline__ void for_each(int64_t count, F visit) {
  const int64_t step = int64_t{gridDim.x} * kSumThreads;
  for (int64_t i = int64_t{blockIdx.x} * kSumThreads + threadIdx.x; i < count; i += step) visit(i);
}

__global__ void __launch_bounds__(kSumThreads)
    carry_kernel(const float* first, const float* decay, float* inflow, int64_t rows,
                 int64_t states, int segments, bool backwards) {
  for_each(rows * states, [&](int64_t i) {
    const int64_t row = i / states, state = i % states;
    float flow = first == nullptr ? 0.f : first[i];
    for (int s = 0; s < segments; ++s) {
      const int segment = backwards ? segments - 1 - s : s;
      const int64_t at = (row * segments + segment) * states + state;
      const float kept = decay[at], added = inflow[at];
      inflow[at] = flow;
      flow = kept == kDropped ? added : fmaf(kept, flow, added);
    }
  });
}

__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(const float* table, float* out, int64_t entries, int64_t slots, int share) {
  for_each(entries, [&](int64_t entry) {
    float sum = 0.f;
    for (int64_t slot = 0; slot < slots; ++slot) {
      for (int i = 0; i < share; ++i) sum += table[(slot * entries + entry) * share + i];
    }
    out[entry] = sum;
  });
}

__global__ void __launch_bounds__(kSumThreads)
    inputs_kernel(const __grid_constant__ Problem p, const float* table, int slots,
                  const __grid_constant__ View out) {
  const int64_t rows = int64_t{p.batch} * p.paths * p.groups * p.states;
  for_each(rows * p.length, [&](int64_t i) {
    const int step = static_cast<int>(i % p.length);
    int64_t row = i / p.length;
    float sum = 0.f;
    for (int slot = 0; slot < slots; ++slot) sum += table[slot * rows * p.length + i];
    const int64_t state = row % p.states;
    row /= p.states;
    const int64_t group = row % p.groups;
    row /= p.groups;
    const int path = static_cast<int>(row % p.paths);
    store(out,
          row / p.paths * out.batch + path * out.path + group * out.row + state * out.state +
              position(p, p.directions[path], step) * out.step,
          sum);
  });
}

__global__ void __launch_bounds__(kSumThreads)
    heads_kernel(const __grid_constant__ Problem p, const float* table,
                 const __grid_constant__ View out) {
  const int heads = p.channels / p.share;
  for_each(int64_t{p.batch} * heads * p.length, [&](int64_t i) {
    const int64_t row = i / p.length, at = i % p.length;
    float sum = 0.f;
    for (int channel = 0; channel < p.share; ++channel) {
      sum += table[(row * p.share + channel) * p.length + at];
    }
    store(out, row / heads * out.batch + row % heads * out.row + at * out.step, sum);
  });
}

// The entry's batch, channel and position.
struct Entry {
  int64_t batch, channel, at;
  __device__ __forceinline__ Entry(const Problem& p, int64_t i)
      : batch(i / p.length / p.channels), channel(i / p.length % p.channels), at(i % p.length) {}
  __device__ __forceinline__ int64_t in(const View& view) const {
    return batch * view.batch + channel * view.row + at * view.step;
  }
};

__device__ __forceinline__ float sum_paths(const Problem& p, const float* table, int64_t i) {
  const int64_t all = int64_t{p.batch} * p.channels * p.length;
  float sum = 0.f;
  for (int path = 0; path < p.paths; ++path) sum += table[path * all + i];
  return sum;
}

__global__ void __launch_bounds__(kSumThreads)
    outputs_kernel(const __grid_constant__ Problem p, const float* table,
                   const __grid_constant__ View out) {
  for_each(int64_t{p.batch} * p.channels * p.length, [&](int64_t i) {
    const Entry entry(p, i);
    float y = sum_paths(p, table, i);
    if (p.z.data != nullptr) {
      const float z = load(p.z, entry.in(p.z));
      y *= z * sigmoid(z);
    }
    store(out, entry.in(out), y);
  });
}

__global__ void __launch_bounds__(kSumThreads)
    gradients_kernel(const __grid_constant__ Problem p, const __grid_constant__ View grad_out,
                     const float* table, const float* y, const __grid_constant__ View grad_u,
                     const __grid_constant__ View grad_z) {
  for_each(int64_t{p.batch} * p.channels * p.length, [&](int64_t i) {
    const Entry entry(p, i);
    store(grad_u, entry.in(grad_u), sum_paths(p, table, i));
    if (p.z.data == nullptr) return;
    const float z = load(p.z, entry.in(p.z)), s = sigmoid(z);
    const float out = load(grad_out, entry.in(grad_out));
    store(grad_z, entry.in(grad_z), out * sum_paths(p, y, i) * s * (1.f + z * (1.f - s)));
  });
}

}  // namespace

cudaError_t carry(const Problem& p, int segments, const float* first, const float* decay,
                  float* inflow, bool backwards, cudaStream_t stream) {
  const int64_t rows = int64_t{p.batch} * p.paths, states = int64_t{p.channels} * p.states;
  return cuda::launch(carry_kernel, blocks_for(rows * states), kSumThreads, 0, stream, first, decay,
                      inflow, rows, states, segments, backwards);
}

cudaError_t sum_slots(const float* table, float* out, int64_t entries, int64_t slots, int share,
                      cudaStream_t stream) {
  return cuda::launch(sum_kernel, blocks_for(entries), kSumThreads, 0, stream, table, out, entries,
                      slots, share);
}

cudaError_t sum_inputs(const Problem& p, const float* table, int slots, const View& out,
                       cudaStream_t stream) {
  const int64_t count = int64_t{p.batch} * p.paths * p.groups * p.states * p.length;
  return cuda::launch(inputs_kernel, blocks_for(count), kSumThreads, 0, stream, p, table, slots,
                      out);
}

cudaError_t sum_heads(const Problem& p, const float* table, const View& out, cudaStream_t stream) {
  const int64_t count = int64_t{p.batch} * (p.channels / p.share) * p.length;
  return cuda::launch(heads_kernel, blocks_for(count), kSumThreads, 0, stream, p, table, out);
}

cudaError_t join_outputs(const Problem& p, const float* table, const View& out,
                         cudaStream_t stream) {
  const int64_t count = int64_t{p.batch} * p.channels * p.length;
  return cuda::launch(outputs_kernel, blocks_for(count), kSumThreads, 0, stream, p, table, out);
}

cudaError_t join_gradients(const Problem& p, const View& grad_out, const float* table,
                           const float* y, const View& grad_u, const View& grad_z,
                           cudaStream_t stream) {
  const int64_t count = int64_t{p.batch} * p.channels * p.length;
  return cuda::launch(gradients_kernel, blocks_for(count), kSumThreads, 0, stream, p, grad_out,
                      table, y, grad_u, grad_z);
}

}  // namespace saccade::scan_device
