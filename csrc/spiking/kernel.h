// The wall between torch and the kernels of the spiking neurons: raw pointers, sizes and strides.
//
// T steps of N = A * C * I neurons, memory in that order; the channel of neuron n is (n / I) % C. A
// kernel runs all steps of a tile of neurons, whose potentials stay in the nearest cache meanwhile.
// Tiles follow from sizes alone, so that results do not depend on the number of threads.
#pragma once

#include <cstdint>

namespace saccade::spiking {

enum Charge { kIntegrate, kDecayInput, kLeak };

enum Surrogate {
  kSigmoid,
  kAtan,
  kPiecewiseQuadratic,
  kPiecewiseExp,
  kSoftSign,
  kSuperSpike,
  kErf,
  kRectangle,
};

enum SpikeCode { kFloatSpikes, kByteSpikes, kBitSpikes };

// Places of the differentiable inputs in the schema: the bits of `wanted`.
enum Input { kX, kV0, kTau, kThreshold, kWeight, kBias, kResidual, kInputs };

struct Problem {
  int64_t steps, outer, channels, inner;
  double tau, threshold, reset, alpha;
  Charge charge;
  bool hard_reset, detach_reset;
  Surrogate surrogate;
  bool smooth;

  int64_t neurons() const { return outer * channels * inner; }
};

// Neurons [begin, begin + count).
struct Tile {
  int64_t begin, count;
};

// [T, N] with N contiguous.
template <typename T>
struct Steps {
  T* data;
  int64_t stride;
};

// One number for every channel, or one for all.
template <typename T>
struct PerChannel {
  const T* data;  // null: the number in Problem
  bool shared;
};

template <typename T>
struct Inputs {
  Steps<const T> x;
  const T* v0;  // [N], or null: v_reset
  PerChannel<T> tau, threshold;
  const T *weight, *bias;   // [C], both or none
  Steps<const T> residual;  // data may be null
};

template <typename T>
struct ForwardArgs {
  Problem problem;
  Inputs<T> in;
  SpikeCode spike_code;
  bool stream;   // write spikes past the caches
  int64_t row;   // bits: neurons of a row, each of which starts at a byte of its own
  void* spikes;  // [T, N] of T or of bytes, or [T, N / row, ceil(row / 8)]
  T* v_last;     // [N]
  T* v_seq;      // [T, N] or null
};

template <typename T>
struct BackwardArgs {
  Problem problem;
  Inputs<T> in;
  Steps<const T> grad_spikes, grad_v_seq;  // data may be null
  const T* grad_v_last;                    // [N] or null
  bool stream;                             // write grad_x past the caches
  T *grad_x, *grad_residual;               // [T, N] or null
  T* grad_v0;                              // [N] or null
  bool want[kInputs];
};

// Sums over neurons and steps for every channel, accumulated into; null where not wanted.
struct Sums {
  double *tau, *threshold, *weight, *bias;
};

template <typename T>
struct Kernels {
  int64_t width;  // tiles that are not the last of a row of memory hold a multiple of this
  // Scratch that one call needs for tiles of up to `count` neurons, in elements.
  int64_t (*scratch)(const Problem&, int64_t count, bool backward);
  void (*forward)(const ForwardArgs<T>&, const Tile&, T* scratch);
  void (*backward)(const BackwardArgs<T>&, const Tile&, const Sums&, T* scratch);
};

// A linear layer over bits: rows of spikes [M, bytes], weight [O, I], out [M, O].
template <typename T>
struct LinearArgs {
  int64_t rows, inputs, outputs;
  const uint8_t* spikes;
  const T *weight, *bias;  // bias may be null
  T* out;
};

template <typename T>
struct LinearKernels {
  int64_t columns;  // outputs of a panel
  // A panel is [I, columns] of the transposed weight, zeros behind the last output.
  void (*pack)(const LinearArgs<T>&, int64_t first_output, T* panel);
  void (*multiply)(const LinearArgs<T>&, int64_t first_output, const T* panel, int64_t first_row,
                   int64_t rows);
};

// One pair of tables an instruction set, each in its own file.
namespace baseline {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
extern const LinearKernels<float> kLinearFloat;
extern const LinearKernels<double> kLinearDouble;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
extern const LinearKernels<float> kLinearFloat;
extern const LinearKernels<double> kLinearDouble;
}  // namespace avx2
namespace avx512 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
extern const LinearKernels<float> kLinearFloat;
extern const LinearKernels<double> kLinearDouble;
}  // namespace avx512
#endif

}  // namespace saccade::spiking
