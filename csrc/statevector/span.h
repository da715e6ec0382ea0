// Subspaces of indices over GF(2).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace saccade::statevector {

inline bool odd_parity(int64_t x) { return __builtin_parityll(static_cast<unsigned long long>(x)); }

// The highest bit of x, which is not 0.
inline int top_bit(int64_t x) { return 63 - __builtin_clzll(static_cast<unsigned long long>(x)); }

// A basis in which every leading bit is set in its own vector alone.
class Span {
 public:
  int64_t reduce(int64_t x) const {
    for (const int64_t v : vectors_) {
      if (x >> top_bit(v) & 1) x ^= v;
    }
    return x;
  }
  bool holds(int64_t x) const { return reduce(x) == 0; }
  void add(int64_t x) {
    x = reduce(x);
    if (x == 0) return;
    for (int64_t& v : vectors_) {
      if (v >> top_bit(x) & 1) v ^= x;
    }
    vectors_.push_back(x);
  }
  // Adds unit vectors, the lowest first, until there are `size` dimensions or `bits` bits are used.
  void fill(int bits, int size) {
    for (int b = 0; b < bits && this->size() < size; ++b) add(int64_t{1} << b);
  }
  int size() const { return static_cast<int>(vectors_.size()); }
  std::vector<int64_t> sorted() const {
    std::vector<int64_t> out = vectors_;
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  std::vector<int64_t> vectors_;
};

}  // namespace saccade::statevector
