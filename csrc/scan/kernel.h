// The wall between torch and the CPU kernels of scans: raw pointers, sizes and strides.
//
// A selective scan is cut into tasks of one batch entry and one block of channels, a lane each; an
// SSD scan into tasks of one batch entry and one head; a convolution into tasks of one batch entry
// and one channel (or block of channels, where these stand side by side). Tasks depend on sizes
// alone, so that results do not depend on the number of threads.
#pragma once

#include <cstdint>

namespace saccade::scan {

// The T of saved states at every chunk-th step. There is room for one more than are used: a size
// that is 1 for some lengths and not for others would make torch.compile compile twice. The last
// slot holds zeros.
constexpr int64_t intervals(int64_t length, int64_t chunk) {
  return chunk == 0 ? 0 : (length + chunk - 1) / chunk + 1;
}

// Element strides of [B, K, D, L]; K is absent from u, z and what is shaped like them.
template <typename T>
struct View {
  T* data;
  int64_t batch, path, channel, position;
};

// B or C: variable [B, K, G, L, padded N], N contiguous, or constant [K, D, N] contiguous.
template <typename T>
struct Coefficient {
  const T* data;
  int64_t batch, path, group, position;
  bool constant;
};

struct SelectiveProblem {
  int64_t batch, channels, length, state, paths, groups;
  int64_t height;
  int64_t chunk;  // steps between saved states, 0: none are saved
  const int64_t* directions;
  bool softplus;
};

template <typename T>
struct SelectiveInputs {
  View<const T> u, delta, z;  // z.data may be null
  const T* a;                 // [K, D, N]
  Coefficient<T> b, c;
  const T* skip;            // [K, D] or null
  const T* delta_bias;      // [K, D] or null
  const T* initial;         // [B, K, D, N] or null
  const int32_t* sequence;  // [B, L] or null
};

template <typename T>
struct SelectiveForward {
  SelectiveProblem problem;
  SelectiveInputs<T> in;
  View<T> out;
  T* last_state;   // [B, K, D, N]
  T* checkpoints;  // [B, K, T, N, D], T = intervals(L, chunk)
};

template <typename T>
struct SelectiveBackward {
  SelectiveProblem problem;
  SelectiveInputs<T> in;
  View<const T> grad_out;
  const T* grad_last_state;  // [B, K, D, N]
  const T* checkpoints;
  View<T> grad_u, grad_delta, grad_z;  // grad_z.data may be null
  T* grad_a;                           // [B, K, D, N], a share for every batch entry
  T* grad_b;                           // constant B: [B, K, D, N], else unused
  T* grad_c;                           // likewise
  T* grad_skip;                        // [B, K, D] or null
  T* grad_bias;                        // [B, K, D] or null
  T* grad_initial;                     // [B, K, D, N] or null
};

struct SsdProblem {
  int64_t batch, length, heads, width, state, groups;
  int64_t chunk;
  bool softplus;
  double dt_min, dt_max;
};

// Element strides of [B, L, H, P]; for dt P is absent, for B and C H counts groups.
template <typename T>
struct Tokens {
  T* data;
  int64_t batch, position, head, width;
};

template <typename T>
struct SsdInputs {
  Tokens<const T> x, dt, z;  // z.data may be null
  const T* a;                // [H]
  Tokens<const T> b, c;      // N contiguous and padded to a multiple of ssd_states
  const T* skip;             // [H, P] or null
  const T* dt_bias;          // [H] or null
  const T* initial;          // [B, H, P, N] or null
  const int32_t* sequence;   // [B, L] or null
};

template <typename T>
struct SsdForward {
  SsdProblem problem;
  SsdInputs<T> in;
  T* out;          // [B, L, H, P]
  T* final_state;  // [B, H, P, N]
  T* checkpoints;  // [B, T, H, P, N]
};

template <typename T>
struct SsdBackward {
  SsdProblem problem;
  SsdInputs<T> in;
  Tokens<const T> grad_out;
  const T* grad_final;  // [B, H, P, N]
  const T* checkpoints;
  T *grad_x, *grad_dt, *grad_z;  // contiguous; grad_z may be null
  T* grad_a;                     // [B, H]
  T* grad_skip;                  // [B, H, P] or null
  T* grad_bias;                  // [B, H] or null
  T* grad_initial;               // [B, H, P, N] or null
};

struct ConvProblem {
  int64_t batch, channels, length, width;
  bool silu;
};

template <typename T>
struct ConvInputs {
  View<const T> x;
  const T* weight;          // [D, W]
  const T* bias;            // [D] or null
  const T* initial;         // [B, D, W-1] or null
  const int32_t* sequence;  // [B, L] or null
};

template <typename T>
struct ConvForward {
  ConvProblem problem;
  ConvInputs<T> in;
  View<T> out;
};

template <typename T>
struct ConvBackward {
  ConvProblem problem;
  ConvInputs<T> in;
  View<const T> grad_out;
  View<T> grad_x;
  T* grad_weight;   // [B, D, W], a share for every batch entry
  T* grad_bias;     // [B, D] or null
  T* grad_initial;  // [B, D, W-1] or null
};

template <typename T>
struct Kernels {
  int64_t lanes;       // channels of a block of selective scan and of a channels-last convolution
  int64_t states;      // N of B and C is padded to a multiple of this
  int64_t ssd_states;  // likewise for SSD

  int64_t (*selective_scratch)(const SelectiveProblem&, bool backward);
  // Channels first_channel ... that share a group, at most `lanes`.
  void (*selective_forward)(const SelectiveForward<T>&, int64_t batch, int64_t first_channel,
                            int64_t count, T* scratch);
  // partial: [K, L, 2 * padded N], accumulated into: per block of `states` states their shares of
  // the gradients of B, then those of C.
  void (*selective_backward)(const SelectiveBackward<T>&, int64_t batch, int64_t first_channel,
                             int64_t count, T* partial, T* scratch);

  int64_t (*ssd_scratch)(const SsdProblem&, bool backward);
  void (*ssd_forward)(const SsdForward<T>&, int64_t batch, int64_t head, T* scratch);
  // partial: [L, 2 * padded N], as above in blocks of `ssd_states`.
  void (*ssd_backward)(const SsdBackward<T>&, int64_t batch, int64_t head, T* partial, T* scratch);

  int64_t (*conv_scratch)(const ConvProblem&);
  void (*conv_forward)(const ConvForward<T>&, int64_t batch, int64_t first_channel, int64_t count,
                       T* scratch);
  void (*conv_backward)(const ConvBackward<T>&, int64_t batch, int64_t first_channel, int64_t count,
                        T* scratch);
};

namespace baseline {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace avx2
namespace avx512 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace avx512
#endif

}  // namespace saccade::scan
