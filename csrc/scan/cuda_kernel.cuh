// The wall between torch and the CUDA kernels of the scans and of the causal convolution: raw
// pointers, sizes, strides and a stream. ssd_scan is the scan of H * P channels in which the P
// channels of a head share one step size and one decay.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace saccade::scan_device {

enum class Dtype : int { kFloat, kHalf, kBfloat16 };

constexpr int kMostPaths = 8;
constexpr int kMostStates = 256;
constexpr int kMostWidth = 16;

// Element strides; row is a channel, a group or a head, and state is 0 where there is none.
struct View {
  void* data;
  Dtype dtype;
  int64_t batch, path, row, state, step;
};

struct Problem {
  int batch, paths, channels, groups, states;
  int length, height;  // positions, and rows of the map that they fill
  int share;           // channels that share one delta, delta_bias and, if scalar, A
  bool scalar;         // A has one entry a head, not one a channel and state
  bool softplus;
  float least, most;  // bounds of the step size
  int directions[kMostPaths];
  int interval;      // steps between two checkpoints, at least 1
  View u, delta, z;  // z.data may be null
  View b, c;
  bool constant_b, constant_c;  // rows are channels, and neither batch nor step matters
  const float* a;               // [K, D, N], or [D / share] if scalar
  const float* d;               // [K, D] or null
  const float* bias;            // [K, D / share] or null
  const int* sequence;          // null: one sequence
  int64_t sequence_batch, sequence_step;
};

// A state: element strides of [B, K, T, D, N].
struct Checkpoints {
  float* data;
  int64_t batch, path, time, row, state;
};

struct Forward {
  Problem problem;
  const float* initial;  // [B, K, D, N] or null
  View out;              // dtype of u
  Checkpoints checkpoints;
  float* last;     // [B, K, D, N]
  float* scratch;  // forward_scratch floats

  // Parts of scratch, set by forward():
  float* decay;   // [B, K, segments, D, N], where there are several segments
  float* inflow;  // the same
};

struct Backward {
  Problem problem;
  View grad_out;
  Checkpoints checkpoints;
  const float* grad_last;  // [B, K, D, N]
  View grad_u, grad_delta, grad_z;
  View grad_b, grad_c;                 // contiguous float [K, D, N] where B or C is constant
  float *grad_a, *grad_d, *grad_bias;  // of the shape of a, d and bias; the last two may be null
  float* grad_initial;                 // [B, K, D, N] or null
  float* scratch;                      // backward_scratch floats

  // Parts of scratch, set by backward(). Sums over the batch and the segments, and sums over tiles
  // of channels, are added up from slots.
  View y;             // float [K, B, D, L], where there are several paths and z
  float* slots_a;     // [B, segments, K, D, N], or [B, segments, D] if scalar
  float* slots_d;     // [B, segments, K, D], or null
  float* slots_bias;  // the same
  float* slots_b;     // [slots, B, K, G, N, L] by step; constant: [B, segments, K, D, N]
  float* slots_c;
  float* decay;    // [B, K, segments, D, N], where there are several segments
  float* inflow;   // the same
  float* restart;  // [blocks, parts of an interval - 1, states of a thread, threads]
};

// How the work is cut, by sizes alone.
struct Partition {
  int tile;           // channels of a block at a time
  int tiles;          // of a group
  int slots;          // blocks that share the tiles of a group
  int tiles_a_block;  // consecutive ones
  int segments;       // of the length
  int steps;          // of a segment
  int parts;          // of an interval between checkpoints, in the backward
  int64_t restart;    // floats that a block keeps of them

  int64_t blocks(const Problem& p) const {
    return int64_t{p.batch} * p.paths * p.groups * slots * segments;
  }
};

Partition cut_forward(const Problem& problem);
Partition cut_backward(const Problem& problem);

int64_t forward_scratch(const Problem& problem);
int64_t backward_scratch(const Problem& problem);

cudaError_t forward(const Forward& arguments, cudaStream_t stream);
cudaError_t backward(const Backward& arguments, cudaStream_t stream);

// The stages: the scan by an A of [K, D, N] and by a scalar A a head.
cudaError_t scan_forward(const Forward& arguments, const Partition& cut, cudaStream_t stream);
cudaError_t scan_backward(const Backward& arguments, const Partition& cut, cudaStream_t stream);
cudaError_t head_forward(const Forward& arguments, const Partition& cut, cudaStream_t stream);
cudaError_t head_backward(const Backward& arguments, const Partition& cut, cudaStream_t stream);

// From what one segment adds to the state, and from how much it keeps of it, to what flows into
// each: segments in the order of the scan, or against it.
cudaError_t carry(const Problem& problem, int segments, const float* first, const float* decay,
                  float* inflow, bool backwards, cudaStream_t stream);

// out[e] = sum over slots and over `share` neighbours of table[slot][e * share + neighbour].
cudaError_t sum_slots(const float* table, float* out, int64_t entries, int64_t slots, int share,
                      cudaStream_t stream);

// grad_B or grad_C from slots_b or slots_c.
cudaError_t sum_inputs(const Problem& problem, const float* table, int slots, const View& out,
                       cudaStream_t stream);

// grad_dt [B, L, H] from a float table [B, H * P, L].
cudaError_t sum_heads(const Problem& problem, const float* table, const View& out,
                      cudaStream_t stream);

// Several paths: out = sum_k y_k * silu(z); grad_u = sum_k grad_u_k and grad_z. Tables are float
// [K, B, D, L].
cudaError_t join_outputs(const Problem& problem, const float* table, const View& out,
                         cudaStream_t stream);
cudaError_t join_gradients(const Problem& problem, const View& grad_out, const float* table,
                           const float* y, const View& grad_u, const View& grad_z,
                           cudaStream_t stream);

struct Convolution {
  int batch, channels, length, width;
  bool silu;
  View x;
  const float* weight;  // [D, W]
  const float* bias;    // [D] or null
  View initial;         // [B, D, W - 1] or null
  const int* sequence;  // or null
  int64_t sequence_batch, sequence_step;
};

struct ConvolutionForward {
  Convolution problem;
  View out;
};

struct ConvolutionBackward {
  Convolution problem;
  View grad_out, grad_x, grad_initial;
  float *grad_weight, *grad_bias;  // the second may be null
  float* scratch;                  // convolution_scratch floats
};

int64_t convolution_scratch(const Convolution& problem);

cudaError_t convolve_forward(const ConvolutionForward& arguments, cudaStream_t stream);
cudaError_t convolve_backward(const ConvolutionBackward& arguments, cudaStream_t stream);

}  // namespace saccade::scan_device
