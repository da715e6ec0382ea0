// Gradients by the implicit function theorem: conjugate gradients on the columns. A plan that fits
// is worked on by one block in shared memory; else a step takes a launch a product and one for the
// vectors, and a system that is solved makes its part of later launches return at once.
#include "transport/cuda_side.cuh"

namespace saccade::transport {
namespace {

constexpr int kSolverThreads = 512;
constexpr int kSolverWarps = kSolverThreads / 32;
constexpr int64_t kMostSteps = 500;
constexpr double kTolerance = 1e-6;

// The vectors of one problem.
struct Vectors {
  float *row_sums, *p, *inverse, *x, *t;
  float *column_sums, *q, *y, *r, *d, *s;

  __device__ __forceinline__ Vectors(const AdjointProblem& a, int64_t b) {
    const int64_t rows = a.batch * a.n, columns = a.batch * a.m;
    float* const row = a.rows + b * a.n;
    float* const column = a.columns + b * a.m;
    row_sums = row, p = row + rows, inverse = row + 2 * rows, x = row + 3 * rows;
    t = row + 4 * rows;
    column_sums = column, q = column + columns, y = column + 2 * columns;
    r = column + 3 * columns, d = column + 4 * columns, s = column + 5 * columns;
  }
};

// Whether only the value is asked for, whose gradient needs no system of equations.
__host__ __device__ __forceinline__ bool envelope(const AdjointProblem& a) {
  return a.of_plan == nullptr && a.of_f == nullptr && a.of_g == nullptr && a.of_linear == nullptr;
}

__device__ __forceinline__ float or_zero(const float* x, int64_t i) {
  return x == nullptr ? 0.f : x[i];
}

// 1 + eps / rho; 1 where the side is balanced.
__device__ __forceinline__ float alpha(double eps, double rho) {
  return static_cast<float>(1.0 + eps / rho);
}

__device__ __forceinline__ bool is_balanced(const DeviceOptions& o) {
  return o.rho_a - o.rho_a != 0.0 && o.rho_b - o.rho_b != 0.0;
}

// Right-hand sides and the first x, from the sums of P and of P W.
template <int kBlockThreads>
__device__ __forceinline__ void prepare(const AdjointProblem& a, const Vectors& v, int64_t b) {
  const bool system = !envelope(a);
  const float eps = static_cast<float>(a.options.eps);
  const float of_rows = alpha(a.options.eps, a.options.rho_a);
  for (int64_t i = threadIdx.x; i < a.n; i += kBlockThreads) {
    const float sum = v.row_sums[i];
    const float inverse = sum == 0.f ? 0.f : 1.f / (of_rows * sum);
    if (sum != 0.f) v.p[i] += eps * or_zero(a.of_f, b * a.n + i);
    v.inverse[i] = inverse;
    v.x[i] = system ? inverse * v.p[i] : 0.f;
  }
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    if (v.column_sums[j] != 0.f) v.q[j] += eps * or_zero(a.of_g, b * a.m + j);
    v.y[j] = 0.f;
  }
}

// Where both sides are balanced the system determines y up to a constant, and what has a mean is
// not in its range.
template <int kBlockThreads>
__device__ __forceinline__ void remove_mean(const AdjointProblem& a, const Vectors& v,
                                            double* scratch) {
  if (!is_balanced(a.options)) return;
  double total = 0.0, mass = 0.0;
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    total += v.r[j];
    mass += v.column_sums[j];
  }
  total = block_sum<kBlockThreads>(total, scratch);
  mass = block_sum<kBlockThreads>(mass, scratch);
  if (mass == 0.0) return;
  const float mean = static_cast<float>(total / mass);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) v.r[j] -= mean * v.column_sums[j];
}

__device__ __forceinline__ float preconditioned(float r, float diagonal) {
  return r == 0.f ? 0.f : __fdividef(r, diagonal);
}

template <int kBlockThreads>
__device__ __forceinline__ double size_of(const AdjointProblem& a, const Vectors& v,
                                          float of_columns, double* scratch) {
  double size = 0.0;
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    const double r = v.r[j];
    size += r * preconditioned(v.r[j], of_columns * v.column_sums[j]);
  }
  return block_sum<kBlockThreads>(size, scratch);
}

