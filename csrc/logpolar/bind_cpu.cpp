// Torch's side of the CPU kernels: half types and uint8 are computed in float32 and rounded once.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "logpolar/bind.h"

namespace saccade::logpolar {

namespace {

// Tasks that the rings of few fixations are cut into.
constexpr int64_t kForwardTasks = 16;
// Tasks that the planes of few images are cut into, backward: by channels, then by fixations, whose
// groups hold planes of their own.
constexpr int64_t kBackwardTasks = 16;
constexpr int64_t kMaxGroups = 8;
// Channels that lie side by side, the fewest for which that pays, and the most pixels of a copy.
constexpr int64_t kQuad = 4;
constexpr int64_t kQuadChannels = 3;
constexpr int64_t kQuadPixels = int64_t{1} << 18;
// Pixels that can be put side by side in the time that one tap gains by it, forward; backward there
// is the gradient to be cleared in any case.
constexpr int64_t kPixelsPerTap = 2;
constexpr int64_t kPixelsPerTapBackward = 16;
// Tasks that the fixations of few images are cut into where each task needs a copy of its own.
constexpr int64_t kQuadTasks = 16;
// What the widest vector may read past a table.
constexpr int64_t kMaxWidth = 16;

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* mutable_data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The image in the type of computation, its planes without gaps.
Tensor prepare_image(const Tensor& image, ScalarType type) {
  const Tensor converted = to_type(image, type);
  const int64_t height = image.size(2), width = image.size(3);
  const bool dense =
      (width == 1 || converted.stride(3) == 1) && (height == 1 || converted.stride(2) == width);
  return dense ? converted : torch::stable::contiguous(converted);
}

// The inputs of sampling in the type of computation, kept alive beside the pointers to them.
template <typename T>
class Prepared {
 public:
  Prepared(const SampleSizes& sizes, const Tensor& image, const OptionalTensor& pyramid,
           const Tensor& fixation, const Tensor& theta0, const Tensor& scale, const Tensor& radii,
           const Tensor& edges, bool normalized, int64_t padding, int64_t antialias)
      : image_(prepare_image(image, compute_type(image, true))),
        pyramid_(pyramid),
        tensors_{fixation, theta0, scale, radii, edges} {
    for (Tensor& tensor : tensors_) {
      if (!tensor.is_contiguous()) tensor = torch::stable::contiguous(tensor);
    }
    if (pyramid_.has_value()) pyramid_ = torch::stable::contiguous(*pyramid_);
    const int64_t room = (sizes.rays + kMaxWidth - 1) / kMaxWidth * kMaxWidth;
    directions_.resize(2 * room);
    for (int64_t j = 0; j < sizes.rays; ++j) {
      const double angle =
          6.283185307179586 * static_cast<double>(j) / static_cast<double>(sizes.rays);
      directions_[j] = static_cast<T>(std::cos(angle));
      directions_[room + j] = static_cast<T>(std::sin(angle));
    }
    sampling_.poses = {sizes.batch,          sizes.fixations,      data<T>(tensors_[0]),
                       data<T>(tensors_[1]), data<T>(tensors_[2]), normalized};
    sampling_.channels = sizes.channels;
    sampling_.rings = sizes.rings;
    sampling_.rays = sizes.rays;
    sampling_.level[0] = {data<T>(image_), image_.stride(0), image_.stride(1), sizes.height,
                          sizes.width};
    if (pyramid_.has_value()) {
      const T* level = data<T>(*pyramid_);
      for (int64_t i = 1; i <= kLevels; ++i) {
        const int64_t height = level_size(sizes.height, i), width = level_size(sizes.width, i);
        sampling_.level[i] = {level, sizes.channels * sizes.pyramid, sizes.pyramid, height, width};
        level += height * width;
      }
    }
    sampling_.radii = data<T>(tensors_[3]);
    sampling_.edges = data<T>(tensors_[4]);
    sampling_.cosine = directions_.data();
    sampling_.sine = directions_.data() + room;
    sampling_.padding = padding;
    sampling_.antialias = antialias;
  }

