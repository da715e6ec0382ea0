// The CUDA kernels as one host library with a C interface, for ctypes.
#include "transport/cuda_sinkhorn.cuh"

using namespace saccade::transport;

extern "C" {

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }

int run_forward(const Entropic* problem) { return solve(*problem, nullptr); }

int run_backward(const AdjointProblem* problem) { return solve_adjoint(*problem, nullptr); }
}
