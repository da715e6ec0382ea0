// Operands as the products read them: chunk after chunk of a tile of rows, each as it lies in
// shared memory. One pass over a weight or a gradient, whatever their strides.
#include "kan/cuda_plan.cuh"

namespace saccade::kan_gpu {
namespace {

constexpr int kPackThreads = 256;

template <class T>
__device__ __forceinline__ float element(const Edges& edges, int64_t head, int64_t o, int64_t i,
                                         int64_t n) {
  return cuda::to_float(
      static_cast<const T*>(edges.data)[head * edges.stride[0] + o * edges.stride[1] +
                                        i * edges.stride[2] + n * edges.stride[3]]);
}

// Rows: outputs. k: the functions of the inputs in order, then the silu terms.
template <class T>
struct ForwardWeight {
  Layer layer;

  __device__ float operator()(const Plan& plan, int head, int row, int chunk, int t, int j) const {
    if (row >= layer.outputs) return 0.f;
    if (chunk >= plan.depth) {
      const int input = (chunk - plan.depth) * kDepth + t * kUnit + j;
      return input < layer.inputs ? element<T>(layer.base_weight, head, row, input, 0) : 0.f;
    }
    const int unit = chunk * kUnits + t, input = unit / plan.per_input;
    const int n = unit % plan.per_input * kUnit + j;
    const bool present = input < layer.inputs && n < layer.basis.count;
    return present ? element<T>(layer.weight, head, row, input, n) : 0.f;
  }
};

// Rows: columns of the features' gradient, then inputs of the silu terms. k: outputs.
template <class T>
struct Weight {
  Layer layer;

  __device__ float operator()(const Plan& plan, int head, int row, int chunk, int t, int j) const {
    const int o = chunk * kDepth + t * kUnit + j, block = row / kRows, column = row % kRows;
    if (o >= layer.outputs) return 0.f;
    if (block >= plan.columns) {
      const int input = (block - plan.columns) * kRows + column;
      return input < layer.inputs ? element<T>(layer.base_weight, head, o, input, 0) : 0.f;
    }
    const ColumnUnit unit = column_unit(plan, layer, block, column / kUnit);
    const int n = unit.first + column % kUnit;
    const bool present = unit.present && n < layer.basis.count;
    return present ? element<T>(layer.weight, head, o, unit.input, n) : 0.f;
  }
};

// grad_out [h, M, O]. Rows: M, k: O; or, turned, rows: O, k: M.
template <class T, bool kTurned>
struct Grad {
  Layer layer;
  const T* grad_out;

  __device__ float operator()(const Plan&, int head, int row, int chunk, int t, int j) const {
    const int k = chunk * kDepth + t * kUnit + j;
    const int r = kTurned ? k : row, o = kTurned ? row : k;
    if (r >= layer.rows || o >= layer.outputs) return 0.f;
    return cuda::to_float(grad_out[(int64_t{head} * layer.rows + r) * layer.outputs + o]);
  }
};

template <class T, class Source>
__global__ void __launch_bounds__(kPackThreads)
    pack_kernel(Source source, T* packed, int tiles, int chunks, int64_t pieces) {
  constexpr int vector = cuda::kVector<T>, of_tile = kTile / vector;
  const Plan plan(source.layer);
  for (int64_t p = int64_t{blockIdx.x} * kPackThreads + threadIdx.x; p < pieces;
       p += int64_t{gridDim.x} * kPackThreads) {
    const int within = static_cast<int>(p % of_tile);
    const int64_t tile = p / of_tile;
    const int chunk = static_cast<int>(tile % chunks);
    const int row_tile = static_cast<int>(tile / chunks % tiles);
    const int head = static_cast<int>(tile / chunks / tiles);
    const int t = within % kUnits, row = within / kUnits % kRows;
    const int first = within / (kUnits * kRows) * vector;
    cuda::Vector<T> v;
#pragma unroll
    for (int i = 0; i < vector; ++i)
      v.element[i] =
          cuda::from_float<T>(source(plan, head, row_tile * kRows + row, chunk, t, first + i));
    *reinterpret_cast<cuda::Vector<T>*>(packed + p * vector) = v;
  }
}

template <class T, class Source>
cudaError_t pack(const Source& source, void* packed, int tiles, int chunks, cudaStream_t stream) {
  const int64_t pieces = int64_t{source.layer.heads} * tiles * chunks * (kTile / cuda::kVector<T>);
  if (pieces == 0) return cudaSuccess;
  return cuda::launch(pack_kernel<T, Source>, most_blocks(ceil_div<int64_t>(pieces, kPackThreads)),
                      kPackThreads, 0, stream, source, static_cast<T*>(packed), tiles, chunks,
                      pieces);
}

}  // namespace

cudaError_t pack_forward_weight(const Layer& layer, void* packed, cudaStream_t stream) {
  const Plan plan(layer);
  return dispatch(layer.dtype, [&]<class T>(T) {
    return pack<T>(ForwardWeight<T>{layer}, packed, plan.output_tiles, plan.depth + plan.base_depth,
                   stream);
  });
}

cudaError_t pack_weight(const Layer& layer, void* packed, cudaStream_t stream) {
  const Plan plan(layer);
  return dispatch(layer.dtype, [&]<class T>(T) {
    return pack<T>(Weight<T>{layer}, packed, plan.columns + plan.base_columns, plan.output_depth,
                   stream);
  });
}

cudaError_t pack_grad_rows(const Layer& layer, const void* grad_out, void* packed,
                           cudaStream_t stream) {
  const Plan plan(layer);
  return dispatch(layer.dtype, [&]<class T>(T) {
    return pack<T>(Grad<T, false>{layer, static_cast<const T*>(grad_out)}, packed, plan.row_tiles,
                   plan.output_depth, stream);
  });
}

cudaError_t pack_grad_columns(const Layer& layer, const void* grad_out, void* packed,
                              cudaStream_t stream) {
  const Plan plan(layer);
  return dispatch(layer.dtype, [&]<class T>(T) {
    return pack<T>(Grad<T, true>{layer, static_cast<const T*>(grad_out)}, packed, plan.output_tiles,
                   plan.row_depth, stream);
  });
}

}  // namespace saccade::kan_gpu
