// The CUDA kernels as one host library with a C interface, for ctypes.
#include "transport/cuda_assignment.cuh"
#include "transport/cuda_sinkhorn.cuh"

using namespace saccade::transport;

extern "C" {

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }

int run_forward(const Entropic* problem) { return solve(*problem, nullptr); }

int run_backward(const AdjointProblem* problem) { return solve_adjoint(*problem, nullptr); }

int64_t workspace_float(int64_t n, int64_t m) { return exact::assignment_workspace<float>(n, m); }

int64_t workspace_double(int64_t n, int64_t m) { return exact::assignment_workspace<double>(n, m); }

int run_assignment_float(const exact::AssignmentBatch<float>* batch) {
  return exact::assign(*batch, nullptr);
}

int run_assignment_double(const exact::AssignmentBatch<double>* batch) {
  return exact::assign(*batch, nullptr);
}
}
