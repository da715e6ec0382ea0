// Backward of the scan with a decay of its own for every channel and state (S6).
#include "scan/cuda_backward.cuh"

namespace saccade::scan_device {

cudaError_t scan_backward(const Backward& f, const Partition& cut, cudaStream_t stream) {
  const int n = f.problem.states;
  if (n == 1) return run_backward<1, 1, false>(f, cut, stream);
  if (n <= 4) return run_backward<1, 4, false>(f, cut, stream);
  if (n <= 16) return run_backward<4, 4, false>(f, cut, stream);
  if (n <= 64) return run_backward<16, 4, false>(f, cut, stream);
  return run_backward<32, 8, false>(f, cut, stream);
}

}  // namespace saccade::scan_device
