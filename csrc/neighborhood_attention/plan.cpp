#include "neighborhood_attention/plan.h"

#include <algorithm>

namespace saccade::neighborhood_attention {

namespace {

// What a tile packs. Only the rows of one window are in use at a time, and these should stay in a
// core's second-level cache; rows at the seams of tiles are packed twice, so tiles should be many
// windows high.
constexpr int64_t kCacheBytes = 2048 * 1024;
// Below this many tiles a call would leave cores without work.
constexpr int64_t kMinTiles = 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t group_length(const Axis& axis, int64_t group) {
  return axis.length / axis.dilation + (group < axis.length % axis.dilation ? 1 : 0);
}

void fill_windows(const Axis& axis, int64_t n, std::vector<int32_t>& begin,
                  std::vector<int32_t>& end) {
  begin.resize(n);
  end.resize(n);
  const int64_t kernel = axis.kernel;
  const int64_t stride = axis.stride;
  for (int64_t p = 0; p < n; ++p) {
    const int64_t first = p / stride * stride;
    if (axis.causal) {
      const int64_t leader = std::min(first + stride - 1, n - 1);
      begin[p] = static_cast<int32_t>(std::max<int64_t>(leader - kernel + 1, 0));
      end[p] = static_cast<int32_t>(p + 1);
    } else {
      const int64_t leader = std::min(first + stride / 2, n - 1);
      begin[p] = static_cast<int32_t>(std::clamp<int64_t>(leader - kernel / 2, 0, n - kernel));
      end[p] = static_cast<int32_t>(begin[p] + kernel);
    }
  }
}

int band_axis(const Problem& problem) {
  for (int a = 0; a < 3; ++a) {
    if (problem.axis[a].length > 1) return a;
  }
  return 2;
}

struct Band {
  int64_t query[2], key[2];
};

std::vector<Band> cut(const Windows& windows, int64_t rows) {
  std::vector<Band> bands;
  const int64_t count = ceil_div(windows.length, rows);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = i * windows.length / count;
    const int64_t last = (i + 1) * windows.length / count;
    const int64_t begin = i == 0 ? 0 : windows.begin[first];
    const int64_t end = i == count - 1 ? windows.length : windows.end[last - 1];
    bands.push_back({{first, last}, {begin, end}});
  }
  return bands;
}

bool every_other_disjoint(const std::vector<Band>& bands) {
  for (size_t i = 2; i < bands.size(); ++i) {
    if (bands[i - 2].key[1] > bands[i].key[0]) return false;
  }
  return true;
}

}  // namespace

AxisWindows::AxisWindows(const Axis& axis) {
  for (int i = 0; i < 2; ++i) {
    length_[i] = axis.length / axis.dilation + i;
    if (length_[i] >= axis.kernel) fill_windows(axis, length_[i], begin_[i], end_[i]);
  }
}

Windows AxisWindows::of_length(int64_t length) const {
  const int i = length == length_[0] ? 0 : 1;
  return {length, begin_[i].data(), end_[i].data()};
}

Plan::Plan(const Problem& problem, int64_t arrays, int64_t element_size) {
  const Axis* axis = problem.axis;
  for (int a = 0; a < 3; ++a) windows_[a] = std::make_unique<AxisWindows>(axis[a]);
  const int banded = band_axis(problem);
  const int64_t groups = axis[0].dilation * axis[1].dilation * axis[2].dilation;
  const int64_t boxes = std::max<int64_t>(problem.batch * problem.kv_heads * groups, 1);

  for (int64_t g = 0; g < groups; ++g) {
    Tile tile;
    tile.group[2] = g % axis[2].dilation;
    tile.group[1] = g / axis[2].dilation % axis[1].dilation;
    tile.group[0] = g / axis[2].dilation / axis[1].dilation;
    int64_t row_tokens = 1;
    for (int a = 0; a < 3; ++a) {
      const int64_t length = group_length(axis[a], tile.group[a]);
      tile.axis[a] = windows_[a]->of_length(length);
      tile.query[a][0] = tile.key[a][0] = tile.fresh[a][0] = 0;
      tile.query[a][1] = tile.key[a][1] = tile.fresh[a][1] = length;
      if (a != banded) row_tokens *= length;
    }
    const int64_t length = tile.axis[banded].length;
    const int64_t kernel = axis[banded].kernel;
    const int64_t cached =
        kCacheBytes / (arrays * row_tokens * problem.head_dim * element_size) - (kernel - 1);
    const int64_t shared = ceil_div(length, ceil_div(kMinTiles, boxes));
    int64_t rows = std::clamp<int64_t>(
        std::min(cached, shared), std::min<int64_t>(std::max<int64_t>(kernel, 4), length), length);
    std::vector<Band> bands = cut(tile.axis[banded], rows);
    while (!every_other_disjoint(bands)) bands = cut(tile.axis[banded], rows *= 2);
    for (size_t i = 0; i < bands.size(); ++i) {
      std::copy_n(bands[i].query, 2, tile.query[banded]);
      std::copy_n(bands[i].key, 2, tile.key[banded]);
      const bool second = i % 2 == 1;
      tile.fresh[banded][0] = second ? bands[i - 1].key[1] : bands[i].key[0];
      tile.fresh[banded][1] =
          second && i + 1 < bands.size() ? bands[i + 1].key[0] : bands[i].key[1];
      phase[i % 2].push_back(tile);
    }
  }
}

}  // namespace saccade::neighborhood_attention
