// The CPU kernels of state-vector simulation, for one instruction set: SACCADE_ISA_NAMESPACE and
// SACCADE_BYTES name it. No function here may be shared with another instruction set's file, so
// nothing of the C++ library is included.
#pragma once

#include "statevector/cpu_chain.inl"
#include "statevector/cpu_coset.inl"
#include "statevector/cpu_observe.inl"
#include "statevector/cpu_product.inl"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

template <typename T>
int64_t scratch_size(const Circuit<T>&) {
  return Space<T>::kTotal;
}

// visit(block, lane, logical index) for all physical indices, block after block.
template <typename T, typename F>
SACCADE_INLINE void for_indices(const Circuit<T>& circuit, const F& visit) {
  int64_t first = circuit.origin;
  const int in_block = 1 << circuit.lane_bits;
  for (int64_t i = 0; i < blocks_of(circuit); ++i) {
    if (i > 0) {
      int64_t turned = i ^ (i - 1);
      for (int b = circuit.lane_bits; turned; turned >>= 1, ++b) first ^= circuit.images[b];
    }
    int64_t index = first;
    for (int l = 0; l < in_block; ++l) {
      if (l > 0) {
        int turned = l ^ (l - 1);
        for (int b = 0; turned; turned >>= 1, ++b) index ^= circuit.images[b];
      }
      visit(i, l, index);
    }
  }
}

template <typename T>
void store_rows(const Circuit<T>& circuit, int64_t tile, const T* psi, T* rows) {
  constexpr int B = kBlock<T>, W = kWidth<T>;
  int64_t first;
  const int64_t count = samples_of(circuit, tile, &first), row = int64_t{2} << circuit.bits;
  T* const out = rows + first * row;
  for_indices(circuit, [&](int64_t i, int lane, int64_t index) {
    const T* const block = psi + i * B + lane;
    for (int64_t l = 0; l < count; ++l) {
      out[l * row + 2 * index] = block[l];
      out[l * row + 2 * index + 1] = block[W + l];
    }
  });
}

template <typename T>
void load_rows(const Circuit<T>& circuit, int64_t tile, const T* rows, T* psi) {
  constexpr int B = kBlock<T>, W = kWidth<T>;
  int64_t first;
  const int64_t count = samples_of(circuit, tile, &first), row = int64_t{2} << circuit.bits;
  const T* const in = rows + first * row;
  if (count < lanes_of(circuit)) fill_zero(psi, blocks_of(circuit) * B);
  for_indices(circuit, [&](int64_t i, int lane, int64_t index) {
    T* const block = psi + i * B + lane;
    for (int64_t l = 0; l < count; ++l) {
      block[l] = in[l * row + 2 * index];
      block[W + l] = in[l * row + 2 * index + 1];
    }
  });
}

template <typename T>
void start(const Circuit<T>& circuit, int64_t tile, const T* u, const T* state, T* psi) {
  if (state == nullptr) return product_start(circuit, u, psi);
  // a given state is in the order that wires have before the first gate
  Circuit<T> before = circuit;
  int32_t images[kMaxBits];
  for (int b = 0; b < circuit.bits; ++b) images[b] = 1 << b;
  before.images = images;
  before.origin = 0;
  load_rows(before, tile, state, psi);
}

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
#define SACCADE_TABLE(T)                                                       \
  {kWidth<T>,           scratch_size<T>,    matrices<T>,         start<T>,     \
   forward<T>,          backward<T>,        product_backward<T>, observe<T>,   \
   observe_backward<T>, chain_gradients<T>, store_rows<T>,       load_rows<T>, \
   shared_matrix<T>,    shared_gradient<T>}
const Kernels<float> kFloat SACCADE_TABLE(float);
const Kernels<double> kDouble SACCADE_TABLE(double);
#undef SACCADE_TABLE
#undef SACCADE_INLINE

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
