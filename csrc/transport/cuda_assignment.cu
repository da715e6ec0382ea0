// A block a problem: one warp up to 128 columns. Costs and vectors lie in shared memory where they
// fit, else the costs alone, else both, in device memory. Nothing is left to chance or to the host:
// minima go to the lowest index, sums have one order, and what cannot be solved says so in its
// results.
#include "transport/cuda_assignment.cuh"

#include "transport/cuda_team.cuh"

namespace saccade::transport::exact {
namespace {

using device::Block;
using device::Contents;
using device::kInfinity;
using device::Memory;
using device::Problem;

// What a block may use on every device from compute capability 8.0 on.
constexpr int64_t kMostShared = 96 * 1024;
constexpr int kWarpColumns = 128;
constexpr int kBlockThreads = 256;
// Without this the compiler saves registers for more warps than shared memory lets in, and spills.
constexpr int kResidentThreads = 512;

// Where a problem's memory is.
struct Layout {
  int64_t vectors, costs;  // bytes
  bool shared_vectors, shared_costs;

  int64_t shared() const { return (shared_vectors ? vectors : 0) + (shared_costs ? costs : 0); }
  __host__ __device__ int64_t workspace() const {
    return (shared_vectors ? 0 : vectors) + (shared_costs ? 0 : costs);
  }
};

// The vectors of the problem in T and, over them, in float64: the one is done when the other
// begins.
template <typename T>
struct Pieces {
  double* u;
  Problem<T> p;
  Problem<double, T> exact;

  __host__ __device__ Pieces(Memory& memory, int64_t n, int64_t m) {
    u = memory.take<double>(n);
    Memory over = memory;
    p = device::place_vectors<T>(over, n, m, m);
    exact = device::place_vectors<double, T>(memory, n, m, m);
  }
};

template <typename T>
Layout layout_of(int64_t n, int64_t m) {
  const int64_t rows = n < m ? n : m, columns = n < m ? m : n;
  Memory of_vectors{nullptr}, of_costs{nullptr};
  Pieces<T>(of_vectors, rows, columns);
  of_costs.take<T>(rows * columns);
  Layout layout{of_vectors.used, of_costs.used, false, false};
  const int64_t rest = kMostShared - static_cast<int64_t>(sizeof(Block<kBlockThreads>::Exchange));
  layout.shared_vectors = layout.vectors <= rest;
  layout.shared_costs = layout.vectors + layout.costs <= rest;
  return layout;
}

template <int kThreads>
struct Solver : Block<kThreads> {
  // A warp a row of what lies row by row in memory.
  template <typename T, class F>
  __device__ __forceinline__ void each_pair(const Costs<T>& costs, int32_t n, int32_t m,
                                            const F& f) const {
    const bool by_columns = costs.row < costs.column;
    const int32_t slow = by_columns ? m : n, fast = by_columns ? n : m;
    for (int32_t s = this->warp(); s < slow; s += this->kWarps) {
      for (int32_t k = this->lane(); k < fast; k += 32) f(by_columns ? k : s, by_columns ? s : k);
    }
  }

  template <typename T>
  __device__ __forceinline__ Contents load_costs(const Costs<T>& costs, bool maximize,
                                                 const Problem<T>& p) const {
    const T sign = maximize ? T{-1} : T{1}, infinity = static_cast<T>(kInfinity);
    T* const to = const_cast<T*>(p.cost);
    bool bad = false, forbids = false;
    T size = T{0};
    each_pair(costs, p.n, p.m, [&](int32_t i, int32_t j) {
      const bool allowed =
          costs.mask == nullptr || costs.mask[i * costs.mask_row + j * costs.mask_column] != 0;
      const T c = allowed ? sign * costs.data[i * costs.row + j * costs.column] : infinity;
      to[int64_t{i} * p.ld + j] = c;
      bad = bad || !(c > -infinity);
      forbids = forbids || c == infinity;
      const T own = c < T{0} ? -c : c;
      if (own < infinity && own > size) size = own;
    });
    // the smallest of numbers that are 0 where something was found
    const T none = this->smallest(bad ? T{0} : T{1}), free = this->smallest(forbids ? T{0} : T{1});
    size = -this->smallest(-size);
    this->sync();
    return {free == T{0}, none == T{0}, static_cast<double>(size)};
  }

