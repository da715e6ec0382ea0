// The CUDA kernels as one host library with a C interface, for ctypes.
#include "spiking/cuda_kernel.cuh"

using namespace saccade::lif;

extern "C" {

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }
int64_t kept_segments(int64_t steps) { return segments(steps); }
int64_t slots_of(const Problem* p) { return slots(*p); }
int64_t numbers_of_parts(const Problem* p, int per_channel) {
  return part_numbers(*p, per_channel != 0);
}
int run_forward(const Forward* f) { return forward(*f, nullptr); }
int run_backward(const Backward* b) { return backward(*b, nullptr); }
}
