// Gradients of x, and of centres, widths and knots. A block owns 128 rows and the functions of a
// few inputs and walks the outputs; what it gets is the gradient of the features, which stays in
// shared memory until every sum that wants it has used it up. Sums over rows go to a slot of the
// block.
#include "kan/cuda_plan.cuh"

namespace saccade::kan_gpu {
namespace {

constexpr int kPitch = kRows + 4;              // of the features' gradient in shared memory
constexpr int kAdjoints = kReach + 1;          // values of a spline at a point
constexpr int kMoves = 2 * kReach + 3;         // knots around a point, one that it was clamped to
constexpr int kAtOnce = kRows / (kMoves + 2);  // inputs whose knots are summed together

struct Shared {
  float* gradient;  // [128, kPitch]
  float* sums;      // [128, inputs of the block]: grad_x
  float* adjoints;  // [128, inputs of the block, kAdjoints], where knots want their gradient
};

// Adds what a pass gives to grad_x and to the splines' values.
__device__ __forceinline__ void use_pass(const Layer& l, const Plan& plan, int head, int first_row,
                                         int block, bool with_x, bool with_knots,
                                         const Shared& shared) {
  const int inputs = plan.inputs_per_block, pass = block % plan.passes;
  const int units = plan.passes > 1 ? kColumnUnits : plan.per_input;
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < kRows * inputs; at += kThreads) {
    const int row = at / inputs, within = at % inputs, r = first_row + row;
    const int input = block / plan.passes * inputs + within;
    if (r >= l.rows || input >= l.inputs) continue;
    const float x = load_number(l.x, l.x_dtype, (int64_t{head} * l.rows + r) * l.inputs + input);
    const float* const gradient = shared.gradient + row * kPitch + within * units * kUnit;
    if (with_x) {
      float sum = pass == 0 ? 0.f : shared.sums[at];
#pragma unroll 1
      for (int unit = 0; unit < units; ++unit) {
        const int first = (pass * kColumnUnits + unit) * kUnit;
        if (first >= l.basis.count) break;
        float slope[kUnit];
        evaluate<true>(l.basis, input, first, x, slope);
#pragma unroll
        for (int j = 0; j < kUnit; ++j) sum += gradient[unit * kUnit + j] * slope[j];
      }
      shared.sums[at] = sum;
    }
    if (with_knots) {
      const SplinePoint p = locate(l.basis, l.basis.points + input * l.basis.stride, x);
      const int lowest = p.interval - l.basis.option, from = pass * kColumnUnits * kUnit;
#pragma unroll
      for (int i = 0; i < kAdjoints; ++i) {
        float& adjoint = shared.adjoints[at * kAdjoints + i];
        if (pass == 0) adjoint = 0.f;
        const int n = lowest + i;
        const bool here = n >= from && n < from + units * kUnit && n < l.basis.count;
        if (p.inside && i <= l.basis.option && here) adjoint += gradient[n - from];
      }
    }
  }
}

// Sums of a pass for centres and widths: a thread has a column and half of the rows.
__device__ __forceinline__ void sum_parameters(const Backward& b, const Plan& plan, int head,
                                               int first_row, int block, int64_t slot,
                                               const Shared& shared) {
  const Layer& l = b.layer;
  const int column = static_cast<int>(threadIdx.x) % kRows;
  const int half = static_cast<int>(threadIdx.x) / kRows;
  const ColumnUnit unit = column_unit(plan, l, block, column / kUnit);
  const int n = unit.first + column % kUnit;
  float2 sum = make_float2(0.f, 0.f);
  if (unit.present && n < l.basis.count) {
#pragma unroll 1
    for (int row = half * (kRows / 2); row < (half + 1) * (kRows / 2); ++row) {
      const int r = first_row + row;
      if (r >= l.rows) break;
      const float x =
          load_number(l.x, l.x_dtype, (int64_t{head} * l.rows + r) * l.inputs + unit.input);
      const float2 slope = by_parameters(l.basis, n, x);
      const float gradient = shared.gradient[row * kPitch + column];
      sum.x += gradient * slope.x;
      sum.y += gradient * slope.y;
    }
  }
  __syncthreads();
  // the features' gradient is used up
  float* const partial = shared.gradient;
  partial[2 * threadIdx.x] = sum.x;
  partial[2 * threadIdx.x + 1] = sum.y;
  __syncthreads();
  const int units = plan.passes > 1 ? kColumnUnits : plan.per_input;
  const int index = static_cast<int>(threadIdx.x);
  const int function = (plan.passes > 1 ? block % plan.passes * kColumnUnits * kUnit : 0) + index;
  if (index < units * kUnit && function < l.basis.count) {
    float points = 0.f, scales = 0.f;
    for (int within = 0; within < plan.inputs_per_block; ++within) {
      for (int part = 0; part < 2; ++part) {
        const int from = 2 * (part * kRows + within * units * kUnit + index);
        points += partial[from];
        scales += partial[from + 1];
      }
    }
    const int64_t at = slot * l.basis.count + function;
    if (b.point_slots != nullptr) b.point_slots[at] = points;
    if (b.scale_slots != nullptr) b.scale_slots[at] = scales;
  }
}

// Gradients of the knots of the block's inputs, from those of the splines' values.
__device__ __forceinline__ void sum_knots(const Backward& b, const Plan& plan, int head,
                                          int first_row, int first_input, int64_t slot,
                                          const Shared& shared) {
  const Layer& l = b.layer;
  const int inputs = plan.inputs_per_block, order = l.basis.option, last = l.basis.knots - 1;
  float* const moves = shared.gradient;  // [128, kAtOnce, kMoves]
#pragma unroll 1
  for (int start = 0; start < inputs; start += kAtOnce) {
    const int count = min(kAtOnce, inputs - start);
    __syncthreads();
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < kRows * count; at += kThreads) {
      const int row = at / count, within = start + at % count, r = first_row + row;
      const int input = first_input + within;
      float* const move = moves + at * kMoves;
      if (r >= l.rows || input >= l.inputs) {
        move[0] = __int_as_float(-(1 << 30));
        move[1] = __int_as_float(-1);
        continue;
      }
      const float x = load_number(l.x, l.x_dtype, (int64_t{head} * l.rows + r) * l.inputs + input);
      const float* const knots = l.basis.points + input * l.basis.stride;
      const SplinePoint p = locate(l.basis, knots, x);
      float adjoint[kAdjoints], of_knot[2 * kReach];
      float moved = 0.f;
      int border = -1;
#pragma unroll
      for (int i = 0; i < kAdjoints; ++i)
        adjoint[i] = shared.adjoints[(row * inputs + within) * kAdjoints + i];
#pragma unroll
      for (int i = 0; i < 2 * kReach; ++i) of_knot[i] = 0.f;
      if (p.at != x && x == x) {
        // the place of a clamped point moves with the border
        border = x < p.at ? order : last - order;
        float slope[kAdjoints];
        slopes(p, knots, last, order, slope);
#pragma unroll
        for (int i = 0; i < kAdjoints; ++i) {
          if (i <= order) moved += adjoint[i] * slope[i];
        }
      }
      knot_gradients(p, order, adjoint, of_knot);
      move[0] = __int_as_float(p.interval + 1 - kReach);
      move[1] = __int_as_float(border);
      move[2] = moved;
#pragma unroll
      for (int i = 0; i < 2 * kReach; ++i) move[3 + i] = of_knot[i];
    }
    __syncthreads();
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < count * l.basis.knots; at += kThreads) {
      const int within = at / l.basis.knots, m = at % l.basis.knots;
      const int input = first_input + start + within;
      if (input >= l.inputs) continue;
      float sum = 0.f;
      for (int row = 0; row < kRows; ++row) {
        const float* const move = moves + (row * count + within) * kMoves;
        const int offset = m - __float_as_int(move[0]);
        if (offset >= 0 && offset < 2 * kReach) sum += move[3 + offset];
        if (m == __float_as_int(move[1])) sum += move[2];
      }
      b.point_slots[(slot * l.inputs + input) * l.basis.knots + m] = sum;
    }
  }
}

