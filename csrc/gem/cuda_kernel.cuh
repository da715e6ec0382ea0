// The wall between torch and the CUDA kernels of the gradient projection: raw pointers, sizes,
// strides and a stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace saccade::gem {

enum class Dtype { kFloat, kHalf, kBfloat16 };

constexpr int kMostRows = 64;
constexpr int kPieces = 32;
constexpr int kPointers = 384;

// Stretches of columns that one launch reads: pointers and sizes are part of the launch, so that
// nothing is copied to the device first. A piece is cut into slots from its length alone; every
// slot has partial sums of its own.
struct Pieces {
  Dtype dtype;
  int batch, rows, count;
  int64_t stride;                    // from one column of a memory to the next
  int64_t memory_batch, grad_batch;  // from one problem to the next
  int64_t columns[kPieces];
  int first_slot[kPieces + 1];     // within this launch
  int slots_before, slots;         // of earlier launches; of all launches
  const void* pointer[kPointers];  // piece by piece: t memories (null: zeros), the gradient
};

inline int pieces_in_a_launch(int rows) {
  const int fit = kPointers / (rows + 1);
  return fit < kPieces ? fit : kPieces;
}

constexpr int64_t kSlotColumns = 8192;
constexpr int64_t kMostSlots = 256;

inline int slots_of(int64_t columns) {
  const int64_t slots = (columns + kSlotColumns - 1) / kSlotColumns;
  return static_cast<int>(slots < 1 ? 1 : slots > kMostSlots ? kMostSlots : slots);
}

// Sums that a slot writes: blocks of 8 x 8 pairs of rows, the gradient being the last row.
constexpr int kBlock = 8;
inline int64_t pairs_of(int rows) {
  const int64_t blocks = (rows + kBlock) / kBlock;
  return blocks * (blocks + 1) / 2;
}
inline int64_t gram_partials(int batch, int rows, int64_t slots) {
  return batch * pairs_of(rows) * slots * kBlock * kBlock;
}
inline int64_t dot_partials(int batch, int rows, int64_t slots) { return batch * slots * rows; }

// partials [B, pairs, slots, 64] of all products.
cudaError_t gram(const Pieces& pieces, double* partials, cudaStream_t stream);
// partials [B, slots, t] of the products with the gradient, of rows whose dual is above `lower`.
cudaError_t dot(const Pieces& pieces, const double* dual, double lower, double* partials,
                cudaStream_t stream);

struct Solve {
  int batch, rows;
  int64_t slots;
  const double* partials;  // of gram, or null
  const double* gram;      // [B, t, t] where there are no partials
  const double* linear;    // [B, t] likewise
  const double* slack;     // [B, t] or null
  double lower, ridge, tolerance;
  bool always;
  double* dual;      // [B, t]
  int32_t* status;   // [B]
  double* gram_out;  // [B, t, t] or null
  double* dot_out;   // [B, t] or null; with it only the sums are formed
};
cudaError_t solve(const Solve& arguments, cudaStream_t stream);

// minus_y [B, t] from the partials of dot.
cudaError_t solve_active(const Solve& arguments, double* minus_y, cudaStream_t stream);

// out = grad + sum of dual[i] memory[i]; a piece's result goes to out[piece], [B, columns]
// contiguous, or back to the gradient where out is null.
cudaError_t combine(const Pieces& pieces, const double* dual, void* out, cudaStream_t stream);

struct Outer {
  const double* dual;
  const double* minus_y;
  const void* v;  // [B, P]
  int64_t v_batch;
  void* grad_grad;    // [B, P] contiguous
  void* grad_memory;  // [B, t, P] contiguous
};
// grad_grad = u - G' y and grad_memory = dual grad_grad' - y v', where the pieces' gradient is u.
cudaError_t outer(const Pieces& pieces, const Outer& arguments, cudaStream_t stream);

}  // namespace saccade::gem
