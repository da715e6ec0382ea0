// Sinkhorn's iteration in the logarithmic domain, with the largest exponent of every sum taken out.
// A problem that fits is solved by one block in shared memory. Others take a launch for the rows
// and one for the columns a sweep; a problem that has converged makes its part of later launches
// return at once. No sum depends on the order in which blocks run.
#include "transport/cuda_side.cuh"

namespace saccade::transport {
namespace {

constexpr int kSolverThreads = 512;
constexpr int kSolverWarps = kSolverThreads / 32;

// A side's potentials from the other's.
struct UpdatePass {
  const float* other;
  DeviceSide side;
  float *potential, *lse, *moved;  // moved: null for columns
  const Progress* progress;

  struct Setting {
    double eps;
    float inverse;
  };
  using Sums = Exponentials;

  __device__ __forceinline__ bool begin(int64_t b, Setting& s) const {
    s.eps = progress[b].eps;
    s.inverse = static_cast<float>(1.0 / s.eps);
    return progress[b].done == 0;
  }
  __device__ __forceinline__ void add(const Setting& s, Sums& sums, int64_t b, int64_t, int64_t,
                                      int64_t j, int64_t columns,
                                      const float (&c)[kLaneColumns]) const {
    sums.add(other + b * columns, j, columns, c, s.inverse);
  }
  __device__ __forceinline__ void finish(const Setting& s, Sums& sums, int64_t b, int64_t i,
                                         int64_t rows, int lane) const {
    const float total = sums.lse();
    if (lane != 0) return;
    const int64_t at = b * rows + i;
    const float before = potential[at];
    const float after = side.updated(side.weight_at(at), total, s.eps);
    potential[at] = after;
    lse[at] = total;
    if (moved != nullptr) {
      moved[at] = side.moved(side.weight_at(at), before, after, total, s.inverse);
    }
  }
};

// The plan, with the sum of every row and what it costs.
struct FinishPass {
  const float *f, *g;
  float *plan, *lse, *linear;  // plan: null for points
  float inverse;

  struct Setting {};
  struct Sums {
    Exponentials exponentials;
    float linear = 0.f;
  };

  __device__ __forceinline__ bool begin(int64_t, Setting&) const { return true; }
  __device__ __forceinline__ void add(const Setting&, Sums& sums, int64_t b, int64_t i,
                                      int64_t rows, int64_t j, int64_t columns,
                                      const float (&c)[kLaneColumns]) const {
    sums.exponentials.add(g + b * columns, j, columns, c, inverse);
    const float own = f[b * rows + i];
#pragma unroll
    for (int u = 0; u < kLaneColumns; ++u) {
      if (j + 32 * u >= columns) continue;
      const float p = expf((own + g[b * columns + j + 32 * u] - c[u]) * inverse);
      // a forbidden pair costs nothing where nothing goes
      sums.linear += p == 0.f ? 0.f : p * c[u];
      if (plan != nullptr) plan[(b * rows + i) * columns + j + 32 * u] = p;
    }
  }
  __device__ __forceinline__ void finish(const Setting&, Sums& sums, int64_t b, int64_t i,
                                         int64_t rows, int lane) const {
    const float total = sums.exponentials.lse(), cost = warp_sum(sums.linear);
    if (lane != 0) return;
    lse[b * rows + i] = total;
    linear[b * rows + i] = cost;
  }
};

// The least and the largest finite cost of every row.
struct RangePass {
  float *least, *largest;

  struct Setting {};
  struct Sums {
    float below = infinity(), above = infinity();  // of the cost and of its negative
  };

