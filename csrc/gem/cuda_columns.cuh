// How the CUDA kernels find their columns.
#pragma once

#include "common/cuda_device.cuh"
#include "gem/cuda_kernel.cuh"

namespace saccade::gem {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

template <class F>
cudaError_t for_type(Dtype dtype, const F& launch) {
  switch (dtype) {
    case Dtype::kHalf:
      return launch(__half{});
    case Dtype::kBfloat16:
      return launch(__nv_bfloat16{});
    case Dtype::kFloat:
      break;
  }
  return launch(float{});
}

__device__ __forceinline__ int piece_of(const Pieces& p, int slot) {
  int piece = 0;
  while (piece + 1 < p.count && slot >= p.first_slot[piece + 1]) ++piece;
  return piece;
}

// Columns [begin, end) of a slot of a piece: whole blocks of threads but for the last.
__device__ __forceinline__ void range_of(const Pieces& p, int piece, int slot, int64_t& begin,
                                         int64_t& end) {
  const int slots = p.first_slot[piece + 1] - p.first_slot[piece];
  const int64_t blocks = (p.columns[piece] + kThreads - 1) / kThreads;
  const int64_t each = (blocks + slots - 1) / slots * kThreads;
  begin = (slot - p.first_slot[piece]) * each;
  end = begin + each < p.columns[piece] ? begin + each : p.columns[piece];
}

// Row i of a piece for a problem: a memory, or the gradient behind them; null for zeros.
template <class T>
__device__ __forceinline__ const T* row_of(const Pieces& p, int piece, int i, int64_t b) {
  const T* const row = static_cast<const T*>(p.pointer[piece * (p.rows + 1) + i]);
  if (row == nullptr) return nullptr;
  return row + b * (i < p.rows ? p.memory_batch : p.grad_batch);
}

}  // namespace saccade::gem
