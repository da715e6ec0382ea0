// How the work of one call is cut, from sizes alone.
#pragma once

#include <memory>
#include <vector>

#include "neighborhood_attention/kernel.h"

namespace saccade::neighborhood_attention {

// Tables of the windows of one axis; groups of a dilated axis have at most two lengths.
class AxisWindows {
 public:
  explicit AxisWindows(const Axis& axis);
  Windows of_length(int64_t length) const;

 private:
  int64_t length_[2];
  std::vector<int32_t> begin_[2], end_[2];
};

struct Plan {
  // `arrays`: how many arrays of the size of a tile's box the kernel keeps in its scratch, of
  // `element_size` bytes.
  Plan(const Problem& problem, int64_t arrays, int64_t element_size);

  // Two phases: the keys' boxes of the tiles of one phase do not overlap, so that their gradients
  // can be accumulated without locks or atomics, in an order that is always the same.
  std::vector<Tile> phase[2];

 private:
  std::unique_ptr<AxisWindows> windows_[3];
};

}  // namespace saccade::neighborhood_attention