  // The costs that are there serve for both.
  template <typename T, class E>
  __device__ __forceinline__ void load_exact(const Costs<T>&, bool, const Problem<T>&,
                                             const E&) const {
    this->sync();
  }

  // Whether no matching can be cheaper by more than one rounding of the total: the duality gap, in
  // float64, of the columns' potentials.
  __device__ __forceinline__ bool is_optimal(const Problem<float>& p, const double*) const {
    double gap = 0.0, size = 0.0;
    for (int32_t i = this->warp(); i < p.n; i += this->kWarps) {
      double least = kInfinity;
      for (int32_t j = this->lane(); j < p.m; j += 32) {
        const double c = static_cast<double>(p.at(i, j)) - static_cast<double>(p.v[j]);
        if (c < least) least = c;
      }
      least = device::warp_least(device::Place<double>{least, 0}).value;
      if (this->lane() == 0) {
        const int32_t j = p.column_of[i];
        const double c = static_cast<double>(p.at(i, j));
        gap += (c - static_cast<double>(p.v[j])) - least;
        size += c < 0.0 ? -c : c;
      }
    }
    gap = this->sum(gap);
    size = this->sum(size);
    return gap <= size * (1.0 / (1 << 23));
  }
};

template <typename T, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentThreads / kThreads)
    assignment_kernel(const __grid_constant__ AssignmentBatch<T> a,
                      const __grid_constant__ Layout layout) {
  const int64_t b = blockIdx.x;
  const bool turned = a.n > a.m;
  char* shared = cuda::dynamic_shared<char>();
  char* global = a.workspace + b * layout.workspace();
  Solver<kThreads> team;
  team.exchange = reinterpret_cast<typename Block<kThreads>::Exchange*>(shared);
  shared += sizeof(typename Block<kThreads>::Exchange);
  Memory of_vectors{layout.shared_vectors ? shared : global};
  const int64_t rows = turned ? a.m : a.n, columns = turned ? a.n : a.m;
  Pieces<T> pieces(of_vectors, rows, columns);
  (layout.shared_vectors ? shared : global) += layout.vectors;
  pieces.p.cost = pieces.exact.cost = reinterpret_cast<T*>(layout.shared_costs ? shared : global);
  Costs<T> costs = a.costs;
  costs.data += b * a.cost_batch;
  if (costs.mask != nullptr) costs.mask += b * a.mask_batch;
  const Matching<T> out{a.out.row_to_col + b * a.n, a.out.col_to_row + b * a.m, a.out.total + b,
                        a.out.row_dual + b * a.n, a.out.col_dual + b * a.m};
  device::solve_assignment(team, device::lying(costs, turned), turned, a.maximize, pieces.p,
                           pieces.exact, pieces.u, out);
}

template <typename T, int kThreads>
cudaError_t run(const AssignmentBatch<T>& a, const Layout& layout, cudaStream_t stream) {
  const int64_t shared =
      static_cast<int64_t>(sizeof(typename Block<kThreads>::Exchange)) + layout.shared();
  return cuda::launch(assignment_kernel<T, kThreads>, a.batch, kThreads,
                      static_cast<size_t>(shared), stream, a, layout);
}

}  // namespace

template <typename T>
int64_t assignment_workspace(int64_t n, int64_t m) {
  return layout_of<T>(n, m).workspace();
}

template <typename T>
cudaError_t assign(const AssignmentBatch<T>& a, cudaStream_t stream) {
  if (a.batch == 0) return cudaSuccess;
  const Layout layout = layout_of<T>(a.n, a.m);
  if (a.n <= kWarpColumns && a.m <= kWarpColumns) return run<T, 32>(a, layout, stream);
  return run<T, kBlockThreads>(a, layout, stream);
}

template int64_t assignment_workspace<float>(int64_t n, int64_t m);
template int64_t assignment_workspace<double>(int64_t n, int64_t m);
template cudaError_t assign<float>(const AssignmentBatch<float>& a, cudaStream_t stream);
template cudaError_t assign<double>(const AssignmentBatch<double>& a, cudaStream_t stream);

}  // namespace saccade::transport::exact