// The first residual and direction; s is P' x.
template <int kBlockThreads>
__device__ __forceinline__ Descent begin(const AdjointProblem& a, const Vectors& v,
                                         double* scratch) {
  const float of_columns = alpha(a.options.eps, a.options.rho_b);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.r[j] = v.column_sums[j] != 0.f ? v.q[j] - v.s[j] : 0.f;
  }
  remove_mean<kBlockThreads>(a, v, scratch);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.d[j] = preconditioned(v.r[j], of_columns * v.column_sums[j]);
  }
  const double size = size_of<kBlockThreads>(a, v, of_columns, scratch);
  const double target = kTolerance * kTolerance * size;
  return {size, target, size > target ? 0 : 1};
}

// A step of conjugate gradients; s is P' diag(inverse) P d.
template <int kBlockThreads>
__device__ __forceinline__ Descent step(const AdjointProblem& a, const Vectors& v, Descent now,
                                        double* scratch) {
  const float of_columns = alpha(a.options.eps, a.options.rho_b);
  double curvature = 0.0;
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.s[j] = of_columns * v.column_sums[j] * v.d[j] - v.s[j];
    curvature += static_cast<double>(v.d[j]) * v.s[j];
  }
  curvature = block_sum<kBlockThreads>(curvature, scratch);
  if (!(curvature > 0.0)) {
    now.done = 1;
    return now;
  }
  const float length = static_cast<float>(now.size / curvature);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.y[j] += length * v.d[j];
    v.r[j] -= length * v.s[j];
  }
  remove_mean<kBlockThreads>(a, v, scratch);
  const double next = size_of<kBlockThreads>(a, v, of_columns, scratch);
  const float turn = static_cast<float>(next / now.size);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.d[j] = preconditioned(v.r[j], of_columns * v.column_sums[j]) + turn * v.d[j];
  }
  now.size = next;
  now.done = next > now.target ? 0 : 1;
  return now;
}

// The gradient of a weight from the solution and from the value's envelope.
__device__ __forceinline__ float weight_gradient(const DeviceSide& side, int64_t at, double eps,
                                                 double other_total, float x, float potential,
                                                 float sum, float of_value) {
  const float weight = side.weight_at(at);
  if (weight == 0.f || potential == -infinity()) return 0.f;
  const double base = side.kl ? eps * logf(weight) : 0.0;
  const double share = static_cast<double>(sum) / weight;
  double of_solution = x, slope = potential - base;
  if (!side.balanced()) {
    of_solution *= expf(static_cast<float>((base - potential) / side.rho)) *
                   (side.kl ? 1.0 + eps / side.rho : 1.0);
    slope = side.rho * (1.0 - share);
  }
  if (side.kl) slope += eps * (other_total - share);
  return static_cast<float>(of_solution + of_value * slope);
}

// The last x and the gradients of the weights; t is P y.
template <int kBlockThreads>
__device__ __forceinline__ void conclude(const AdjointProblem& a, const Vectors& v, int64_t b,
                                         double* scratch) {
  const DeviceOptions& o = a.options;
  const DeviceSide rows{a.a + b * a.n, o.rho_a, o.kl}, columns{a.b + b * a.m, o.rho_b, o.kl};
  double total_a = 0.0, total_b = 0.0;
  for (int64_t i = threadIdx.x; i < a.n; i += kBlockThreads) total_a += rows.weight_at(i);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) total_b += columns.weight_at(j);
  total_a = block_sum<kBlockThreads>(total_a, scratch);
  total_b = block_sum<kBlockThreads>(total_b, scratch);
  const float of_value = or_zero(a.of_value, b);
  const bool system = !envelope(a);
  for (int64_t i = threadIdx.x; i < a.n; i += kBlockThreads) {
    if (system) v.x[i] = v.inverse[i] * (v.p[i] - v.t[i]);
    a.grad_a[b * a.n + i] =
        weight_gradient(rows, i, o.eps, total_b, v.x[i], a.f[b * a.n + i], v.row_sums[i], of_value);
  }
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    a.grad_b[b * a.m + j] = weight_gradient(columns, j, o.eps, total_a, v.y[j], a.g[b * a.m + j],
                                            v.column_sums[j], of_value);
  }
}

// G of a pair from P, W + of_linear C and x + y.
struct PairGradient {
  float inverse, of_linear, constant;

  __device__ __forceinline__ PairGradient(const AdjointProblem& a, int64_t b)
      : inverse(static_cast<float>(1.0 / a.options.eps)),
        of_linear(or_zero(a.of_linear, b)),
        constant(of_linear + or_zero(a.of_value, b)) {}
  __device__ __forceinline__ float upstream(float w, float c) const {
    return of_linear == 0.f ? w : w + of_linear * c;
  }
  __device__ __forceinline__ float operator()(float p, float w, float c, float sum) const {
    return p == 0.f ? 0.f : p * ((sum - upstream(w, c)) * inverse + constant);
  }
};

