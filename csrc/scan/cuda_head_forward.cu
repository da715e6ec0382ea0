// Forward of the scan with one decay a head (SSD).
#include "scan/cuda_forward.cuh"

namespace saccade::scan_device {

cudaError_t head_forward(const Forward& f, const Partition& cut, cudaStream_t stream) {
  const int n = f.problem.states;
  if (n <= 16) return run_forward<4, 4, true>(f, cut, stream);
  if (n <= 64) return run_forward<16, 4, true>(f, cut, stream);
  return run_forward<32, 8, true>(f, cut, stream);
}

}  // namespace saccade::scan_device
