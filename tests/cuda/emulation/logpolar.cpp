// The CUDA kernels as one host library with a C interface, for ctypes.
#include "logpolar/cuda_kernel.cuh"

using namespace saccade::polar;

extern "C" {

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }
int run_sample(const Sampling* s, void* out) { return sample(*s, out, nullptr); }
int run_sample_backward(const Sampling* s, const SamplingGradients* g) {
  return sample_backward(*s, *g, nullptr);
}
int run_inverse(const Inversion* v, float* out, float* count) {
  return inverse(*v, out, count, nullptr);
}
int run_inverse_backward(const Inversion* v, const InversionGradients* g) {
  return inverse_backward(*v, *g, nullptr);
}
}