// P and what is upstream of it, a tile at a time: given, or computed from points.
template <class Matrix>
struct GivenPlan {
  static constexpr int kRows = Matrix::kRows, kShared = Matrix::kShared;
  Matrix plan, cost, upstream;  // cost and upstream: null where they are not asked for
  int64_t rows, columns;

  __device__ __forceinline__ void load(int64_t b, int64_t first, int64_t j0, float* shared,
                                       Tile<kRows>& p, Tile<kRows>& c, Tile<kRows>& w) const {
    plan.load(b, first, j0, shared, p);
    if (cost.matrix != nullptr) cost.load(b, first, j0, shared, c);
    if (upstream.matrix != nullptr) upstream.load(b, first, j0, shared, w);
  }
};

struct PointPlan {
  static constexpr int kRows = PointRows::kRows, kShared = PointRows::kShared;
  PointRows points;
  const float *own, *other;
  float inverse;
  int64_t rows, columns;

  __device__ __forceinline__ void load(int64_t b, int64_t first, int64_t j0, float* shared,
                                       Tile<kRows>& p, Tile<kRows>& c, Tile<kRows>&) const {
    points.load(b, first, j0, shared, c);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int64_t i = first + warp * kRows + k;
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) {
        const int64_t j = j0 + lane + 32 * u;
        p[k][u] = i < rows && j < columns
                      ? expf((own[b * rows + i] + other[b * columns + j] - c[k][u]) * inverse)
                      : 0.f;
      }
    }
  }
};

// Sums of P and of P (W + of_linear C) over a row.
struct WeighPass {
  float *sums, *weighted;
  const float* of_linear;

  __device__ __forceinline__ bool skip(int64_t) const { return false; }
  __device__ __forceinline__ void add(float (&total)[2], int64_t b, int64_t, float p, float c,
                                      float w) const {
    total[0] += p;
    const float factor = or_zero(of_linear, b);
    const float upstream = factor == 0.f ? w : w + factor * c;
    total[1] += p == 0.f ? 0.f : p * upstream;
  }
  __device__ __forceinline__ void store(int64_t at, float sum, float other) const {
    sums[at] = sum;
    weighted[at] = other;
  }
};

// out = scale * (P vector); nothing where the system is solved.
struct ProductPass {
  const float* vector;
  const float* scale;  // or null
  float* out;
  const Descent* descent;  // or null
  int64_t columns;

  __device__ __forceinline__ bool skip(int64_t b) const {
    return descent != nullptr && descent[b].done != 0;
  }
  __device__ __forceinline__ void add(float (&total)[2], int64_t b, int64_t j, float p, float,
                                      float) const {
    total[0] += p * vector[b * columns + j];
  }
  __device__ __forceinline__ void store(int64_t at, float sum, float) const {
    out[at] = scale == nullptr ? sum : scale[at] * sum;
  }
};

