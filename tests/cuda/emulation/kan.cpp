// The CUDA kernels as one host library with a C interface, for ctypes.
#include "kan/cuda_kernel.cuh"

using namespace saccade::kan_gpu;

extern "C" {

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }
void scratch(const Layer* layer, Sizes* out) { *out = sizes(*layer); }
int64_t slots(const Rational* problem) { return rational_slots(*problem); }
int run_forward(const Forward* f) { return forward(*f, nullptr); }
int run_backward(const Backward* b) { return backward(*b, nullptr); }
int run_rational_forward(const Rational* r) { return rational_forward(*r, nullptr); }
int run_rational_backward(const Rational* r) { return rational_backward(*r, nullptr); }
}
