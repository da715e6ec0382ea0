// The quadratic problem of every batch entry, one block each: all warps add the partial sums in the
// order of the slots, then one warp solves in shared memory, its lanes sharing rows and table.
// Whether there is work is decided on the device, so nothing waits for the host.
#include "common/cuda_device.cuh"
#include "gem/cuda_kernel.cuh"

#define SACCADE_GEM_NAMESPACE device
#define SACCADE_GEM_FUNCTION __host__ __device__ __forceinline__
#include "gem/nnqp.inl"

namespace saccade::gem {
namespace {

constexpr int kSolverThreads = 256;
constexpr int kSolverWarps = kSolverThreads / 32;

struct Warp {
  int lane;

  template <class F>
  __device__ void each(int count, const F& f) const {
    for (int i = lane; i < count; i += 32) f(i);
  }
  template <class F>
  __device__ void grid(int rows, int columns, const F& f) const {
    for (int i = lane; i < rows * columns; i += 32) f(i / columns, i % columns);
  }
  template <class F>
  __device__ double sum(int count, const F& f) const {
    double total = 0.0;
    for (int i = lane; i < count; i += 32) total += f(i);
    for (int bit = 16; bit > 0; bit /= 2) total += __shfl_xor_sync(cuda::kFullWarp, total, bit);
    return total;
  }
  // The first index with the largest positive value, or -1.
  template <class F>
  __device__ int best(int count, const F& f) const {
    int index = -1;
    double largest = 0.0;
    for (int i = lane; i < count; i += 32) {
      const double value = f(i);
      if (value > largest) {
        largest = value;
        index = i;
      }
    }
    for (int bit = 16; bit > 0; bit /= 2) {
      const double other = __shfl_xor_sync(cuda::kFullWarp, largest, bit);
      const int other_index = __shfl_xor_sync(cuda::kFullWarp, index, bit);
      const bool sooner = other_index >= 0 && (index < 0 || other_index < index);
      if (other > largest || (other == largest && sooner)) {
        largest = other;
        index = other_index;
      }
    }
    return index;
  }
  __device__ void subtract_outer(double* table, const double* vector, double scale, int t,
                                 int ld) const {
    grid(t, ld, [&](int i, int j) { table[i * ld + j] -= vector[i] * scale * vector[j]; });
  }
  __device__ bool leads() const { return lane == 0; }
  __device__ void sync() const { __syncwarp(); }
};

// The sum over all slots of one entry, by the lanes of a warp.
__device__ __forceinline__ double sum_slots(const double* first, int64_t slots, int64_t stride,
                                            int lane) {
  double total = 0.0;
  for (int64_t i = lane; i < slots; i += 32) total += first[i * stride];
  for (int bit = 16; bit > 0; bit /= 2) total += __shfl_xor_sync(cuda::kFullWarp, total, bit);
  return total;
}

// Row and column of an entry of a packed lower triangle.
__device__ __forceinline__ void unpack(int entry, int& row, int& column) {
  row = 0;
  while ((row + 1) * (row + 2) / 2 <= entry) ++row;
  column = entry - row * (row + 1) / 2;
}

// The packed lower triangle of t + 1 rows from the partial sums of gram, by all warps of the block.
__device__ __forceinline__ void sum_products(const Solve& s, int64_t b, double* packed) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int rows = s.rows + 1, blocks = (s.rows + kBlock) / kBlock;
  const int64_t pairs = blocks * (blocks + 1) / 2;
  for (int entry = warp; entry < rows * (rows + 1) / 2; entry += kSolverWarps) {
    int i, j;
    unpack(entry, i, j);
    const int upper = i / kBlock, lower = j / kBlock;
    const int64_t pair = upper * (upper + 1) / 2 + lower;
    const double* const first = s.partials + (b * pairs + pair) * s.slots * kBlock * kBlock +
                                i % kBlock * kBlock + j % kBlock;
    const double sum = sum_slots(first, s.slots, kBlock * kBlock, lane);
    if (lane == 0) packed[entry] = sum;
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kSolverThreads) solve_kernel(const __grid_constant__ Solve s) {
  const int64_t b = blockIdx.x;
  const int t = s.rows;
  double* const packed = cuda::dynamic_shared<double>();
  const int size = (t + 1) * (t + 2) / 2;
  if (s.partials != nullptr) {
    sum_products(s, b, packed);
    for (int k = static_cast<int>(threadIdx.x); k < t * t; k += kSolverThreads) {
      const int i = k / t, j = k % t;
      const double value = i > j ? packed[i * (i + 1) / 2 + j] : packed[j * (j + 1) / 2 + i];
      if (s.gram_out != nullptr) s.gram_out[b * t * t + k] = value;
    }
    if (s.dot_out != nullptr) {
      for (int i = static_cast<int>(threadIdx.x); i < t; i += kSolverThreads) {
        s.dot_out[b * t + i] = packed[t * (t + 1) / 2 + i];
      }
      return;
    }
  }
  if (threadIdx.x >= 32) return;
  const Warp team{static_cast<int>(threadIdx.x)};
  const device::Space space(t, packed + size);
  const auto gram_at = [&](int i, int j) {
    if (s.partials != nullptr) {
      return i > j ? packed[i * (i + 1) / 2 + j] : packed[j * (j + 1) / 2 + i];
    }
    const double* const gram = s.gram + b * t * t;
    return 0.5 * (gram[i * t + j] + gram[j * t + i]);
  };
  const auto linear_at = [&](int i) {
    const double slack = s.slack != nullptr ? s.slack[b * t + i] : 0.0;
    const double dot = s.partials != nullptr ? packed[t * (t + 1) / 2 + i] : s.linear[b * t + i];
    return slack == device::kInfinity ? device::kInfinity : dot + slack;
  };
  bool calm, finite;
  device::load(team, space, gram_at, linear_at, s.lower, s.ridge, calm, finite);
  const int32_t status =
      device::solve(team, space, s.lower, s.always, calm, finite, s.tolerance, s.dual + b * t);
  if (team.leads()) s.status[b] = status;
}

__global__ void __launch_bounds__(kSolverThreads)
    solve_active_kernel(const __grid_constant__ Solve s, double* minus_y) {
  const int64_t b = blockIdx.x;
  const int t = s.rows;
  double* const dots = cuda::dynamic_shared<double>();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int i = warp; i < t; i += kSolverWarps) {
    const double sum = sum_slots(s.partials + b * s.slots * t + i, s.slots, t, lane);
    if (lane == 0) dots[i] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  const Warp team{lane};
  const device::Space space(t, dots + kMostRows);
  const double* const gram = s.gram + b * t * t;
  const double* const dual = s.dual + b * t;
  bool calm, finite;
  device::load(
      team, space, [&](int i, int j) { return gram[i * t + j]; },
      [&](int i) { return dual[i] > s.lower ? dots[i] : device::kInfinity; }, 0.0, s.ridge, calm,
      finite);
  team.each(space.ld, [&](int i) { space.active[i] = i < t && dual[i] > s.lower ? 1.0 : 0.0; });
  team.sync();
  device::solve_active(team, space, s.tolerance, minus_y + b * t);
  team.each(t, [&](int i) { minus_y[b * t + i] = -minus_y[b * t + i]; });
}

}  // namespace

cudaError_t solve(const Solve& s, cudaStream_t stream) {
  const int64_t packed = int64_t{s.rows + 1} * (s.rows + 2) / 2;
  const size_t shared = sizeof(double) * static_cast<size_t>(packed + device::Space::size(s.rows));
  return cuda::launch(solve_kernel, s.batch, kSolverThreads, shared, stream, s);
}

cudaError_t solve_active(const Solve& s, double* minus_y, cudaStream_t stream) {
  const size_t shared =
      sizeof(double) * static_cast<size_t>(kMostRows + device::Space::size(s.rows));
  return cuda::launch(solve_active_kernel, s.batch, kSolverThreads, shared, stream, s, minus_y);
}

}  // namespace saccade::gem
