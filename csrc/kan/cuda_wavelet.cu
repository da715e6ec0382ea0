// Wavelets: every edge has a function of its own, so that nothing is shared but the sums. Blocks
// keep a tile of two of the three axes (rows, inputs, outputs) and walk the third; what the walk
// needs is staged in shared memory, 16 steps at a time, and a thread uses it for several results.
#include "kan/cuda_plan.cuh"

namespace saccade::kan_gpu {
namespace {

constexpr int kLines = 64;  // results side by side, one a thread of a group
constexpr int kGroups = kThreads / kLines;
constexpr int kEach = 8;  // results of a thread
constexpr int kAcross = kGroups * kEach;
constexpr int kSteps = 16;                   // of the walk between two barriers
constexpr float kHat = 0.8673250705840776f;  // 2 / (sqrt(3) pi^(1/4))
constexpr float kPi = 3.14159265358979f;

enum Wavelet { kMexicanHat, kMorlet, kDog, kMeyer, kShannon };

struct Wave {
  float value, slope;
};

__device__ __forceinline__ void sine_cosine(float x, float& s, float& c) {
  sincospif(half_turns(x), &s, &c);
}

// The mother wavelet and its derivative.
__device__ __forceinline__ Wave wave(int kind, float z) {
  const float bell = exponential(-0.5f * z * z);
  switch (kind) {
    case kMexicanHat:
      return {kHat * (z * z - 1.f) * bell, kHat * z * (3.f - z * z) * bell};
    case kMorlet: {
      float s, c;
      sine_cosine(5.f * z, s, c);
      return {c * bell, -(5.f * s + z * c) * bell};
    }
    case kDog:
      return {-z * bell, (z * z - 1.f) * bell};
    case kMeyer: {
      const float v = fabsf(z);
      if (v >= 1.f) return {0.f, 0.f};
      const float t = fmaxf(2.f * v - 1.f, 0.f), fall = 1.f - t;
      const float rise = 280.f * t * t * t * fall * fall * fall;
      // the polynomial loses digits near 1, where it is 1 less its value at 1 - t
      const float near = fminf(t, fall);
      const float step =
          near * near * near * near * (35.f - near * (84.f - near * (70.f - 20.f * near)));
      float s, c, sine, cosine;
      sincospif(v, &s, &c);
      sincospif(0.5f * step, &sine, &cosine);
      const float of_step = t > 0.5f ? cosine : sine, of_rest = t > 0.5f ? sine : cosine;
      const float slope = kPi * c * of_rest - 0.5f * kPi * rise * s * of_step;
      // NaN stays: v is one then
      return {s * of_rest + 0.f * z, z > 0.f ? slope : (z < 0.f ? -slope : 0.f * z)};
    }
    default: {
      if (z == 0.f) return {1.f, 0.f};
      float s, c;
      sine_cosine(z, s, c);
      const float value = __fdividef(s, z), square = z * z;
      // the quotient loses all digits near 0
      const float series =
          z * (square * (0.033333335f - square * (0.0011904762f - square * 2.2045855e-05f)) -
               0.33333334f);
      return {value, fabsf(z) < 0.5f ? series : __fdividef(c - value, z)};
    }
  }
}

__device__ __forceinline__ float load_edge(const Edges& edges, Dtype dtype, int64_t head, int64_t o,
                                           int64_t i) {
  return load_number(edges.data, dtype,
                     head * edges.stride[0] + o * edges.stride[1] + i * edges.stride[2]);
}

// Parameters of kSteps x kLines edges.
struct EdgeStage {
  float shift[kSteps][kLines], scale[kSteps][kLines], weight[kSteps][kLines], base[kSteps][kLines];
};

__device__ __forceinline__ void stage_edge(const Layer& l, EdgeStage& stage, int step, int line,
                                           int head, int o, int i) {
  const bool present = o < l.outputs && i < l.inputs;
  const int64_t edge = (int64_t{head} * l.outputs + o) * l.inputs + i;
  stage.shift[step][line] = present ? l.basis.points[edge] : 0.f;
  stage.scale[step][line] = present ? __fdividef(1.f, l.basis.scales[edge]) : 0.f;
  stage.weight[step][line] = present ? load_edge(l.weight, l.dtype, head, o, i) : 0.f;
  stage.base[step][line] = present && l.base_weight.data != nullptr
                               ? load_edge(l.base_weight, l.dtype, head, o, i)
                               : 0.f;
}

__device__ __forceinline__ float load_row(const void* data, Dtype dtype, const Layer& l, int head,
                                          int r, int at, int width) {
  if (r >= l.rows || at >= width) return 0.f;
  return load_number(data, dtype, (int64_t{head} * l.rows + r) * width + at);
}

// A tile of rows x outputs; walks the inputs.
__global__ void __launch_bounds__(kThreads)
    wavelet_forward_kernel(const __grid_constant__ Forward f, int output_tiles, int row_tiles) {
  const Layer& l = f.layer;
  EdgeStage& stage = *cuda::dynamic_shared<EdgeStage>();
  float (&x)[kSteps][kAcross] = *reinterpret_cast<float (*)[kSteps][kAcross]>(&stage + 1);
  const int block = static_cast<int>(blockIdx.x), rest = block / output_tiles;
  const int first_o = block % output_tiles * kLines, first_r = rest % row_tiles * kAcross;
  const int head = rest / row_tiles;
  const int line = static_cast<int>(threadIdx.x) % kLines;
  const int group = static_cast<int>(threadIdx.x) / kLines;
  float sum[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) sum[e] = 0.f;
  for (int first = 0; first < l.inputs; first += kSteps) {
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kSteps * kLines; at += kThreads)
      stage_edge(l, stage, at % kSteps, at / kSteps, head, first_o + at / kSteps,
                 first + at % kSteps);
    for (int at = static_cast<int>(threadIdx.x); at < kSteps * kAcross; at += kThreads)
      x[at % kSteps][at / kSteps] =
          load_row(l.x, l.x_dtype, l, head, first_r + at / kSteps, first + at % kSteps, l.inputs);
    __syncthreads();
    const int steps = min(kSteps, l.inputs - first);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      const float shift = stage.shift[step][line], scale = stage.scale[step][line];
      const float weight = stage.weight[step][line], base = stage.base[step][line];
#pragma unroll 2
      for (int e = 0; e < kEach; ++e) {
        const float u = x[step][group * kEach + e];
        const float value = wave(l.basis.option, (u - shift) * scale).value;
        sum[e] += weight * value;
        if (l.base_weight.data != nullptr) sum[e] += base * silu(u);
      }
    }
  }
  const int o = first_o + line;
  if (o >= l.outputs) return;
  const float bias =
      f.bias == nullptr ? 0.f : load_number(f.bias, l.dtype, int64_t{head} * l.outputs + o);
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int r = first_r + group * kEach + e;
    if (r < l.rows)
      store_number(f.y, l.dtype, (int64_t{head} * l.rows + r) * l.outputs + o, sum[e] + bias);
  }
}

