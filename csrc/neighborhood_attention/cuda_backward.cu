// The stages of the backward in order, and the sums over slots that end the gradients to which
// every query adds.
#include <type_traits>

#include "neighborhood_attention/cuda_tile.cuh"

namespace saccade::na {
namespace {

constexpr int64_t kSlotBytes = 16 << 20;
constexpr int64_t kBlocks = 1024;  // enough for any device of today, and the same on all

// One thread an entry; neighbouring threads read neighbouring entries, slot after slot.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const float* slots, T* sum, int64_t entries, int64_t count) {
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (int64_t entry = first; entry < entries; entry += int64_t{gridDim.x} * kThreads) {
    float total = 0.f;
    for (int64_t slot = 0; slot < count; ++slot) total += slots[slot * entries + entry];
    sum[entry] = cuda::from_float<T>(total);
  }
}

}  // namespace

int64_t bias_slots(const Problem& p) {
  const int64_t bytes = p.heads * p.bias_entries() * static_cast<int64_t>(sizeof(float));
  int64_t slots = kBlocks / p.heads;
  if (slots > kSlotBytes / bytes) slots = kSlotBytes / bytes;
  const int64_t queries = p.batch * p.tokens();  // of a head: no slot without a query
  if (slots > queries) slots = queries;
  return slots < 1 ? 1 : slots;
}

cudaError_t sum_slots(const float* slots, void* sum, int64_t entries, int64_t count, Dtype dtype,
                      cudaStream_t stream) {
  const int64_t blocks = most_blocks((entries + kThreads - 1) / kThreads);
  const auto run = [&](auto* to) {
    return cuda::launch(sum_kernel<std::remove_pointer_t<decltype(to)>>, blocks, kThreads, 0,
                        stream, slots, to, entries, count);
  };
  if (dtype == Dtype::kHalf) return run(static_cast<__half*>(sum));
  if (dtype == Dtype::kBfloat16) return run(static_cast<__nv_bfloat16*>(sum));
  return run(static_cast<float*>(sum));
}

cudaError_t backward(const Backward& b, cudaStream_t stream) {
  const Problem& p = b.problem;
  cudaError_t error = backward_query(b, stream);
  if (error == cudaSuccess) error = backward_key(b, stream);
  if (error == cudaSuccess && p.bias != nullptr) {
    error = sum_slots(b.bias_slots, b.grad_bias, p.heads * p.bias_entries(), bias_slots(p), p.dtype,
                      stream);
  }
  if (error != cudaSuccess || p.extra == 0) return error;
  error = backward_extra(b, stream);
  const int64_t entries = int64_t{p.batch} * p.extra * p.kv_heads * p.dim, slots = extra_slots(p);
  if (error == cudaSuccess)
    error = sum_slots(b.extra_slots, b.grad_extra_key, entries, slots, p.dtype, stream);
  if (error != cudaSuccess) return error;
  return sum_slots(b.extra_slots + slots * entries, b.grad_extra_value, entries, slots, p.dtype,
                   stream);
}

}  // namespace saccade::na