  __device__ __forceinline__ bool begin(int64_t, Setting&) const { return true; }
  __device__ __forceinline__ void add(const Setting&, Sums& sums, int64_t, int64_t, int64_t,
                                      int64_t j, int64_t columns,
                                      const float (&c)[kLaneColumns]) const {
#pragma unroll
    for (int u = 0; u < kLaneColumns; ++u) {
      if (j + 32 * u >= columns || c[u] - c[u] != 0.f) continue;
      sums.below = fminf(sums.below, c[u]);
      sums.above = fminf(sums.above, -c[u]);
    }
  }
  __device__ __forceinline__ void finish(const Setting&, Sums& sums, int64_t b, int64_t i,
                                         int64_t rows, int lane) const {
    const float low = -warp_max(-sums.below), high = warp_max(-sums.above);
    if (lane != 0) return;
    least[b * rows + i] = low;
    largest[b * rows + i] = high;
  }
};

__device__ __forceinline__ float first_g(const Entropic& p, int64_t at) {
  if (p.b[at] == 0.f) return -infinity();
  // a column that had no partner may have one now
  return p.init_g == nullptr || p.init_g[at] == -infinity() ? 0.f : p.init_g[at];
}

// What follows a sweep: whether the problem is done, else the eps of the next one.
__device__ __forceinline__ void advance(Progress& progress, double moved,
                                        const DeviceOptions& options) {
  if (progress.eps > options.eps) {
    const double next = progress.eps * options.scaling;
    progress.eps = next > options.eps ? next : options.eps;
    return;
  }
  ++progress.n_iter;
  progress.done = progress.n_iter >= options.max_iter || (options.tol > 0 && moved <= options.tol);
}

__device__ __forceinline__ double spread_or(double eps, float least, float largest) {
  const double spread = static_cast<double>(largest) - static_cast<double>(least);
  return largest > least && spread > eps ? spread : eps;
}

// The extremes of a block's rows.
template <int kBlockThreads>
__device__ __forceinline__ void extremes(float& low, float& high, float* scratch) {
  constexpr int kCount = kBlockThreads / 32;
  low = -warp_max(-low);
  high = warp_max(high);
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32] = low;
    scratch[kCount + threadIdx.x / 32] = high;
  }
  __syncthreads();
  for (int warp = 0; warp < kCount; ++warp) {
    low = fminf(low, scratch[warp]);
    high = fmaxf(high, scratch[kCount + warp]);
  }
  __syncthreads();
}

// The small outputs of a problem from its potentials and the sums at them.
template <int kBlockThreads>
__device__ __forceinline__ void conclude(const Entropic& p, int64_t b, int32_t n_iter,
                                         double* scratch) {
  const DeviceOptions& o = p.options;
  const DeviceSide rows{p.a, o.rho_a, o.kl}, columns{p.b, o.rho_b, o.kl};
  const float inverse = static_cast<float>(1.0 / o.eps);
  double total[2] = {}, value = 0.0, mass = 0.0, linear = 0.0, moved = 0.0, stuck = 0.0;
  for (int64_t i = threadIdx.x; i < p.n; i += kBlockThreads) {
    const int64_t at = b * p.n + i;
    const float weight = rows.weight_at(at), lse = p.lse_a[at], f = p.f[at];
    const float sum = expf(f * inverse + lse);
    total[0] += weight;
    mass += sum;
    linear += p.first_a[at];
    moved += rows.moved(weight, f, rows.updated(weight, lse, o.eps), lse, inverse);
    value += rows.value(weight, sum, f, o.eps);
    if (rows.balanced() && weight > 0.f && f == -infinity()) stuck += 1.0;
  }
  for (int64_t j = threadIdx.x; j < p.m; j += kBlockThreads) {
    const int64_t at = b * p.m + j;
    const float weight = columns.weight_at(at), g = p.g[at];
    total[1] += weight;
    value += columns.value(weight, expf(g * inverse + p.lse_b[at]), g, o.eps);
    if (columns.balanced() && weight > 0.f && g == -infinity()) stuck += 1.0;
  }
  for (double* sum : {&total[0], &total[1], &value, &mass, &linear, &moved, &stuck}) {
    *sum = block_sum<kBlockThreads>(*sum, scratch);
  }
  if (threadIdx.x != 0) return;
  value += o.eps * ((o.kl ? total[0] * total[1] : 1.0) - mass);
  int32_t status = o.tol > 0 && moved <= o.tol ? 0 : 1;
  const double apart = total[0] > total[1] ? total[0] - total[1] : total[1] - total[0];
  const bool differ = rows.balanced() && columns.balanced() && apart > o.mass_tolerance * total[0];
  if (stuck > 0.0 || differ) status = 2;
  const float small[3] = {static_cast<float>(value), static_cast<float>(linear),
                          static_cast<float>(moved)};
  const float all = small[0] + small[1] + small[2];
  if (all - all != 0.f) status = 3;
  p.value[b] = small[0];
  p.linear[b] = small[1];
  p.err[b] = small[2];
  p.n_iter[b] = n_iter;
  p.status[b] = status;
}