// A tile of rows x inputs; walks the outputs.
__global__ void __launch_bounds__(kThreads)
    wavelet_input_kernel(const __grid_constant__ Backward b, int input_tiles, int row_tiles) {
  const Layer& l = b.layer;
  EdgeStage& stage = *cuda::dynamic_shared<EdgeStage>();
  float (&grad)[kSteps][kAcross] = *reinterpret_cast<float (*)[kSteps][kAcross]>(&stage + 1);
  const int block = static_cast<int>(blockIdx.x), rest = block / input_tiles;
  const int first_i = block % input_tiles * kLines, first_r = rest % row_tiles * kAcross;
  const int head = rest / row_tiles;
  const int line = static_cast<int>(threadIdx.x) % kLines;
  const int group = static_cast<int>(threadIdx.x) / kLines;
  float sum[kEach], base[kEach], u[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    sum[e] = base[e] = 0.f;
    u[e] = load_row(l.x, l.x_dtype, l, head, first_r + group * kEach + e, first_i + line, l.inputs);
  }
  for (int first = 0; first < l.outputs; first += kSteps) {
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kSteps * kLines; at += kThreads)
      stage_edge(l, stage, at / kLines, at % kLines, head, first + at / kLines,
                 first_i + at % kLines);
    for (int at = static_cast<int>(threadIdx.x); at < kSteps * kAcross; at += kThreads)
      grad[at % kSteps][at / kSteps] = load_row(b.grad_out, l.dtype, l, head, first_r + at / kSteps,
                                                first + at % kSteps, l.outputs);
    __syncthreads();
    const int steps = min(kSteps, l.outputs - first);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      const float shift = stage.shift[step][line], scale = stage.scale[step][line];
      const float factor = stage.weight[step][line] * scale, of_base = stage.base[step][line];
#pragma unroll
      for (int e = 0; e < kEach; ++e) {
        const float g = grad[step][group * kEach + e];
        sum[e] += g * factor * wave(l.basis.option, (u[e] - shift) * scale).slope;
        base[e] += g * of_base;
      }
    }
  }
  if (first_i + line >= l.inputs) return;
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int r = first_r + group * kEach + e;
    if (r >= l.rows) continue;
    if (l.base_weight.data != nullptr) sum[e] += base[e] * silu_slope(u[e]);
    store_number(b.grad_x, l.x_dtype, (int64_t{head} * l.rows + r) * l.inputs + first_i + line,
                 sum[e]);
  }
}