template <class Plan, class Pass>
__global__ void __launch_bounds__(kThreads)
    plan_kernel(const __grid_constant__ Plan plan, const __grid_constant__ Pass pass) {
  constexpr int K = Plan::kRows;
  const int64_t tiles = tiles_of(plan), b = blockIdx.x / tiles;
  const int64_t block = blockIdx.x % tiles * kWarps * K;
  const int64_t first = block + static_cast<int>(threadIdx.x) / 32 * K;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (pass.skip(b)) return;
  float* const shared = cuda::dynamic_shared<float>();
  float total[K][2] = {};
  for (int64_t j0 = 0; j0 < plan.columns; j0 += kTileColumns) {
    Tile<K> p, c = {}, w = {};
    plan.load(b, block, j0, shared, p, c, w);
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) {
        const int64_t j = j0 + lane + 32 * u;
        if (first + k < plan.rows && j < plan.columns) {
          pass.add(total[k], b, j, p[k][u], c[k][u], w[k][u]);
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const float sum = warp_sum(total[k][0]), other = warp_sum(total[k][1]);
    if (lane == 0 && first + k < plan.rows) pass.store(b * plan.rows + first + k, sum, other);
  }
}

template <class Plan, class Pass>
cudaError_t run(const Plan& plan, const Pass& pass, int64_t batch, cudaStream_t stream) {
  const int64_t blocks = batch * tiles_of(plan);
  if (blocks == 0) return cudaSuccess;
  return cuda::launch(plan_kernel<Plan, Pass>, blocks, kThreads, Plan::kShared * sizeof(float),
                      stream, plan, pass);
}

__global__ void __launch_bounds__(kThreads)
    prepare_kernel(const __grid_constant__ AdjointProblem a) {
  prepare<kThreads>(a, Vectors(a, blockIdx.x), blockIdx.x);
}

__global__ void __launch_bounds__(kThreads) begin_kernel(const __grid_constant__ AdjointProblem a) {
  const Descent first = begin<kThreads>(a, Vectors(a, blockIdx.x), cuda::dynamic_shared<double>());
  if (threadIdx.x == 0) a.descent[blockIdx.x] = first;
}

__global__ void __launch_bounds__(kThreads) step_kernel(const __grid_constant__ AdjointProblem a) {
  const Descent now = a.descent[blockIdx.x];
  if (now.done) return;
  // its sums keep the state from changing before every thread has read it
  const Descent next =
      step<kThreads>(a, Vectors(a, blockIdx.x), now, cuda::dynamic_shared<double>());
  if (threadIdx.x == 0) a.descent[blockIdx.x] = next;
}

__global__ void __launch_bounds__(kThreads)
    adjoint_conclude_kernel(const __grid_constant__ AdjointProblem a) {
  conclude<kThreads>(a, Vectors(a, blockIdx.x), blockIdx.x, cuda::dynamic_shared<double>());
}

// The gradient of the cost, a number a thread.
__global__ void __launch_bounds__(kThreads)
    cost_gradient_kernel(const __grid_constant__ AdjointProblem a) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + static_cast<int>(threadIdx.x);
  if (at >= a.batch * a.n * a.m) return;
  const int64_t b = at / (a.n * a.m), i = at / a.m % a.n, j = at % a.m;
  const Vectors v(a, b);
  a.grad_cost[at] =
      PairGradient(a, b)(a.plan[at], or_zero(a.of_plan, at), a.cost.matrix[at], v.x[i] + v.y[j]);
}

// Gradients of the points of the rows, 32 coordinates a block: sum of G_ij dC_ij/dx_i.
struct PointGradient {
  PointPlan plan;
  const float *x, *y;  // solutions of the rows and of the columns
  float* out;
};

constexpr int kBlockPoints = kWarps * PointRows::kRows;
constexpr int kPairStride = kTileColumns + 1;
constexpr int kPointShared = PointRows::kShared + kBlockPoints * kPairStride + kTileColumns * 32;

__global__ void __launch_bounds__(kThreads)
    point_gradient_kernel(const __grid_constant__ AdjointProblem a,
                          const __grid_constant__ PointGradient of) {
  constexpr int K = PointRows::kRows;
  const PointPlan& plan = of.plan;
  const int dim = plan.points.dim, chunks = (dim + 31) / 32;
  const int64_t tiles = tiles_of(plan), b = blockIdx.x / (tiles * chunks);
  const int64_t block = blockIdx.x / chunks % tiles * kBlockPoints;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int column = static_cast<int>(blockIdx.x % chunks) * 32;
  const Metric metric = plan.points.metric;
  float* const shared = cuda::dynamic_shared<float>();
  float* const pairs = shared + PointRows::kShared;
  float* const others = pairs + kBlockPoints * kPairStride;
  const PairGradient pair(a, b);
  // differences are summed as such; a cosine's derivative has no x
  float own[K], sum[K] = {};
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t i = block + warp * K + k;
    const bool reads = metric != kOneMinusDot && i < plan.rows && column + lane < dim;
    own[k] = reads ? plan.points.x[(b * plan.rows + i) * dim + column + lane] : 0.f;
  }
  for (int64_t j0 = 0; j0 < plan.columns; j0 += kTileColumns) {
    Tile<K> p, c, w;
    plan.load(b, block, j0, shared, p, c, w);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t i = block + warp * K + k;
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) {
        const int64_t j = j0 + lane + 32 * u;
        float g = 0.f;
        if (i < plan.rows && j < plan.columns) {
          g = pair(p[k][u], 0.f, c[k][u], of.x[b * plan.rows + i] + of.y[b * plan.columns + j]);
          // the derivative of |x - y| has the distance below; where it is 0 it is taken as 0
          if (metric == kDistance) g = c[k][u] == 0.f ? 0.f : __fdividef(g, c[k][u]);
        }
        pairs[(warp * K + k) * kPairStride + lane + 32 * u] = g;
      }
    }
    for (int e = thread; e < kTileColumns * 32; e += kThreads) {
      const int64_t j = j0 + e / 32;
      const int d = column + e % 32;
      others[e] =
          j < plan.columns && d < dim ? plan.points.y[(b * plan.columns + j) * dim + d] : 0.f;
    }
    __syncthreads();
