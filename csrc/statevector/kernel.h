// What the CPU kernels of state-vector simulation take; no torch, no C++ library.
//
// A tile is an array of 2^(bits - lane_bits) blocks of W real parts and W imaginary parts, W the
// numbers of a vector. With lane_bits = 0 the lanes are W samples; with lane_bits = log2 W they
// are the low bits of the index of one sample. Matrices of gates are u[chain][8][L], 2x2 complex
// row after row, where L = W lanes of samples or 1.
#pragma once

#include <stdint.h>

namespace saccade::statevector {

constexpr int kMaxMasks = 5;  // a row and four controls
constexpr int kMaxFlips = 4;  // wires of a dense gate
constexpr int kMaxBits = 30;
constexpr int kLaneBits = 8;   // up to so many bits, lanes may be samples
constexpr int kCosetBits = 8;  // blocks of a coset are gathered into the first-level cache
constexpr int kWholeBits = 9;  // as many blocks are passed over where they lie
constexpr int kPhasesAtOnce = 8;

// F = fixed + cos(rate a) even + sin(rate a) odd with the angle a = coefficient v + offset, where v
// is a constant (source 0), params[index] (1) or inputs[sample][index] (2).
struct Factor {
  int32_t source, index;
  const double *fixed, *even, *odd;
  double rate, coefficient, offset;
};

// The product of `count` factors, the first in time first.
struct Chain {
  int32_t first, count;
  bool own;     // depends on the sample
  bool wanted;  // depends on anything
};

// Bit `bit` of |0...0> becomes column `flip` of the chain's matrix, its rows in the order of
// flip, 1 - flip.
struct Product {
  int32_t bit, flip, chain;
};

// Where a 2x2 or dense matrix acts: variant bit k of an index p is parity(p & mask[k]) ^ flip bit
// k. Of a 2x2 bit 0 is the row and the others are controls.
struct Entry {
  int32_t chain;  // of a dense gate: where its matrix starts
  int32_t masks;
  int32_t flips;
  int32_t across;            // variant bits that differ between p and p ^ x
  int64_t high[kMaxMasks];   // masks of blocks
  int32_t low[kMaxMasks];    // masks of lanes
  int32_t local[kMaxMasks];  // masks of a coset's own coordinates
};

enum class PassKind : int32_t { kPair, kPhase, kDense };

struct Pass {
  PassKind kind;
  int32_t first, count;      // entries
  int32_t flips;             // 1 for a pair, 0 for phases
  int32_t low[kMaxFlips];    // of the flipped bits those of lanes
  int32_t local[kMaxFlips];  // and those of blocks, in a coset's coordinates
};

// Passes whose flips of blocks span `bits` dimensions: on a coset of that span all of them run one
// after another. Element e of coset c is block representative(c) ^ sum of basis[k] over bits of e.
struct Group {
  int32_t first, count;  // passes
  int32_t bits;
  int64_t basis[kMaxBits];
  int32_t pivots[kMaxBits];  // every pivot bit is set in its own basis vector alone; ascending
};

template <typename T>
struct Circuit {
  int32_t bits, lane_bits;
  const Factor* factors;
  const Chain* chains;
  int64_t n_chains;
  const Product* product;
  int64_t n_product;
  const Pass* passes;
  const Entry* entries;
  const Group* groups;
  const double* dense;
  const double* shared;  // [n_chains][8], of chains that are the same for all samples
  const T* params;
  const T* inputs;  // [batch][n_inputs]
  int64_t n_inputs, batch;
  const int32_t* images;  // [bits]: what every physical bit adds to a logical index
  int32_t origin;         // the logical index of physical 0
};

// A term of a Pauli sum: P|p> = i^phase (-1)^parity(p & z) |p ^ x>.
struct Term {
  int32_t owner, x, z, phase;
  double coefficient;
};

template <typename T>
struct Kernels {
  int64_t width;
  // Elements of scratch that any kernel needs.
  int64_t (*scratch)(const Circuit<T>&);
  // The matrices of a tile's chains.
  void (*matrices)(const Circuit<T>&, int64_t tile, T* u);
  // The first state: |0...0> with the product of the first gates, or rows of `state`
  // [batch][2^bits][2] in logical order.
  void (*start)(const Circuit<T>&, int64_t tile, const T* u, const T* state, T* psi);
  void (*forward)(const Circuit<T>&, const Group&, int64_t begin, int64_t end, const T* u, T* psi,
                  T* scratch);
  // Undoes a group on psi and on the gradient; adds to K[chain][8][L], K[r][s] = sum of
  // conj(gradient_r) psi_s with psi before the gate and the gradient behind it.
  void (*backward)(const Circuit<T>&, const Group&, int64_t begin, int64_t end, const T* u, T* psi,
                   T* gradient, T* scratch, T* K);
  // The same for the product state; psi is overwritten.
  void (*product_backward)(const Circuit<T>&, const T* u, T* psi, T* gradient, T* K);
  // values[observable][L] of the terms; `work` holds a real tile.
  void (*observe)(const Circuit<T>&, const Term*, int64_t terms, const T* psi, T* work, T* values);
  // gradient = sum of 2 weight P psi over the terms, with weights[observable][L].
  void (*observe_backward)(const Circuit<T>&, const Term*, int64_t terms, const T* psi,
                           const T* weights, T* work, T* gradient);
  // Adds K's part of the chains that are a tile's own to params[] and inputs[batch][n_inputs].
  void (*chain_gradients)(const Circuit<T>&, int64_t tile, const T* u, const T* K, double* params,
                          T* inputs);
  // Between a tile and rows [batch][2^bits][2] in logical order; lanes without a sample get zeros.
  void (*store)(const Circuit<T>&, int64_t tile, const T* psi, T* rows);
  void (*load)(const Circuit<T>&, int64_t tile, const T* rows, T* psi);
  // One chain that all samples share, and its gradients.
  void (*shared_matrix)(const Circuit<T>&, int64_t chain, double* u);
  void (*shared_gradient)(const Circuit<T>&, int64_t chain, const double* K, double* params);
};

// One set of tables an instruction set, each in its own file.
#define SACCADE_STATEVECTOR_TABLES    \
  extern const Kernels<float> kFloat; \
  extern const Kernels<double> kDouble;
namespace baseline {
SACCADE_STATEVECTOR_TABLES
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
SACCADE_STATEVECTOR_TABLES
}  // namespace avx2
namespace avx512 {
SACCADE_STATEVECTOR_TABLES
}  // namespace avx512
#endif

}  // namespace saccade::statevector
