// The CPU kernels of neighborhood attention, for one instruction set: SACCADE_ISA_NAMESPACE and
// SACCADE_BYTES name it. No function here may be shared with another instruction set's file, so
// nothing of the C++ library is included.
#pragma once

#include "neighborhood_attention/cpu_backward.inl"
#include "neighborhood_attention/cpu_forward.inl"

namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE {

template <typename T>
int64_t scratch(const Problem& problem, const Tile& tile, bool backward) {
  Scratch<T> sizes(nullptr);
  if (backward) {
    BackwardBuffers<T>(problem, tile, sizes);
  } else {
    ForwardBuffers<T>(problem, tile, sizes);
  }
  return sizes.used();
}

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
const Kernels<float> kFloat{scratch<float>, forward<float>, backward<float>};
const Kernels<double> kDouble{scratch<double>, forward<double>, backward<double>};

}  // namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE
