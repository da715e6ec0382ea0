// The CPU kernels of entropic transport, for one instruction set: SACCADE_ISA_NAMESPACE and
// SACCADE_BYTES name it. No function here may be shared with another instruction set's file, so
// nothing of the C++ library is included.
#pragma once

#include "transport/cpu_gradients.inl"
#include "transport/cpu_sweeps.inl"

namespace saccade::transport::SACCADE_ISA_NAMESPACE {

template <typename T>
constexpr Kernels<T> table() {
  return {kWidth<T>, exact<T>, sweep<T>,   finish<T>,   columns<T>,        scale<T>, range<T>,
          weigh<T>,  apply<T>, product<T>, gradient<T>, point_gradient<T>, dot<T>};
}

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
const Kernels<float> kFloat = table<float>();
const Kernels<double> kDouble = table<double>();

}  // namespace saccade::transport::SACCADE_ISA_NAMESPACE
