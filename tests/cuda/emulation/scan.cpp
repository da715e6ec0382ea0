// The CUDA kernels as one host library with a C interface, for ctypes.
#include "scan/cuda_kernel.cuh"

#include "common/cuda_device.cuh"

using namespace saccade::scan_device;

extern "C" {

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }

int64_t scratch(const Problem* p, int backwards) {
  return backwards != 0 ? backward_scratch(*p) : forward_scratch(*p);
}
int run_forward(const Forward* f) { return forward(*f, nullptr); }
int run_backward(const Backward* b) { return backward(*b, nullptr); }
int segments(const Problem* p) { return cut_backward(*p).segments; }
int tiles_a_block(const Problem* p) { return cut_backward(*p).tiles_a_block; }

int64_t convolution_floats(const Convolution* p) { return convolution_scratch(*p); }
int run_convolution(const ConvolutionForward* f) { return convolve_forward(*f, nullptr); }
int run_convolution_backward(const ConvolutionBackward* b) {
  return convolve_backward(*b, nullptr);
}
}
