// The wall between torch and the CUDA kernels of spiking neurons: raw pointers, sizes and a stream.
//
// Neurons are counted as they lie in memory, [rows, columns]: a column keeps its channel in every
// row, columns / inner channels of inner columns each. A contiguous [B, C, H, W] has rows B and
// inner H W; channels last it has rows B H W and inner 1; without channels everything is one row.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace saccade::lif {

enum class Dtype { kFloat, kHalf, kBfloat16 };
enum class Charge { kIntegrate, kDecayInput, kKeepInput };
enum class Spikes { kLikeInput, kByte, kBits };
enum class Surrogate {
  kSigmoid,
  kAtan,
  kPiecewiseQuadratic,
  kPiecewiseExp,
  kSoftSign,
  kSuperSpike,
  kErf,
  kRectangle
};

constexpr int kThreads = 128;
constexpr int kSegment = 16;  // steps whose voltages a backward keeps at once

// A number, or in its place one on the device for all neurons, or one a channel.
struct Parameter {
  const float* values;
  int per_channel;  // 0 or 1
  float number;
};

struct Problem {
  Dtype dtype;
  Charge charge;
  Surrogate surrogate;
  bool soft, detach;
  bool aligned;  // four neighbours are one access in every tensor
  float alpha, v_reset;
  float inverse;  // 1 / tau where tau is one power of two, so that a product gives the same bits;
                  // or 0
  Parameter tau, threshold;
  const float *weight, *bias;  // of the affine map, [C], or null
  int64_t steps, rows;
  int columns, inner;
  int64_t x_step, residual_step;  // elements from one time step to the next
  const void *x, *residual;       // residual null where absent
  const float* v0;                // [rows, columns], or null: v_reset
};

struct Forward {
  Problem problem;
  Spikes kind;
  int last;       // length of the axis that bits are packed along; it divides columns
  void* spikes;   // [steps, rows, columns], of bits [steps, rows, columns / last, ceil(last / 8)]
  float* v_last;  // [rows, columns]
  float* v_seq;   // [steps, rows, columns], or null
};

struct Backward {
  Problem problem;
  int64_t grad_step;             // elements from one time step of grad_spikes to the next
  const void* grad_spikes;       // like x, or null
  const float* grad_v_last;      // [rows, columns], or null
  const float* grad_v_seq;       // [steps, rows, columns], or null
  float* checkpoints;            // [segments(steps) - 1, rows, columns], scratch, or null
  float* partial;                // [kSums, slots, columns], scratch, or null where no sum is wanted
  float* parts;                  // part_numbers, scratch, or null likewise
  void *grad_x, *grad_residual;  // [steps, rows, columns]; grad_residual null where absent
  float* grad_v0;                // [rows, columns], or null
  float *grad_tau, *grad_threshold, *grad_weight, *grad_bias;  // one number or [C]; or null
};

constexpr int kSums = 4;  // tau, threshold, weight, bias

inline int64_t segments(int64_t steps) { return (steps + kSegment - 1) / kSegment; }

// Sums over neurons are cut by sizes alone, and the pieces are added in their order: the same bits
// on every device. A slot is a share of the rows; slot sums of a channel are added in parts.
int64_t slots(const Problem& problem);
int64_t part_numbers(const Problem& problem, bool per_channel);  // sums of parts, channels included

cudaError_t forward(const Forward& arguments, cudaStream_t stream);
cudaError_t backward(const Backward& arguments, cudaStream_t stream);

}  // namespace saccade::lif