  const Sampling<T>& sampling() const { return sampling_; }

 private:
  Tensor image_;
  OptionalTensor pyramid_;
  Tensor tensors_[5];
  std::vector<T> directions_;
  Sampling<T> sampling_{};
};

// Whether the taps of so many fixations an image pay for putting its channels side by side. From
// sizes and radii alone, not from where the fixations are.
template <typename T>
bool pays_quads(const Sampling<T>& sampling, int64_t fixations, int64_t pixels_per_tap) {
  const int64_t pixels = sampling.level[0].height * sampling.level[0].width;
  if (sampling.channels < kQuadChannels || pixels > kQuadPixels || sampling.antialias == kMip)
    return false;
  double taps = static_cast<double>(sampling.rings) * static_cast<double>(sampling.rays);
  if (sampling.antialias == kArea) {
    // 0.75 taps a pixel along each side of a cell, and one more
    double reach = static_cast<double>(sampling.edges[sampling.rings]);
    if (sampling.poses.normalized) reach *= static_cast<double>(sampling.level[0].width) / 2;
    taps += 0.75 * 0.75 * 3.14 * reach * reach;
  }
  return taps * static_cast<double>(fixations * pixels_per_tap) >= static_cast<double>(pixels);
}

// An image whose channels lie side by side, the last one that was asked for.
template <typename T>
class QuadImage {
 public:
  explicit QuadImage(const Sampling<T>& sampling)
      : sampling_(sampling),
        pixels_(sampling.level[0].height * sampling.level[0].width),
        memory_(kQuad * (pixels_ + 1)) {}

  const T* get(int64_t batch, int64_t first, int64_t channels) {
    if (batch != batch_ || first != first_) {
      const Level<T>& level = sampling_.level[0];
      kernels<T>().to_quads(level.data + batch * level.batch + first * level.channel, level.channel,
                            channels, pixels_, memory_.data());
      batch_ = batch;
      first_ = first;
    }
    return memory_.data();
  }

 private:
  const Sampling<T>& sampling_;
  int64_t pixels_, batch_ = -1, first_ = -1;
  AlignedScratch<T> memory_;
};

// An image's fixations, four channels at a time.
template <typename T>
void run_sample_quads(const Sampling<T>& sampling, T* out, int64_t chunks) {
  const int64_t n = sampling.poses.fixations;
  const int64_t blocks = (sampling.channels + kQuad - 1) / kQuad;
  parallel_tasks(sampling.poses.batch * blocks * chunks, [&] {
    return [&, image = QuadImage<T>(sampling)](int64_t i) mutable {
      const int64_t chunk = i % chunks, first = i / chunks % blocks * kQuad;
      const int64_t batch = i / chunks / blocks;
      const int64_t channels = std::min(kQuad, sampling.channels - first);
      const T* quads = image.get(batch, first, channels);
      for (int64_t k = chunk * n / chunks; k < (chunk + 1) * n / chunks; ++k) {
        kernels<T>().sample_quads(sampling, quads, out, batch, k, 0, sampling.rings, first,
                                  channels);
      }
    };
  });
}

template <typename T>
void run_sample(const Sampling<T>& sampling, T* out) {
  if (sampling.poses.batch * sampling.poses.fixations * sampling.channels == 0) return;
  const int64_t chunks = std::min(
      sampling.poses.fixations,
      std::max<int64_t>((kQuadTasks + sampling.poses.batch - 1) / sampling.poses.batch, 1));
  if (pays_quads(sampling, sampling.poses.fixations / chunks, kPixelsPerTap))
    return run_sample_quads(sampling, out, chunks);
  const int64_t n = sampling.poses.fixations, count = sampling.poses.batch * n;
  const int64_t blocks =
      std::min(sampling.rings, std::max<int64_t>((kForwardTasks + count - 1) / count, 1));
  parallel_tasks(count * blocks, [&] {
    return [&, scratch = AlignedScratch<T>(kWindowScratch)](int64_t i) mutable {
      const int64_t index = i / blocks, block = i % blocks;
      kernels<T>().sample(sampling, out, index / n, index % n, block * sampling.rings / blocks,
                          (block + 1) * sampling.rings / blocks, scratch.data());
    };
  });
}

Tensor sample_forward(const Tensor& image, const OptionalTensor& pyramid, const Tensor& fixation,
                      const Tensor& theta0, const Tensor& scale, const Tensor& radii,
                      const Tensor& edges, int64_t rays, bool normalized, int64_t padding,
                      int64_t antialias) {
  const SampleSizes sizes =
      check_sample(image, pyramid, fixation, theta0, scale, radii, edges, rays, padding, antialias);
  const ScalarType type = compute_type(image, true);
  const std::vector<int64_t> shape{sizes.batch, sizes.fixations, sizes.channels, sizes.rings,
                                   sizes.rays};
  Tensor out = torch::stable::new_empty(image, shape, type);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(sizes, image, pyramid, fixation, theta0, scale, radii, edges,
                               normalized, padding, antialias);
    run_sample<T>(prepared.sampling(), mutable_data<T>(out));
  };
  type == ScalarType::Double ? run(double{}) : run(float{});
  return image.scalar_type() == ScalarType::Byte ? out : to_type(out, image.scalar_type());
}

// How backward is cut, from sizes alone.
struct Partition {
  int64_t blocks;  // of channels
  int64_t groups;  // of fixations

