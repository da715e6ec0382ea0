// The CPU kernels of log-polar sampling, for one instruction set: SACCADE_ISA_NAMESPACE and
// SACCADE_BYTES name it. No function here may be shared with another instruction set's file, so
// nothing of the C++ library is included.
#pragma once

#include "logpolar/cpu_inverse.inl"
#include "logpolar/cpu_quads.inl"
#include "logpolar/cpu_sample.inl"
#include "logpolar/cpu_sample_backward.inl"

namespace saccade::logpolar::SACCADE_ISA_NAMESPACE {

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
const Kernels<float> kFloat{sample<float>,          sample_backward<float>,       to_quads<float>,
                            sample_quads<float>,    sample_backward_quads<float>, inverse<float>,
                            inverse_backward<float>};
const Kernels<double> kDouble{
    sample<double>,          sample_backward<double>,       to_quads<double>,
    sample_quads<double>,    sample_backward_quads<double>, inverse<double>,
    inverse_backward<double>};

}  // namespace saccade::logpolar::SACCADE_ISA_NAMESPACE
