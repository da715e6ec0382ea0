// Gradients by the implicit function theorem: conjugate gradients on the columns. A plan that fits
// is worked on by one block in shared memory; else a step takes a launch a product and one for the
// vectors, and a system that is solved makes its part of later launches return at once.
#include "transport/cuda_plan.cuh"

namespace saccade::transport {
namespace {

constexpr int kSolverThreads = 512;
constexpr int kSolverWarps = kSolverThreads / 32;
constexpr int64_t kMostSteps = 500;

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
    const cudaError_t error = descend_all(a, rows_of_points(a), columns_of_points(a), stream);
    return error == cudaSuccess ? point_gradients(a, stream) : error;
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