constexpr int kEdges = 4;  // outputs of a thread of the kernel below

// A tile of outputs x inputs; walks a share of the rows. Slots [share, 4, h, O, I]: gradients of
// weight, shift, scale and of the silu term's weight.
__global__ void __launch_bounds__(kThreads)
    wavelet_edge_kernel(const __grid_constant__ Backward b, int input_tiles, int output_tiles,
                        int shares) {
  const Layer& l = b.layer;
  float (&x)[kSteps][kLines] = *cuda::dynamic_shared<float[kSteps][kLines]>();
  constexpr int kOutputs = kGroups * kEdges;
  float (&grad)[kSteps][kOutputs] = *reinterpret_cast<float (*)[kSteps][kOutputs]>(&x + 1);
  int rest = static_cast<int>(blockIdx.x);
  const int first_i = rest % input_tiles * kLines;
  rest /= input_tiles;
  const int first_o = rest % output_tiles * kOutputs;
  rest /= output_tiles;
  const int head = rest % l.heads, share = rest / l.heads;
  const int line = static_cast<int>(threadIdx.x) % kLines;
  const int group = static_cast<int>(threadIdx.x) / kLines;
  const int i = first_i + line;
  float shift[kEdges], scale[kEdges], factor[kEdges], sum[4][kEdges];
#pragma unroll
  for (int e = 0; e < kEdges; ++e) {
    const int o = first_o + group * kEdges + e;
    const bool present = o < l.outputs && i < l.inputs;
    const int64_t edge = (int64_t{head} * l.outputs + o) * l.inputs + i;
    shift[e] = present ? l.basis.points[edge] : 0.f;
    scale[e] = present ? __fdividef(1.f, l.basis.scales[edge]) : 0.f;
    factor[e] = present ? load_edge(l.weight, l.dtype, head, o, i) * scale[e] : 0.f;
#pragma unroll
    for (int s = 0; s < 4; ++s) sum[s][e] = 0.f;
  }
  const int first_r = static_cast<int>(int64_t{l.rows} * share / shares);
  const int last_r = static_cast<int>(int64_t{l.rows} * (share + 1) / shares);
  for (int first = first_r; first < last_r; first += kSteps) {
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kSteps * kLines; at += kThreads)
      x[at / kLines][at % kLines] =
          load_row(l.x, l.x_dtype, l, head, first + at / kLines, first_i + at % kLines, l.inputs);
    for (int at = static_cast<int>(threadIdx.x); at < kSteps * kOutputs; at += kThreads)
      grad[at / kOutputs][at % kOutputs] = load_row(
          b.grad_out, l.dtype, l, head, first + at / kOutputs, first_o + at % kOutputs, l.outputs);
    __syncthreads();
    const int steps = min(kSteps, last_r - first);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      const float u = x[step][line], of_base = b.grad_base_weight.data == nullptr ? 0.f : silu(u);
#pragma unroll
      for (int e = 0; e < kEdges; ++e) {
        const float g = grad[step][group * kEdges + e], z = (u - shift[e]) * scale[e];
        const Wave w = wave(l.basis.option, z);
        const float slope = g * factor[e] * w.slope;
        sum[0][e] += g * w.value;
        sum[1][e] -= slope;
        sum[2][e] -= slope * z;
        sum[3][e] += g * of_base;
      }
    }
  }
  const int64_t edges = int64_t{l.heads} * l.outputs * l.inputs;