__global__ void __launch_bounds__(kThreads) start_kernel(const __grid_constant__ Entropic p) {
  const int64_t b = blockIdx.x;
  const DeviceOptions& o = p.options;
  float low = infinity(), high = -infinity();
  for (int64_t i = threadIdx.x; i < p.n; i += kThreads) {
    const int64_t at = b * p.n + i;
    if (o.scaling > 0) {
      low = fminf(low, p.first_a[at]);
      high = fmaxf(high, p.second_a[at]);
    }
    p.f[at] = p.init_f == nullptr ? not_a_number() : p.init_f[at];
  }
  for (int64_t j = threadIdx.x; j < p.m; j += kThreads) {
    p.g[b * p.m + j] = first_g(p, b * p.m + j);
  }
  extremes<kThreads>(low, high, cuda::dynamic_shared<float>());
  if (threadIdx.x == 0) {
    p.progress[b] = {o.scaling > 0 ? spread_or(o.eps, low, high) : o.eps, 0, 0};
  }
}

__global__ void __launch_bounds__(kThreads) advance_kernel(const __grid_constant__ Entropic p) {
  const int64_t b = blockIdx.x;
  if (p.progress[b].done) return;
  double moved = 0.0;
  for (int64_t i = threadIdx.x; i < p.n; i += kThreads) moved += p.first_a[b * p.n + i];
  // also keeps the flag from changing before every thread has read it
  moved = block_sum<kThreads>(moved, cuda::dynamic_shared<double>());
  if (threadIdx.x == 0) advance(p.progress[b], moved, p.options);
}

__global__ void __launch_bounds__(kThreads) conclude_kernel(const __grid_constant__ Entropic p) {
  conclude<kThreads>(p, blockIdx.x, p.progress[blockIdx.x].n_iter, cuda::dynamic_shared<double>());
}

// Logarithm of the sum of exp((other - c) * inverse) over a line in shared memory.
__device__ __forceinline__ float line_lse(const float* c, int stride, int count, const float* other,
                                          float inverse, int lane) {
  float largest = -infinity();
  for (int j = lane; j < count; j += 32) {
    largest = fmaxf(largest, (other[j] - c[j * stride]) * inverse);
  }
  largest = warp_max(largest);
  const float safe = largest == -infinity() ? 0.f : largest;
  float sum = 0.f;
  for (int j = lane; j < count; j += 32) {
    sum += expf((other[j] - c[j * stride]) * inverse - safe);
  }
  return safe + logf(warp_sum(sum));
}

__host__ __device__ __forceinline__ int64_t solver_floats(int64_t n, int64_t m) {
  // an odd stride has no bank conflict along either side
  return 4 * kSolverWarps + n * (m | 1) + n + m;
}

__global__ void __launch_bounds__(kSolverThreads)
    solver_kernel(const __grid_constant__ Entropic p) {
  const int64_t b = blockIdx.x;
  const DeviceOptions& o = p.options;
  const int n = static_cast<int>(p.n), m = static_cast<int>(p.m), stride = m | 1;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  double* const scratch = cuda::dynamic_shared<double>();
  float* const c = reinterpret_cast<float*>(scratch + 2 * kSolverWarps);
  float* const f = c + n * stride;
  float* const g = f + n;
  const DeviceSide rows{p.a + b * n, o.rho_a, o.kl}, columns{p.b + b * m, o.rho_b, o.kl};

  float low = infinity(), high = -infinity();
  for (int i = warp; i < n; i += kSolverWarps) {
    for (int j = lane; j < m; j += 32) {
      const float cost = p.cost.matrix[(b * n + i) * m + j];
      c[i * stride + j] = cost;
      if (cost - cost != 0.f) continue;
      low = fminf(low, cost);
      high = fmaxf(high, cost);
    }
  }
  for (int i = thread; i < n; i += kSolverThreads) {
    f[i] = p.init_f == nullptr ? not_a_number() : p.init_f[b * n + i];
  }
  for (int j = thread; j < m; j += kSolverThreads) g[j] = first_g(p, b * m + j);
  extremes<kSolverThreads>(low, high, reinterpret_cast<float*>(scratch));

  Progress progress{o.scaling > 0 ? spread_or(o.eps, low, high) : o.eps, 0, 0};
  while (progress.done == 0) {
    const float inverse = static_cast<float>(1.0 / progress.eps);
    double moved = 0.0;
    for (int i = warp; i < n; i += kSolverWarps) {
      const float lse = line_lse(c + i * stride, 1, m, g, inverse, lane);
      if (lane != 0) continue;
      const float before = f[i];
      f[i] = rows.updated(rows.weight_at(i), lse, progress.eps);
      moved += rows.moved(rows.weight_at(i), before, f[i], lse, inverse);
    }
    __syncthreads();
    for (int j = warp; j < m; j += kSolverWarps) {
      const float lse = line_lse(c + j, stride, n, f, inverse, lane);
      if (lane != 0) continue;
      g[j] = columns.updated(columns.weight_at(j), lse, progress.eps);
      p.lse_b[b * m + j] = lse;
    }
    if (o.tol > 0) {
      moved = block_sum<kSolverThreads>(moved, scratch);
    } else {
      __syncthreads();
    }
    advance(progress, moved, o);
  }

  const float inverse = static_cast<float>(1.0 / o.eps);
  for (int i = warp; i < n; i += kSolverWarps) {
    const float lse = line_lse(c + i * stride, 1, m, g, inverse, lane);
    float linear = 0.f;
    for (int j = lane; j < m; j += 32) {
      const float x = expf((f[i] + g[j] - c[i * stride + j]) * inverse);
      linear += x == 0.f ? 0.f : x * c[i * stride + j];
      p.plan[(b * n + i) * m + j] = x;
    }
    linear = warp_sum(linear);
    if (lane != 0) continue;
    p.f[b * n + i] = f[i];
    p.lse_a[b * n + i] = lse;
    p.first_a[b * n + i] = linear;
  }
  for (int j = thread; j < m; j += kSolverThreads) p.g[b * m + j] = g[j];
  __syncthreads();
  conclude<kSolverThreads>(p, b, progress.n_iter, scratch);
}