#pragma unroll 4
    for (int j = 0; j < kTileColumns; ++j) {
      const float of_y = others[j * 32 + lane];
#pragma unroll
      for (int k = 0; k < K; ++k) {
        sum[k] = fmaf(pairs[(warp * K + k) * kPairStride + j], own[k] - of_y, sum[k]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t i = block + warp * K + k;
    const int d = column + lane;
    if (i >= plan.rows || d >= dim) continue;
    of.out[(b * plan.rows + i) * dim + d] = metric == kSquared ? 2.f * sum[k] : sum[k];
  }
}

cudaError_t run_points(const AdjointProblem& a, const PointGradient& of, cudaStream_t stream) {
  const int64_t chunks = (a.cost.dim + 31) / 32, blocks = a.batch * tiles_of(of.plan) * chunks;
  if (blocks == 0) return cudaSuccess;
  return cuda::launch(point_gradient_kernel, blocks, kThreads, kPointShared * sizeof(float), stream,
                      a, of);
}

// Systems of many launches; columns is the transpose of rows.
template <class Rows, class Columns>
cudaError_t descend_all(const AdjointProblem& a, const Rows& rows, const Columns& columns,
                        cudaStream_t stream) {
  constexpr size_t kScratch = kWarps * sizeof(double);
  const int64_t n = a.batch * a.n, m = a.batch * a.m;
  float *const x = a.rows + 3 * n, *const t = a.rows + 4 * n;
  float *const y = a.columns + 2 * m, *const d = a.columns + 4 * m, *const s = a.columns + 5 * m;
  const float* const inverse = a.rows + 2 * n;
  cudaError_t error = cudaSuccess;
  const auto then = [&](cudaError_t next) { error = error != cudaSuccess ? error : next; };
  then(run(rows, WeighPass{a.rows, a.rows + n, a.of_linear}, a.batch, stream));
  then(run(columns, WeighPass{a.columns, a.columns + m, a.of_linear}, a.batch, stream));
  then(cuda::launch(prepare_kernel, a.batch, kThreads, 0, stream, a));
  if (!envelope(a)) {
    then(run(columns, ProductPass{x, nullptr, s, nullptr, a.n}, a.batch, stream));
    then(cuda::launch(begin_kernel, a.batch, kThreads, kScratch, stream, a));
    // in exact arithmetic m steps are enough
    const int64_t most = 2 * a.m + 20 < kMostSteps ? 2 * a.m + 20 : kMostSteps;
    for (int64_t k = 0; k < most && error == cudaSuccess; ++k) {
      then(run(rows, ProductPass{d, inverse, t, a.descent, a.m}, a.batch, stream));
      then(run(columns, ProductPass{t, nullptr, s, a.descent, a.n}, a.batch, stream));
      then(cuda::launch(step_kernel, a.batch, kThreads, kScratch, stream, a));
    }
    then(run(rows, ProductPass{y, nullptr, t, nullptr, a.m}, a.batch, stream));
  }
  then(cuda::launch(adjoint_conclude_kernel, a.batch, kThreads, kScratch, stream, a));
  return error;
}

// Sum of a line in shared memory times a vector, over the warp.
__device__ __forceinline__ float line_product(const float* p, int stride, int count,
                                              const float* vector, int lane) {
  float sum = 0.f;
  for (int j = lane; j < count; j += 32) sum = fmaf(p[j * stride], vector[j], sum);
  return warp_sum(sum);
}

int64_t solver_floats(int64_t n, int64_t m) { return 2 * kSolverWarps + n * (m | 1); }

__global__ void __launch_bounds__(kSolverThreads)
    adjoint_kernel(const __grid_constant__ AdjointProblem a) {
  const int64_t b = blockIdx.x;
  const Vectors v(a, b);
  const int n = static_cast<int>(a.n), m = static_cast<int>(a.m), stride = m | 1;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  double* const scratch = cuda::dynamic_shared<double>();
  float* const plan = reinterpret_cast<float*>(scratch + kSolverWarps);
  const PairGradient pair(a, b);
  const int64_t first = b * n * m;
  const auto upstream = [&](int i, int j) {
    const int64_t at = first + static_cast<int64_t>(i) * m + j;
    return pair.upstream(or_zero(a.of_plan, at), pair.of_linear == 0.f ? 0.f : a.cost.matrix[at]);
  };
  for (int i = warp; i < n; i += kSolverWarps) {
    float sum = 0.f, weighted = 0.f;
    for (int j = lane; j < m; j += 32) {
      const float p = a.plan[first + static_cast<int64_t>(i) * m + j];
      plan[i * stride + j] = p;
      sum += p;
      weighted += p == 0.f ? 0.f : p * upstream(i, j);
    }
    sum = warp_sum(sum);
    weighted = warp_sum(weighted);
    if (lane == 0) v.row_sums[i] = sum, v.p[i] = weighted;
  }
  __syncthreads();
  for (int j = thread; j < m; j += kSolverThreads) {
    float sum = 0.f, weighted = 0.f;
    for (int i = 0; i < n; ++i) {
      const float p = plan[i * stride + j];
      sum += p;
      weighted += p == 0.f ? 0.f : p * upstream(i, j);
    }
    v.column_sums[j] = sum;
    v.q[j] = weighted;
  }
  __syncthreads();
  prepare<kSolverThreads>(a, v, b);
  __syncthreads();
  if (!envelope(a)) {
    const auto of_rows = [&](const float* vector, bool scaled) {
      for (int i = warp; i < n; i += kSolverWarps) {
        const float sum = line_product(plan + i * stride, 1, m, vector, lane);
        if (lane == 0) v.t[i] = scaled ? v.inverse[i] * sum : sum;
      }
      __syncthreads();
    };
    const auto of_columns = [&](const float* vector) {
      for (int j = warp; j < m; j += kSolverWarps) {
        const float sum = line_product(plan + j, stride, n, vector, lane);
        if (lane == 0) v.s[j] = sum;
      }
      __syncthreads();
    };
    of_columns(v.x);
    Descent now = begin<kSolverThreads>(a, v, scratch);
    const int64_t most = 2 * a.m + 20 < kMostSteps ? 2 * a.m + 20 : kMostSteps;
    for (int64_t k = 0; k < most && now.done == 0; ++k) {
      __syncthreads();
      of_rows(v.d, true);
      of_columns(v.t);
      now = step<kSolverThreads>(a, v, now, scratch);
    }
    __syncthreads();
    of_rows(v.y, false);
  }
  conclude<kSolverThreads>(a, v, b, scratch);
}

}  // namespace