  Partition(const SampleSizes& sizes, bool quads) {
    const auto at_least_one = [](int64_t n) { return std::max<int64_t>(n, 1); };
    const int64_t batch = at_least_one(sizes.batch);
    blocks = quads ? (sizes.channels + kQuad - 1) / kQuad
                   : std::min(at_least_one(sizes.channels), at_least_one(kBackwardTasks / batch));
    groups = std::min({at_least_one(sizes.fixations), kMaxGroups,
                       at_least_one(kBackwardTasks / (batch * blocks))});
  }
};

template <typename T>
void run_sample_backward(const SampleSizes& sizes, const Sampling<T>& sampling, const T* grad_out,
                         T* grad_image, T* grad_pyramid, T* grad_fixation, T* grad_theta0,
                         T* grad_scale, bool quads) {
  const Partition partition(sizes, quads);
  const int64_t blocks = partition.blocks, groups = partition.groups;
  const int64_t plane = sizes.height * sizes.width;
  const int64_t planes = sizes.batch * sizes.channels;
  if (planes * sizes.fixations == 0) return;
  const int64_t more = grad_image == nullptr ? 0 : groups - 1;
  std::vector<T> partial_images(more * planes * plane);
  std::vector<T> partial_pyramids(grad_pyramid == nullptr ? 0 : more * planes * sizes.pyramid);
  std::vector<double> poses(grad_fixation == nullptr ? 0
                                                     : blocks * sizes.batch * sizes.fixations * 4);
  parallel_tasks(sizes.batch * blocks * groups, [&] {
    return [&, scratch = AlignedScratch<T>(quads ? kQuad * (plane + 1)
                                                 : kScratch * sizes.channels)](int64_t i) mutable {
      const int64_t group = i % groups, block = i / groups % blocks, batch = i / groups / blocks;
      Part part{batch, group * sizes.fixations / groups, (group + 1) * sizes.fixations / groups,
                block * sizes.channels / blocks, (block + 1) * sizes.channels / blocks};
      if (quads) {
        part.first = block * kQuad;
        part.last = std::min(part.first + kQuad, sizes.channels);
      }
      SamplingGradients<T> gradients{};
      gradients.out = grad_out;
      const auto level = [&](int64_t number, T* first, T* rest, int64_t size, int64_t offset) {
        T* mine = group == 0 ? first : rest + (group - 1) * planes * size;
        gradients.level[number] = mine + offset;
        gradients.batch[number] = sizes.channels * size;
        gradients.channel[number] = size;
      };
      if (grad_image != nullptr) level(0, grad_image, partial_images.data(), plane, 0);
      if (grad_pyramid != nullptr) {
        int64_t offset = 0;
        for (int64_t l = 1; l <= kLevels; ++l) {
          level(l, grad_pyramid, partial_pyramids.data(), sizes.pyramid, offset);
          offset += sampling.level[l].height * sampling.level[l].width;
        }
      }
      if (grad_fixation != nullptr) {
        gradients.pose =
            poses.data() + 4 * ((block * sizes.batch + batch) * sizes.fixations + part.begin);
      }
      (quads ? kernels<T>().sample_backward_quads : kernels<T>().sample_backward)(
          sampling, gradients, part, scratch.data());
    };
  });
  for (int64_t group = 0; group < more; ++group) {
    const auto add = [&](T* to, const std::vector<T>& from, int64_t count) {
      for (int64_t i = 0; i < count; ++i) to[i] += from[group * count + i];
    };
    add(grad_image, partial_images, planes * plane);
    if (grad_pyramid != nullptr) add(grad_pyramid, partial_pyramids, planes * sizes.pyramid);
  }
  if (grad_fixation == nullptr) return;
  const int64_t count = sizes.batch * sizes.fixations;
  for (int64_t i = 0; i < count; ++i) {
    double sum[4] = {};
    for (int64_t block = 0; block < blocks; ++block) {
      for (int a = 0; a < 4; ++a) sum[a] += poses[4 * (block * count + i) + a];
    }
    grad_fixation[2 * i] = static_cast<T>(sum[0]);
    grad_fixation[2 * i + 1] = static_cast<T>(sum[1]);
    grad_theta0[i] = static_cast<T>(sum[2]);
    grad_scale[i] = static_cast<T>(sum[3]);
  }
}

// Zeros of this shape, or an empty tensor for what is not wanted.
Tensor zeros(const Tensor& like, ScalarType type, bool wanted, const std::vector<int64_t>& shape) {
  return wanted ? torch::stable::new_zeros(like, shape, type)
                : torch::stable::new_empty(like, std::vector<int64_t>{0}, type);
}

template <typename T>
T* data_if(Tensor& tensor, bool present) {
  return present ? mutable_data<T>(tensor) : nullptr;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sample_backward(
    const Tensor& grad_out, const Tensor& image, const OptionalTensor& pyramid,
    const Tensor& fixation, const Tensor& theta0, const Tensor& scale, const Tensor& radii,
    const Tensor& edges, bool normalized, int64_t padding, int64_t antialias, bool image_grad,
    bool pose_grad) {
  STD_TORCH_CHECK(grad_out.dim() == 5, "grad_out must be [B, N, C, R, T], got ", shape(grad_out),
                  ".");
  const SampleSizes sizes = check_sample(image, pyramid, fixation, theta0, scale, radii, edges,
                                         grad_out.size(4), padding, antialias);
  check_shape("grad_out", grad_out,
              {sizes.batch, sizes.fixations, sizes.channels, sizes.rings, sizes.rays});
  const ScalarType type = compute_type(image, true);
  const Tensor grad = to_contiguous(grad_out, type);
  const bool layered = image_grad && pyramid.has_value();
  Tensor grad_image = zeros(image, type, false, {});
  Tensor grad_pyramid = zeros(image, type, layered, {sizes.batch, sizes.channels, sizes.pyramid});
  Tensor grad_fixation = zeros(image, type, pose_grad, {sizes.batch, sizes.fixations, 2});
  Tensor grad_theta0 = zeros(image, type, pose_grad, {sizes.batch, sizes.fixations});
  Tensor grad_scale = zeros(image, type, pose_grad, {sizes.batch, sizes.fixations});
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(sizes, image, pyramid, fixation, theta0, scale, radii, edges,
                               normalized, padding, antialias);
    const Sampling<T>& sampling = prepared.sampling();
    const bool quads =
        image_grad && !pose_grad && pays_quads(sampling, sizes.fixations, kPixelsPerTapBackward);
    if (image_grad) {
      const std::vector<int64_t> shape{sizes.batch, sizes.channels, sizes.height, sizes.width};
      // quads are written over what is there, all else is added to it
      grad_image = quads ? torch::stable::new_empty(image, shape, type)
                         : torch::stable::new_zeros(image, shape, type);
    }
    run_sample_backward<T>(sizes, sampling, data<T>(grad), data_if<T>(grad_image, image_grad),
                           data_if<T>(grad_pyramid, layered), data_if<T>(grad_fixation, pose_grad),
                           data_if<T>(grad_theta0, pose_grad), data_if<T>(grad_scale, pose_grad),
                           quads);
  };
  if (image_grad || pose_grad) type == ScalarType::Double ? run(double{}) : run(float{});
  return {to_type(grad_image, grad_out.scalar_type()), grad_pyramid, grad_fixation, grad_theta0,
          grad_scale};
}

// The inputs of the inverse in the type of computation, kept alive beside the pointers to them.
template <typename T>
class PreparedInverse {
 public:
  PreparedInverse(const InverseSizes& sizes, const Tensor& logpolar, const Tensor& fixation,
                  const Tensor& theta0, const Tensor& scale, const Tensor& radii, bool normalized,
                  int64_t law, double offset, bool mean, double fill)
      : tensors_{to_contiguous(logpolar, compute_type(logpolar, false)),
                 torch::stable::contiguous(fixation), torch::stable::contiguous(theta0),
                 torch::stable::contiguous(scale), torch::stable::contiguous(radii)} {
    inversion_.poses = {sizes.batch,          sizes.fixations,      data<T>(tensors_[1]),
                        data<T>(tensors_[2]), data<T>(tensors_[3]), normalized};
    inversion_.channels = sizes.channels;
    inversion_.rings = sizes.rings;
    inversion_.rays = sizes.rays;
    inversion_.height = sizes.height;
    inversion_.width = sizes.width;
    inversion_.map = data<T>(tensors_[0]);
    inversion_.radii = data<T>(tensors_[4]);
    inversion_.law = law;
    inversion_.offset = static_cast<T>(offset);
    inversion_.mean = mean;
    inversion_.fill = static_cast<T>(fill);
  }

