// Memory that a task works in.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace saccade {

// Uninitialised memory that starts at a cache line.
template <typename T>
class AlignedScratch {
 public:
  explicit AlignedScratch(int64_t count)
      : data_(static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T), kLine))) {}
  T* data() { return data_.get(); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kLine); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace saccade