// The product of a tile of rows of grad_out (numbered over the heads) and a block of columns.
template <class T, class Store>
__device__ __forceinline__ void multiply_grad(const Backward& b, const Plan& plan, int line,
                                              int column, Store store) {
  const int64_t all_columns = plan.columns + plan.base_columns;
  const T* const grad =
      static_cast<const T*>(b.grad_rows) + int64_t{line} * plan.output_depth * kTile;
  const T* const weight =
      static_cast<const T*>(b.weight) +
      (line / plan.row_tiles * all_columns + column) * plan.output_depth * kTile;
  Results results;
  accumulate<T>(
      cuda::dynamic_shared<T>(), 0, plan.output_depth,
      [&](int chunk, T* left, T* right) {
        copy_tile(left, grad + int64_t{chunk} * kTile);
        copy_tile(right, weight + int64_t{chunk} * kTile);
      },
      results);
  for_each_result(results, store);
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident<T>)
    input_gradient_kernel(const __grid_constant__ Backward b, const __grid_constant__ Plan plan,
                          int groups) {
  const Layer& l = b.layer;
  Shared shared;
  shared.gradient = cuda::dynamic_shared<float>();
  shared.sums = shared.gradient + kRows * kPitch;
  shared.adjoints = shared.sums + kRows * plan.inputs_per_block;
  const int group = static_cast<int>(blockIdx.x) % groups;
  const int line = static_cast<int>(blockIdx.x) / groups;
  const int head = line / plan.row_tiles, first_row = line % plan.row_tiles * kRows;

#pragma unroll 1
  for (int pass = 0; pass < plan.passes; ++pass) {
    const int column = group * plan.passes + pass;
    multiply_grad<T>(b, plan, line, column, [&](int down, int across, float value) {
      shared.gradient[down * kPitch + across] = value;
    });
    __syncthreads();
    const bool spline = l.basis.code == kBspline;
    use_pass(l, plan, head, first_row, column, b.grad_x != nullptr,
             spline && b.point_slots != nullptr, shared);
    if (!spline && (b.point_slots != nullptr || b.scale_slots != nullptr))
      sum_parameters(b, plan, head, first_row, column, int64_t{line} * groups + group, shared);
    __syncthreads();
  }

  const int first_input = group * plan.inputs_per_block;
  if (b.grad_x != nullptr) {
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < kRows * plan.inputs_per_block;
         at += kThreads) {
      const int r = first_row + at / plan.inputs_per_block;
      const int input = first_input + at % plan.inputs_per_block;
      if (r >= l.rows || input >= l.inputs) continue;
      const int64_t to = (int64_t{head} * l.rows + r) * l.inputs + input;
      const float base = b.base_grad != nullptr ? b.base_grad[to] : 0.f;
      store_number(b.grad_x, l.x_dtype, to, shared.sums[at] + base);
    }
  }
  if (l.basis.code == kBspline && b.point_slots != nullptr)
    sum_knots(b, plan, head, first_row, first_input, line, shared);
}

