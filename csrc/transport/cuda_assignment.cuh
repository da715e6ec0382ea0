// The wall between torch and the CUDA kernels of the assignment: raw pointers, sizes and a stream.
#pragma once

#include <cuda_runtime.h>

#include "transport/exact.h"

namespace saccade::transport::exact {

// B problems of n rows and m columns; T is float or double.
template <typename T>
struct AssignmentBatch {
  int64_t batch, n, m;
  Costs<T> costs;                  // of the first problem
  int64_t cost_batch, mask_batch;  // strides
  bool maximize;
  Matching<T> out;  // of the first problem
  char* workspace;  // batch * assignment_workspace bytes
};

// Bytes of device memory that a problem takes beside the shared memory of its block.
template <typename T>
int64_t assignment_workspace(int64_t n, int64_t m);

template <typename T>
cudaError_t assign(const AssignmentBatch<T>& batch, cudaStream_t stream);

}  // namespace saccade::transport::exact