cudaError_t solve_adjoint(const AdjointProblem& a, cudaStream_t stream) {
  if (a.batch == 0) return cudaSuccess;
  const DeviceCost& c = a.cost;
  if (c.matrix == nullptr) {
    const float inverse = static_cast<float>(1.0 / a.options.eps);
    const PointPlan rows{{c.x, c.y, c.dim, c.metric, a.n, a.m}, a.f, a.g, inverse, a.n, a.m};
    const PointPlan columns{{c.y, c.x, c.dim, c.metric, a.m, a.n}, a.g, a.f, inverse, a.m, a.n};
    const float *const x = a.rows + 3 * a.batch * a.n, *const y = a.columns + 2 * a.batch * a.m;
    cudaError_t error = descend_all(a, rows, columns, stream);
    if (error == cudaSuccess) error = run_points(a, {rows, x, y, a.grad_x}, stream);
    if (error == cudaSuccess) error = run_points(a, {columns, y, x, a.grad_y}, stream);
    return error;
  }
  const int64_t shared = solver_floats(a.n, a.m) * static_cast<int64_t>(sizeof(float));
  cudaError_t error = cudaSuccess;
  if (shared <= kMostShared) {
    error = cuda::launch(adjoint_kernel, a.batch, kSolverThreads, static_cast<size_t>(shared),
                         stream, a);
  } else {
    const float* const cost = a.of_linear == nullptr ? nullptr : c.matrix;
    const GivenPlan<MatrixRows> rows{
        {a.plan, a.n, a.m}, {cost, a.n, a.m}, {a.of_plan, a.n, a.m}, a.n, a.m};
    const GivenPlan<MatrixColumns> columns{
        {a.plan, a.m, a.n}, {cost, a.m, a.n}, {a.of_plan, a.m, a.n}, a.m, a.n};
    error = descend_all(a, rows, columns, stream);
  }
  const int64_t blocks = (a.batch * a.n * a.m + kThreads - 1) / kThreads;
  if (error != cudaSuccess || blocks == 0) return error;
  return cuda::launch(cost_gradient_kernel, blocks, kThreads, 0, stream, a);
}

}  // namespace saccade::transport