#pragma unroll
  for (int e = 0; e < kEdges; ++e) {
    const int o = first_o + group * kEdges + e;
    if (o >= l.outputs || i >= l.inputs) continue;
    const int64_t edge = (int64_t{head} * l.outputs + o) * l.inputs + i;
#pragma unroll
    for (int s = 0; s < 4; ++s)
      b.weight_slots[(int64_t{s} * shares + share) * edges + edge] = sum[s][e];
  }
}

constexpr size_t kStageBytes = sizeof(EdgeStage) + sizeof(float[kSteps][kAcross]);
constexpr size_t kEdgeBytes =
    sizeof(float[kSteps][kLines]) + sizeof(float[kSteps][kGroups * kEdges]);

}  // namespace

int wavelet_splits(const Layer& l) {
  const int64_t blocks =
      int64_t{l.heads} * ceil_div(l.inputs, kLines) * ceil_div(l.outputs, kGroups * kEdges);
  return Plan::splits(blocks, ceil_div(l.rows, kSteps));
}

cudaError_t wavelet_forward(const Forward& f, cudaStream_t stream) {
  const Layer& l = f.layer;
  const int across = ceil_div(l.outputs, kLines), down = ceil_div(l.rows, kAcross);
  return cuda::launch(wavelet_forward_kernel, int64_t{across} * down * l.heads, kThreads,
                      kStageBytes, stream, f, across, down);
}

cudaError_t wavelet_backward(const Backward& b, cudaStream_t stream) {
  const Layer& l = b.layer;
  cudaError_t error = cudaSuccess;
  if (b.grad_x != nullptr) {
    const int across = ceil_div(l.inputs, kLines), down = ceil_div(l.rows, kAcross);
    error = cuda::launch(wavelet_input_kernel, int64_t{across} * down * l.heads, kThreads,
                         kStageBytes, stream, b, across, down);
  }
  const bool edges = b.grad_weight.data != nullptr || b.grad_base_weight.data != nullptr ||
                     b.grad_points != nullptr || b.grad_scales != nullptr;
  if (error != cudaSuccess || !edges) return error;
  const int across = ceil_div(l.inputs, kLines), down = ceil_div(l.outputs, kGroups * kEdges);
  const int shares = wavelet_splits(l);
  error = cuda::launch(wavelet_edge_kernel, int64_t{across} * down * l.heads * shares, kThreads,
                       kEdgeBytes, stream, b, across, down, shares);
  const int64_t entries = int64_t{l.heads} * l.outputs * l.inputs;
  const auto sum = [&](int table, const Target& target) {
    if (error == cudaSuccess && target.data != nullptr)
      error = sum_slots(b.weight_slots + int64_t{table} * shares * entries, shares, entries, target,
                        stream);
  };
  sum(0, edge_target(b.grad_weight, l, 1));
  sum(1, contiguous_target(b.grad_points, Dtype::kFloat, entries));
  sum(2, contiguous_target(b.grad_scales, Dtype::kFloat, entries));
  sum(3, edge_target(b.grad_base_weight, l, 1));
  return error;
}

}  // namespace saccade::kan_gpu
