// The memory of one problem of entropic transport, cut into blocks of rows from its sizes alone, so
// that every sum has the same order for any number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "transport/bind.h"

namespace saccade::transport {

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

template <typename T>
inline constexpr T kInf = std::numeric_limits<T>::infinity();

// Below so many numbers a sweep is done before other threads have started.
constexpr int64_t kLeastParallel = 1 << 20;

// Blocks have about as many numbers as a level-2 cache holds beside the columns, and there are so
// few that adding their sums costs nothing.
inline int64_t block_rows(int64_t n, int64_t m) {
  constexpr int64_t kNumbers = 32768, kMostBlocks = 64;
  const int64_t rows =
      std::max(kNumbers / std::max<int64_t>(m, 1), (n + kMostBlocks - 1) / kMostBlocks);
  return (std::max<int64_t>(rows, 1) + kPanelRows - 1) / kPanelRows * kPanelRows;
}

template <typename T>
class Workspace {
 public:
  // points: rows are computed.
  Workspace(int64_t rows, int64_t columns, bool parallel, bool points)
      : n(rows),
        m(columns),
        padded((std::max<int64_t>(columns, 1) + kernels<T>().width - 1) / kernels<T>().width *
               kernels<T>().width),
        height(block_rows(rows, columns)),
        blocks(std::max<int64_t>(1, (rows + height - 1) / height)),
        workers_(parallel && rows * columns >= kLeastParallel
                     ? std::min<int64_t>(torch::stable::get_num_threads(), blocks)
                     : 1),
        panels_(points || pads() ? workers_ * 2 * kPanelRows * padded : 1),
        partial_(blocks * padded),
        sums_(blocks) {}

  const int64_t n, m, padded, height, blocks;

  bool pads() const { return padded != m; }

  // Runs f(block, index) for every block, those of a worker one after the other.
  template <typename F>
  void for_blocks(const Block<T>& whole, const F& f) {
    const auto work = [&](int64_t worker) {
      Block<T> block = whole;
      block.panel = panels_.data() + worker * 2 * kPanelRows * padded;
      for (int64_t i = worker * blocks / workers_; i < (worker + 1) * blocks / workers_; ++i) {
        block.begin = i * height;
        block.end = std::min(n, block.begin + height);
        f(block, i);
      }
    };
    if (workers_ == 1) return work(0);
    torch::stable::parallel_for(0, workers_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t worker = begin; worker < end; ++worker) work(worker);
    });
  }

  // A pass that adds to columns: f(block, sums) with sums of zeros; returns the totals.
  template <typename F>
  const T* add_columns(const Block<T>& whole, const F& f) {
    for_blocks(whole, [&](const Block<T>& block, int64_t i) {
      T* const columns = partial_.data() + i * padded;
      std::fill_n(columns, padded, T(0));
      sums_[i] = {columns, 0.0, 0.0};
      f(block, &sums_[i]);
    });
    moved = linear = 0.0;
    for (const Sums<T>& sums : sums_) moved += sums.moved, linear += sums.linear;
    return add(partial_.data());
  }

  // The sum of all blocks' arrays, into the first.
  const T* add(T* arrays) const {
    for (int64_t i = 1; i < blocks; ++i) {
      const T* const other = arrays + i * padded;
      for (int64_t j = 0; j < padded; ++j) arrays[j] += other[j];
    }
    return arrays;
  }

  double moved = 0.0, linear = 0.0;

 private:
  const int64_t workers_;
  AlignedScratch<T> panels_, partial_;
  std::vector<Sums<T>> sums_;
};

}  // namespace saccade::transport