// Launches that a descent from the largest range of float32 may take: how many it does take is
// known on the device alone, and those that are left over return at once.
int64_t descent_sweeps(const DeviceOptions& options) {
  if (options.scaling <= 0) return 0;
  int64_t sweeps = 0;
  for (double eps = 6.9e38; eps > options.eps; eps *= options.scaling) ++sweeps;
  return sweeps + 1;
}

template <class Rows, class Columns>
cudaError_t sweep_all(const Entropic& p, const Rows& rows, const Columns& columns,
                      cudaStream_t stream) {
  const DeviceOptions& o = p.options;
  constexpr size_t kScratch = 2 * kWarps * sizeof(double);
  cudaError_t error = cudaSuccess;
  const auto run = [&](cudaError_t next) { error = error != cudaSuccess ? error : next; };
  if (o.scaling > 0) run(run_pass(rows, RangePass{p.first_a, p.second_a}, p.batch, stream));
  run(cuda::launch(start_kernel, p.batch, kThreads, kScratch, stream, p));
  const UpdatePass of_rows{p.g, {p.a, o.rho_a, o.kl}, p.f, p.lse_a, p.first_a, p.progress};
  const UpdatePass of_columns{p.f, {p.b, o.rho_b, o.kl}, p.g, p.lse_b, nullptr, p.progress};
  const int64_t sweeps = o.max_iter + descent_sweeps(o);
  for (int64_t sweep = 0; sweep < sweeps && error == cudaSuccess; ++sweep) {
    run(run_pass(rows, of_rows, p.batch, stream));
    run(run_pass(columns, of_columns, p.batch, stream));
    run(cuda::launch(advance_kernel, p.batch, kThreads, kScratch, stream, p));
  }
  const FinishPass finish{p.f, p.g, p.plan, p.lse_a, p.first_a, static_cast<float>(1.0 / o.eps)};
  run(run_pass(rows, finish, p.batch, stream));
  run(cuda::launch(conclude_kernel, p.batch, kThreads, kScratch, stream, p));
  return error;
}

}  // namespace

cudaError_t solve(const Entropic& p, cudaStream_t stream) {
  if (p.batch == 0) return cudaSuccess;
  const DeviceCost& c = p.cost;
  if (c.matrix == nullptr) {
    return sweep_all(p, PointRows{c.x, c.y, c.dim, c.metric, p.n, p.m},
                     PointRows{c.y, c.x, c.dim, c.metric, p.m, p.n}, stream);
  }
  const int64_t shared = solver_floats(p.n, p.m) * static_cast<int64_t>(sizeof(float));
  if (shared <= kMostShared) {
    return cuda::launch(solver_kernel, p.batch, kSolverThreads, static_cast<size_t>(shared), stream,
                        p);
  }
  return sweep_all(p, MatrixRows{c.matrix, p.n, p.m}, MatrixColumns{c.matrix, p.m, p.n}, stream);
}

}  // namespace saccade::transport
