// Backward of the scan with one decay a head (SSD).
#include "scan/cuda_backward.cuh"

namespace saccade::scan_device {

cudaError_t head_backward(const Backward& f, const Partition& cut, cudaStream_t stream) {
  const int n = f.problem.states;
  if (n <= 16) return run_backward<4, 4, true>(f, cut, stream);
  if (n <= 64) return run_backward<16, 4, true>(f, cut, stream);
  return run_backward<32, 8, true>(f, cut, stream);
}

}  // namespace saccade::scan_device
