#include "logpolar/bind.h"

namespace saccade::logpolar {

namespace {

void check_pose(const Tensor& main, const Tensor& fixation, const Tensor& theta0,
                const Tensor& scale, ScalarType type) {
  STD_TORCH_CHECK(fixation.dim() == 3, "fixation must be [B, N, 2], got ", shape(fixation), ".");
  const int64_t batch = main.size(0), fixations = fixation.size(1);
  check_shape("fixation", fixation, {batch, fixations, 2});
  check_shape("theta0", theta0, {batch, fixations});
  check_shape("scale", scale, {batch, fixations});
  for (const Tensor* tensor : {&fixation, &theta0, &scale}) {
    STD_TORCH_CHECK(tensor->scalar_type() == type && tensor->device() == main.device(),
                    "fixation, theta0 and scale must be float32 (float64 for float64) and on one "
                    "device with the rest.");
  }
}

void check_radii(const char* name, const Tensor& radii, const Tensor& main, ScalarType type) {
  STD_TORCH_CHECK(radii.dim() == 1 && radii.size(0) >= 1 && radii.scalar_type() == type &&
                      radii.device() == main.device(),
                  name, " must be a list of float32 (float64 for float64), got ", shape(radii),
                  ".");
}

}  // namespace

void check_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> sizes) {
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
  std::ostringstream text;
  int64_t i = 0;
  for (const int64_t size : sizes) {
    fits = fits && tensor.size(i) == size;
    text << (i++ ? ", " : "") << size;
  }
  STD_TORCH_CHECK(fits, name, " must have shape [", text.str(), "], got ", shape(tensor), ".");
}

ScalarType compute_type(const Tensor& main, bool bytes) {
  switch (main.scalar_type()) {
    case ScalarType::Double:
      return ScalarType::Double;
    case ScalarType::Float:
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return ScalarType::Float;
    default:
      STD_TORCH_CHECK(bytes && main.scalar_type() == ScalarType::Byte,
                      "the input must be float16, bfloat16, float32 or float64",
                      bytes ? ", or an image of uint8." : ".");
      return ScalarType::Float;
  }
}

SampleSizes check_sample(const Tensor& image, const std::optional<Tensor>& pyramid,
                         const Tensor& fixation, const Tensor& theta0, const Tensor& scale,
                         const Tensor& radii, const Tensor& edges, int64_t rays, int64_t padding,
                         int64_t antialias) {
  STD_TORCH_CHECK(image.dim() == 4, "image must be [B, C, H, W], got ", shape(image), ".");
  const ScalarType type = compute_type(image, true);
  check_pose(image, fixation, theta0, scale, type);
  check_radii("radii", radii, image, type);
  check_radii("edges", edges, image, type);
  check_shape("edges", edges, {radii.size(0) + 1});
  STD_TORCH_CHECK(rays >= 1, "rays must be at least 1, got ", rays, ".");
  STD_TORCH_CHECK(padding >= kZeros && padding <= kReflection, "padding must be 0, 1 or 2, got ",
                  padding, ".");
  STD_TORCH_CHECK(antialias >= kNone && antialias <= kMip, "antialias must be 0, 1 or 2, got ",
                  antialias, ".");
  SampleSizes sizes{image.size(0), fixation.size(1), image.size(1), image.size(2),
                    image.size(3), radii.size(0),    rays,          0};
  STD_TORCH_CHECK(sizes.height >= 1 && sizes.width >= 1, "image must have at least one pixel, got ",
                  shape(image), ".");
  STD_TORCH_CHECK(sizes.height <= INT32_MAX / sizes.width,
                  "a plane may have at most 2147483647 pixels, got ", shape(image), ".");
  STD_TORCH_CHECK(pyramid.has_value() == (antialias == kMip),
                  "a pyramid goes together with antialias 2.");
  if (pyramid.has_value()) {
    for (int64_t i = 1; i <= kLevels; ++i)
      sizes.pyramid += level_size(sizes.height, i) * level_size(sizes.width, i);
    check_shape("pyramid", *pyramid, {sizes.batch, sizes.channels, sizes.pyramid});
    STD_TORCH_CHECK(pyramid->scalar_type() == type && pyramid->device() == image.device(),
                    "pyramid must be float32 (float64 for float64) and on image's device.");
  }
  return sizes;
}

InverseSizes check_inverse(const Tensor& logpolar, const Tensor& fixation, const Tensor& theta0,
                           const Tensor& scale, const Tensor& radii, int64_t height, int64_t width,
                           int64_t law) {
  STD_TORCH_CHECK(logpolar.dim() == 5, "logpolar must be [B, N, C, R, T], got ", shape(logpolar),
                  ".");
  const ScalarType type = compute_type(logpolar, false);
  check_pose(logpolar, fixation, theta0, scale, type);
  check_radii("radii", radii, logpolar, type);
  const InverseSizes sizes{logpolar.size(0),
                           logpolar.size(1),
                           logpolar.size(2),
                           logpolar.size(3),
                           logpolar.size(4),
                           height,
                           width};
  STD_TORCH_CHECK(fixation.size(1) == sizes.fixations, "fixation must have the ", sizes.fixations,
                  " fixations of logpolar, got ", fixation.size(1), ".");
  STD_TORCH_CHECK(sizes.rings >= 1 && sizes.rays >= 1,
                  "logpolar must have at least one ring and one ray, got ", shape(logpolar), ".");
  STD_TORCH_CHECK(sizes.rings <= INT32_MAX / sizes.rays,
                  "a map may have at most 2147483647 samples, got ", shape(logpolar), ".");
  check_shape("radii", radii, {sizes.rings});
  STD_TORCH_CHECK(height >= 1 && width >= 1 && height <= INT32_MAX / width,
                  "the image must have at least one pixel and at most 2147483647, got ", height,
                  " x ", width, ".");
  STD_TORCH_CHECK(law >= kLogarithmic && law <= kTable, "law must be 0, 1 or 2, got ", law, ".");
  return sizes;
}

}  // namespace saccade::logpolar