// The silu term's share of grad_x, to base_grad: 128 rows and 128 inputs a block.
template <class T>
__global__ void __launch_bounds__(kThreads, kResident<T>)
    base_gradient_kernel(const __grid_constant__ Backward b, const __grid_constant__ Plan plan) {
  const Layer& l = b.layer;
  const int column = static_cast<int>(blockIdx.x) % plan.base_columns;
  const int line = static_cast<int>(blockIdx.x) / plan.base_columns;
  const int head = line / plan.row_tiles, first_row = line % plan.row_tiles * kRows;
  multiply_grad<T>(b, plan, line, plan.columns + column, [&](int down, int across, float value) {
    const int r = first_row + down, input = column * kRows + across;
    if (r >= l.rows || input >= l.inputs) return;
    const int64_t at = (int64_t{head} * l.rows + r) * l.inputs + input;
    b.base_grad[at] = value * silu_slope(load_number(l.x, l.x_dtype, at));
  });
}

}  // namespace

cudaError_t input_gradient(const Backward& b, cudaStream_t stream) {
  const Layer& l = b.layer;
  const Plan plan(l);
  const bool functions =
      b.grad_x != nullptr || b.point_slots != nullptr || b.scale_slots != nullptr;
  cudaError_t error = pack_grad_rows(l, b.grad_out, b.grad_rows, stream);
  if (error == cudaSuccess) error = pack_weight(l, b.weight, stream);
  if (error != cudaSuccess) return error;
  if (b.base_grad != nullptr) {
    const int64_t blocks = int64_t{plan.base_columns} * plan.row_tiles * l.heads;
    error = dispatch(l.dtype, [&]<class T>(T) {
      return cuda::launch(base_gradient_kernel<T>, blocks, kThreads, 4 * kTile * sizeof(T), stream,
                          b, plan);
    });
  }
  if (error != cudaSuccess || plan.columns == 0 || !functions) return error;

  const int groups = plan.columns / plan.passes;
  const bool spline = l.basis.code == kBspline;
  const int own = plan.inputs_per_block * (spline && b.point_slots != nullptr ? 1 + kAdjoints : 1);
  const size_t wanted = sizeof(float) * kRows * (kPitch + own);
  error = dispatch(l.dtype, [&]<class T>(T) {
    const size_t tiles = 4 * kTile * sizeof(T);
    return cuda::launch(input_gradient_kernel<T>, int64_t{groups} * plan.row_tiles * l.heads,
                        kThreads, wanted > tiles ? wanted : tiles, stream, b, plan, groups);
  });
  if (error != cudaSuccess) return error;
  const int64_t lines = int64_t{l.heads} * plan.row_tiles;
  if (b.point_slots != nullptr && spline) {
    // shared knots: the inputs are slots too
    const int64_t entries = l.basis.stride == 0 ? l.basis.knots : int64_t{l.inputs} * l.basis.knots;
    const int64_t count = l.basis.stride == 0 ? lines * l.inputs : lines;
    return sum_slots(b.point_slots, count, entries,
                     contiguous_target(b.grad_points, Dtype::kFloat, entries), stream);
  }
  if (b.point_slots != nullptr)
    error = sum_slots(b.point_slots, lines * groups, l.basis.count,
                      contiguous_target(b.grad_points, Dtype::kFloat, l.basis.count), stream);
  if (error == cudaSuccess && b.scale_slots != nullptr) {
    // one width: the functions are slots too
    const int64_t entries = l.basis.scale_step == 0 ? 1 : l.basis.count;
    error = sum_slots(b.scale_slots, lines * groups * l.basis.count / entries, entries,
                      contiguous_target(b.grad_scales, Dtype::kFloat, entries), stream);
  }
  return error;
}

}  // namespace saccade::kan_gpu
