// The wall between torch and the CPU kernels of neighborhood attention: raw pointers, sizes and
// strides.
//
// Every problem is three-dimensional here (missing axes have length 1, kernel 1). A dilation group
// is a dense grid of its own, so a window is a box of consecutive positions. The work is cut into
// tiles: one dilation group, and a band of query rows of its first real axis. Plan (plan.cpp) makes
// tiles and tables from sizes alone, so that results do not depend on the number of threads; the
// kernels run one tile of one batch entry and key head.
#pragma once

#include <cstdint>

namespace saccade::neighborhood_attention {

struct Axis {
  int64_t length, kernel, stride, dilation;
  bool causal;
};

// Element strides of [B, X, Y, Z, h, D]; D is contiguous.
template <typename T>
struct View {
  T* data;
  int64_t batch, token[3], head;
};

struct Problem {
  int64_t batch, heads, kv_heads, head_dim;
  int64_t extra;  // additional keys
  Axis axis[3];
  double scale;
};

// Window [begin[p], end[p]) of every position of a dilation group with `length` positions.
struct Windows {
  int64_t length;
  const int32_t* begin;
  const int32_t* end;
};

struct Tile {
  Windows axis[3];
  int64_t group[3];     // first token of the dilation group on each axis
  int64_t query[3][2];  // positions of the queries
  int64_t key[3][2];    // positions of all keys that they see
  int64_t fresh[3][2];  // those whose gradients no tile of an earlier phase has written
};

template <typename T>
struct Inputs {
  View<const T> query, key, value;
  const T* bias;                         // [h, 2 K0 - 1, 2 K1 - 1, 2 K2 - 1] contiguous, or null
  View<const T> extra_key, extra_value;  // token[2] is the stride of S
};

template <typename T>
struct ForwardArgs {
  Problem problem;
  Inputs<T> in;
  T* out;  // contiguous
  T* lse;  // contiguous
};

template <typename T>
struct BackwardArgs {
  Problem problem;
  Inputs<T> in;
  View<const T> grad_out, out;
  const T* lse;       // contiguous
  const T* grad_lse;  // contiguous
  T* grad_query;      // contiguous
  T* grad_key;        // contiguous; keys that are not fresh are accumulated into
  T* grad_value;      // contiguous, likewise
  T* grad_extra_key;  // contiguous, accumulated into, or null
  T* grad_extra_value;
};

template <typename T>
struct Kernels {
  // Scratch that one call of forward or backward needs for this tile, in elements.
  int64_t (*scratch)(const Problem&, const Tile&, bool backward);
  void (*forward)(const ForwardArgs<T>&, const Tile&, int64_t batch, int64_t kv_head, T* scratch);
  // grad_bias: [h, 2 K0 - 1, 2 K1 - 1, 2 K2 - 1], accumulated into, or null.
  void (*backward)(const BackwardArgs<T>&, const Tile&, int64_t batch, int64_t kv_head,
                   T* grad_bias, T* scratch);
};

// One pair of tables an instruction set, each in its own file.
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

}  // namespace saccade::neighborhood_attention
