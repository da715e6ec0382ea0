// Forward of the scan with a decay of its own for every channel and state (S6).
#include "scan/cuda_forward.cuh"

namespace saccade::scan_device {

cudaError_t scan_forward(const Forward& f, const Partition& cut, cudaStream_t stream) {
  const int n = f.problem.states;
  if (n == 1) return run_forward<1, 1, false>(f, cut, stream);
  if (n <= 4) return run_forward<1, 4, false>(f, cut, stream);
  if (n <= 16) return run_forward<4, 4, false>(f, cut, stream);
  if (n <= 64) return run_forward<16, 4, false>(f, cut, stream);
  return run_forward<32, 8, false>(f, cut, stream);
}

}  // namespace saccade::scan_device
