// The CPU kernels of scans, for one instruction set: SACCADE_ISA_NAMESPACE and SACCADE_BYTES name
// it. No function here may be shared with another instruction set's file, so nothing of the C++
// library is included.
#pragma once

#include "scan/cpu_conv_backward.inl"
#include "scan/cpu_conv_forward.inl"
#include "scan/cpu_selective_backward.inl"
#include "scan/cpu_ssd_backward.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;

template <typename T>
constexpr Kernels<T> table() {
  Kernels<T> kernels{};
  kernels.lanes = kWidth<T>;
  kernels.states = kStates<T>;
  kernels.ssd_states = kSsdStates;
  kernels.selective_scratch = selective_scratch<T>;
  kernels.selective_forward = selective_forward<T>;
  kernels.selective_backward = selective_backward<T>;
  kernels.ssd_scratch = ssd_scratch<T>;
  kernels.ssd_forward = ssd_forward<T>;
  kernels.ssd_backward = ssd_backward<T>;
  kernels.conv_scratch = conv_scratch<T>;
  kernels.conv_forward = conv_forward<T>;
  kernels.conv_backward = conv_backward<T>;
  return kernels;
}

const Kernels<float> kFloat = table<float>();
const Kernels<double> kDouble = table<double>();

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
