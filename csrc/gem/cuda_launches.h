// Columns as pieces of launches; shared by the binding and the tests on the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "gem/cuda_kernel.cuh"

namespace saccade::gem {

// The launches that read some columns: pieces are added one after the other.
class Launches {
 public:
  Launches(Dtype dtype, int64_t batch, int64_t rows) : dtype_(dtype), batch_(batch), rows_(rows) {}

  void set_strides(int64_t stride, int64_t memory_batch, int64_t grad_batch) {
    stride_ = stride, memory_batch_ = memory_batch, grad_batch_ = grad_batch;
  }

  template <typename F>
  void add(int64_t columns, const void* grad, const F& memory) {
    const int rows = static_cast<int>(rows_);
    if (all_.empty() || all_.back().count == pieces_in_a_launch(rows)) {
      Pieces fresh{};
      fresh.dtype = dtype_;
      fresh.batch = static_cast<int>(batch_);
      fresh.rows = rows;
      fresh.stride = stride_;
      fresh.memory_batch = memory_batch_;
      fresh.grad_batch = grad_batch_;
      fresh.slots_before = slots_;
      all_.push_back(fresh);
    }
    Pieces& last = all_.back();
    const int piece = last.count++;
    const int slots = slots_of(columns);
    last.columns[piece] = columns;
    last.first_slot[piece + 1] = last.first_slot[piece] + slots;
    for (int i = 0; i < rows; ++i) last.pointer[piece * (rows + 1) + i] = memory(i);
    last.pointer[piece * (rows + 1) + rows] = grad;
    slots_ += slots;
  }

  const std::vector<Pieces>& finished() {
    for (Pieces& pieces : all_) pieces.slots = slots_;
    return all_;
  }
  int64_t slots() const { return slots_; }

 private:
  Dtype dtype_;
  int64_t batch_, rows_;
  int64_t stride_ = 1, memory_batch_ = 0, grad_batch_ = 0;
  int slots_ = 0;
  std::vector<Pieces> all_;
};

}  // namespace saccade::gem
