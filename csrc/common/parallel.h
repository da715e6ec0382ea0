// Tasks on torch's own threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace saccade {

// Runs task(i) for all i below count, each on the next free thread. make_task is called once a
// thread and returns the task, which may own scratch. Results depend on neither order nor thread as
// long as tasks write to places of their own.
template <typename F>
void parallel_tasks(int64_t count, const F& make_task) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(torch::stable::get_num_threads(), count);
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      auto task = make_task();
      for (int64_t i = next++; i < count; i = next++) task(i);
    }
  });
}

}  // namespace saccade
