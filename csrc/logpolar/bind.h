// What the bindings of every device share: checks, and a call's sizes.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>

#include "common/check.h"
#include "logpolar/kernel.h"

namespace saccade::logpolar {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct SampleSizes {
  int64_t batch, fixations, channels, height, width, rings, rays;
  int64_t pyramid;  // elements of one channel's pyramid
};

struct InverseSizes {
  int64_t batch, fixations, channels, rings, rays, height, width;
};

// The type that coordinates and sums are held in.
ScalarType compute_type(const Tensor& main, bool bytes);

// Height and width of level `number` of a pyramid.
inline int64_t level_size(int64_t size, int64_t number) {
  return (size + (int64_t{1} << number) - 1) >> number;
}

// Raise where sizes, types or codes do not fit together; the sentences for users are the Python
// front's.
SampleSizes check_sample(const Tensor& image, const std::optional<Tensor>& pyramid,
                         const Tensor& fixation, const Tensor& theta0, const Tensor& scale,
                         const Tensor& radii, const Tensor& edges, int64_t rays, int64_t padding,
                         int64_t antialias);
InverseSizes check_inverse(const Tensor& logpolar, const Tensor& fixation, const Tensor& theta0,
                           const Tensor& scale, const Tensor& radii, int64_t height, int64_t width,
                           int64_t law);
void check_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> sizes);

}  // namespace saccade::logpolar
