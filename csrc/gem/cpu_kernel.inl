// The CPU kernels of the gradient projection, for one instruction set: SACCADE_ISA_NAMESPACE and
// SACCADE_BYTES name it. No function here may be shared with another instruction set's file, so
// nothing of the C++ library is included.
#pragma once

#include "gem/cpu_combine.inl"
#include "gem/cpu_products.inl"
#include "gem/cpu_solver.inl"

namespace saccade::gem::SACCADE_ISA_NAMESPACE {

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
extern const Solver kSolver;
const Kernels<float> kFloat{scratch_size<float>, gram<float>, dot<float>, combine<float>,
                            outer<float>};
const Kernels<double> kDouble{scratch_size<double>, gram<double>, dot<double>, combine<double>,
                              outer<double>};
const Solver kSolver{space, solve_problem, solve_active_problem};

}  // namespace saccade::gem::SACCADE_ISA_NAMESPACE