  const Inversion<T>& inversion() const { return inversion_; }

 private:
  Tensor tensors_[5];
  Inversion<T> inversion_{};
};

std::tuple<Tensor, Tensor> inverse_forward(const Tensor& logpolar, const Tensor& fixation,
                                           const Tensor& theta0, const Tensor& scale,
                                           const Tensor& radii, int64_t height, int64_t width,
                                           bool normalized, int64_t law, double offset, bool mean,
                                           double fill) {
  const InverseSizes sizes =
      check_inverse(logpolar, fixation, theta0, scale, radii, height, width, law);
  const ScalarType type = compute_type(logpolar, false);
  std::vector<int64_t> shape{sizes.batch, sizes.fixations, sizes.channels, height, width};
  if (mean) shape.erase(shape.begin() + 1);
  Tensor out = torch::stable::new_empty(logpolar, shape, type);
  Tensor count = zeros(logpolar, type, mean, {sizes.batch, height, width});
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const PreparedInverse<T> prepared(sizes, logpolar, fixation, theta0, scale, radii, normalized,
                                      law, offset, mean, fill);
    const int64_t images = mean ? 1 : sizes.fixations, all = sizes.batch * images;
    if (all == 0) return;
    const int64_t blocks = std::min(height, (kForwardTasks + all - 1) / all);
    T* to = mutable_data<T>(out);
    T* counts = data_if<T>(count, mean);
    parallel_tasks(all * blocks, [&] {
      return [&](int64_t i) {
        const int64_t image = i / blocks, block = i % blocks;
        kernels<T>().inverse(prepared.inversion(), to, counts, image / images, image % images,
                             block * height / blocks, (block + 1) * height / blocks);
      };
    });
  };
  type == ScalarType::Double ? run(double{}) : run(float{});
  return {to_type(out, logpolar.scalar_type()), count};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> inverse_backward(
    const Tensor& grad_out, const Tensor& count, const Tensor& logpolar, const Tensor& fixation,
    const Tensor& theta0, const Tensor& scale, const Tensor& radii, bool normalized, int64_t law,
    double offset, bool mean, bool logpolar_grad, bool pose_grad) {
  STD_TORCH_CHECK(grad_out.dim() == (mean ? 4 : 5), "grad_out must be that of ",
                  mean ? "[B, C, H, W]" : "[B, N, C, H, W]", ", got ", shape(grad_out), ".");
  const int64_t height = grad_out.size(mean ? 2 : 3), width = grad_out.size(mean ? 3 : 4);
  const InverseSizes sizes =
      check_inverse(logpolar, fixation, theta0, scale, radii, height, width, law);
  const ScalarType type = compute_type(logpolar, false);
  if (mean) {
    check_shape("grad_out", grad_out, {sizes.batch, sizes.channels, height, width});
    check_shape("count", count, {sizes.batch, height, width});
  } else {
    check_shape("grad_out", grad_out,
                {sizes.batch, sizes.fixations, sizes.channels, height, width});
  }
  const Tensor grad = to_contiguous(grad_out, type);
  const Tensor counts = to_contiguous(count, type);
  Tensor grad_map = zeros(logpolar, type, logpolar_grad,
                          {sizes.batch, sizes.fixations, sizes.channels, sizes.rings, sizes.rays});
  Tensor grad_fixation = zeros(logpolar, type, pose_grad, {sizes.batch, sizes.fixations, 2});
  Tensor grad_theta0 = zeros(logpolar, type, pose_grad, {sizes.batch, sizes.fixations});
  Tensor grad_scale = zeros(logpolar, type, pose_grad, {sizes.batch, sizes.fixations});
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const PreparedInverse<T> prepared(sizes, logpolar, fixation, theta0, scale, radii, normalized,
                                      law, offset, mean, 0);
    const int64_t all = sizes.batch * sizes.fixations;
    std::vector<double> poses(pose_grad ? 4 * all : 0);
    const InversionGradients<T> gradients{data<T>(grad), mean ? data<T>(counts) : nullptr,
                                          data_if<T>(grad_map, logpolar_grad),
                                          pose_grad ? poses.data() : nullptr};
    parallel_tasks(all, [&] {
      return [&, scratch = AlignedScratch<T>(sizes.channels)](int64_t i) mutable {
        kernels<T>().inverse_backward(prepared.inversion(), gradients, i / sizes.fixations,
                                      i % sizes.fixations, scratch.data());
      };
    });
    for (int64_t i = 0; pose_grad && i < all; ++i) {
      mutable_data<T>(grad_fixation)[2 * i] = static_cast<T>(poses[4 * i]);
      mutable_data<T>(grad_fixation)[2 * i + 1] = static_cast<T>(poses[4 * i + 1]);
      mutable_data<T>(grad_theta0)[i] = static_cast<T>(poses[4 * i + 2]);
      mutable_data<T>(grad_scale)[i] = static_cast<T>(poses[4 * i + 3]);
    }
  };
  if (logpolar_grad || pose_grad) type == ScalarType::Double ? run(double{}) : run(float{});
  return {to_type(grad_map, logpolar.scalar_type()), grad_fixation, grad_theta0, grad_scale};
}

}  // namespace

}  // namespace saccade::logpolar

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("logpolar_sample_forward", TORCH_BOX(&saccade::logpolar::sample_forward));
  m.impl("logpolar_sample_backward", TORCH_BOX(&saccade::logpolar::sample_backward));
  m.impl("logpolar_inverse_forward", TORCH_BOX(&saccade::logpolar::inverse_forward));
  m.impl("logpolar_inverse_backward", TORCH_BOX(&saccade::logpolar::inverse_backward));
}
