// Torch's side of the CUDA kernels: an image is read in its own type, gradients are float32 until
// they are rounded once.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "logpolar/bind.h"
#include "logpolar/cuda_kernel.cuh"

namespace saccade::polar {
namespace {

using logpolar::check_inverse;
using logpolar::check_sample;
using logpolar::InverseSizes;
using logpolar::SampleSizes;
using Ints = std::vector<int64_t>;

Dtype dtype_of(const Tensor& image) {
  switch (image.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBfloat16;
    case ScalarType::Byte:
      return Dtype::kByte;
    default:
      STD_TORCH_CHECK(false, "image must be float16, bfloat16, float32 or uint8 on CUDA.");
  }
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// The inputs as the kernels read them, kept alive while the kernels are launched.
struct Inputs {
  SampleSizes sizes;
  Sampling sampling{};
  Tensor image;
  OptionalTensor pyramid;
  Tensor tables[5];

  Inputs(const Tensor& given, const OptionalTensor& levels, const Tensor& fixation,
         const Tensor& theta0, const Tensor& scale, const Tensor& radii, const Tensor& edges,
         int64_t rays, bool normalized, int64_t padding, int64_t antialias, bool single)
      : sizes(check_sample(given, levels, fixation, theta0, scale, radii, edges, rays, padding,
                           antialias)),
        image(to_contiguous(given, single ? ScalarType::Float : given.scalar_type())),
        pyramid(to_contiguous(levels, ScalarType::Float)),
        tables{to_contiguous(fixation, ScalarType::Float), to_contiguous(theta0, ScalarType::Float),
               to_contiguous(scale, ScalarType::Float), to_contiguous(radii, ScalarType::Float),
               to_contiguous(edges, ScalarType::Float)} {
    for (const Tensor* tensor : {&fixation, &theta0, &scale, &radii, &edges}) {
      STD_TORCH_CHECK(tensor->device() == given.device(),
                      "fixation, theta0, scale, radii and edges must be on the image's device.");
    }
    // every tap of a ring has a number of 32 bits
    STD_TORCH_CHECK(sizes.rays <= INT32_MAX / (kMaxTaps * kMaxTaps),
                    "out_size may have at most 524287 rays on CUDA, got ", sizes.rays, ".");
    for (const int64_t size :
         {sizes.batch, sizes.fixations, sizes.channels, sizes.rings, sizes.height * sizes.width}) {
      STD_TORCH_CHECK(size <= INT32_MAX, "No size may be above 2147483647 on CUDA, got ", size,
                      ".");
    }
    const auto floats = [](const Tensor& tensor) {
      return static_cast<const float*>(tensor.const_data_ptr());
    };
    sampling.poses = {static_cast<int>(sizes.batch),
                      static_cast<int>(sizes.fixations),
                      floats(tables[0]),
                      floats(tables[1]),
                      floats(tables[2]),
                      normalized};
    sampling.channels = static_cast<int>(sizes.channels);
    sampling.height = static_cast<int>(sizes.height);
    sampling.width = static_cast<int>(sizes.width);
    sampling.rings = static_cast<int>(sizes.rings);
    sampling.rays = static_cast<int>(sizes.rays);
    sampling.padding = static_cast<Padding>(padding);
    sampling.antialias = static_cast<Antialias>(antialias);
    sampling.radii = floats(tables[3]);
    sampling.edges = floats(tables[4]);
    sampling.dtype = dtype_of(image);
    sampling.image = image.const_data_ptr();
    sampling.pyramid = data_or_null<float>(pyramid);
    sampling.pyramid_size = sizes.pyramid;
  }

  bool empty() const {
    return sizes.batch * sizes.fixations * sizes.channels * sizes.rings * sizes.rays == 0;
  }
};

Tensor sample_forward(const Tensor& image, const OptionalTensor& pyramid, const Tensor& fixation,
                      const Tensor& theta0, const Tensor& scale, const Tensor& radii,
                      const Tensor& edges, int64_t rays, bool normalized, int64_t padding,
                      int64_t antialias) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const Inputs inputs(image, pyramid, fixation, theta0, scale, radii, edges, rays, normalized,
                      padding, antialias, false);
  const SampleSizes& n = inputs.sizes;
  Tensor out = torch::stable::new_empty(
      image, Ints{n.batch, n.fixations, n.channels, n.rings, n.rays},
      image.scalar_type() == ScalarType::Byte ? ScalarType::Float : image.scalar_type());
  if (!inputs.empty()) {
    STD_CUDA_CHECK(sample(inputs.sampling, out.mutable_data_ptr(), current_stream(image)));
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sample_backward_op(
    const Tensor& grad_out, const Tensor& image, const OptionalTensor& pyramid,
    const Tensor& fixation, const Tensor& theta0, const Tensor& scale, const Tensor& radii,
    const Tensor& edges, bool normalized, int64_t padding, int64_t antialias, bool image_grad,
    bool pose_grad) {
  STD_TORCH_CHECK(grad_out.dim() == 5, "grad_out must be [B, N, C, R, T], got ", shape(grad_out),
                  ".");
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const Inputs inputs(image, pyramid, fixation, theta0, scale, radii, edges, grad_out.size(4),
                      normalized, padding, antialias, true);
  const SampleSizes& n = inputs.sizes;
  logpolar::check_shape("grad_out", grad_out, {n.batch, n.fixations, n.channels, n.rings, n.rays});
  const Tensor grad = to_contiguous(grad_out, ScalarType::Float);
  const auto zeros = [&](bool wanted, const Ints& sizes) {
    return torch::stable::new_zeros(image, wanted ? sizes : Ints{0}, ScalarType::Float);
  };
  const bool layered = image_grad && pyramid.has_value();
  Tensor grad_image = zeros(image_grad, {n.batch, n.channels, n.height, n.width});
  Tensor grad_pyramid = zeros(layered, {n.batch, n.channels, n.pyramid});
  Tensor grad_fixation = zeros(pose_grad, {n.batch, n.fixations, 2});
  Tensor grad_theta0 = zeros(pose_grad, {n.batch, n.fixations});
  Tensor grad_scale = zeros(pose_grad, {n.batch, n.fixations});
  if (!inputs.empty() && (image_grad || pose_grad)) {
    Tensor partial = torch::stable::new_empty(
        image, Ints{pose_grad ? n.batch * n.fixations * n.rings * 4 : 0}, ScalarType::Float);
    const auto floats = [](Tensor& tensor) {
      return tensor.numel() > 0 ? static_cast<float*>(tensor.mutable_data_ptr()) : nullptr;
    };
    const SamplingGradients gradients{static_cast<const float*>(grad.const_data_ptr()),
                                      floats(grad_image),
                                      floats(grad_pyramid),
                                      floats(partial),
                                      floats(grad_fixation),
                                      floats(grad_theta0),
                                      floats(grad_scale)};
    STD_CUDA_CHECK(sample_backward(inputs.sampling, gradients, current_stream(image)));
  }
  return {to_type(grad_image, grad_out.scalar_type()), grad_pyramid, grad_fixation, grad_theta0,
          grad_scale};
}

// As Inputs, of the inverse; the map is float32.
struct InverseInputs {
  InverseSizes sizes;
  Inversion inversion{};
  Tensor map, tables[4];

  InverseInputs(const Tensor& given, const Tensor& fixation, const Tensor& theta0,
                const Tensor& scale, const Tensor& radii, int64_t height, int64_t width,
                bool normalized, int64_t law, double offset, bool mean, double fill)
      : sizes(check_inverse(given, fixation, theta0, scale, radii, height, width, law)),
        map(to_contiguous(given, ScalarType::Float)),
        tables{to_contiguous(fixation, ScalarType::Float), to_contiguous(theta0, ScalarType::Float),
               to_contiguous(scale, ScalarType::Float), to_contiguous(radii, ScalarType::Float)} {
    STD_TORCH_CHECK(given.scalar_type() != ScalarType::Double,
                    "logpolar must be float16, bfloat16 or float32 on CUDA.");
    for (const Tensor* tensor : {&fixation, &theta0, &scale, &radii}) {
      STD_TORCH_CHECK(tensor->device() == given.device(),
                      "fixation, theta0, scale and radii must be on the map's device.");
    }
    for (const int64_t size : {sizes.batch, sizes.fixations, sizes.channels, sizes.rings,
                               sizes.rays, sizes.height * sizes.width}) {
      STD_TORCH_CHECK(size <= INT32_MAX, "No size may be above 2147483647 on CUDA, got ", size,
                      ".");
    }
    const auto floats = [](const Tensor& tensor) {
      return static_cast<const float*>(tensor.const_data_ptr());
    };
    inversion.poses = {static_cast<int>(sizes.batch),
                       static_cast<int>(sizes.fixations),
                       floats(tables[0]),
                       floats(tables[1]),
                       floats(tables[2]),
                       normalized};
    inversion.channels = static_cast<int>(sizes.channels);
    inversion.rings = static_cast<int>(sizes.rings);
    inversion.rays = static_cast<int>(sizes.rays);
    inversion.height = static_cast<int>(sizes.height);
    inversion.width = static_cast<int>(sizes.width);
    inversion.map = floats(map);
    inversion.radii = floats(tables[3]);
    inversion.law = static_cast<Law>(law);
    inversion.offset = static_cast<float>(offset);
    inversion.fill = static_cast<float>(fill);
    inversion.mean = mean;
  }
};

std::tuple<Tensor, Tensor> inverse_forward(const Tensor& map, const Tensor& fixation,
                                           const Tensor& theta0, const Tensor& scale,
                                           const Tensor& radii, int64_t height, int64_t width,
                                           bool normalized, int64_t law, double offset, bool mean,
                                           double fill) {
  const torch::stable::accelerator::DeviceGuard guard(map.get_device_index());
  const InverseInputs inputs(map, fixation, theta0, scale, radii, height, width, normalized, law,
                             offset, mean, fill);
  const InverseSizes& n = inputs.sizes;
  Ints sizes{n.batch, n.fixations, n.channels, height, width};
  if (mean) sizes.erase(sizes.begin() + 1);
  Tensor out = torch::stable::new_empty(map, sizes, ScalarType::Float);
  Tensor count = torch::stable::new_empty(map, mean ? Ints{n.batch, height, width} : Ints{0},
                                          ScalarType::Float);
  if (n.batch * height * width * (mean ? 1 : n.fixations) > 0) {
    STD_CUDA_CHECK(inverse(inputs.inversion, static_cast<float*>(out.mutable_data_ptr()),
                           mean ? static_cast<float*>(count.mutable_data_ptr()) : nullptr,
                           current_stream(map)));
  }
  return {to_type(out, map.scalar_type()), count};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> inverse_backward_op(
    const Tensor& grad_out, const Tensor& count, const Tensor& map, const Tensor& fixation,
    const Tensor& theta0, const Tensor& scale, const Tensor& radii, bool normalized, int64_t law,
    double offset, bool mean, bool map_grad, bool pose_grad) {
  STD_TORCH_CHECK(grad_out.dim() == (mean ? 4 : 5), "grad_out must be that of ",
                  mean ? "[B, C, H, W]" : "[B, N, C, H, W]", ", got ", shape(grad_out), ".");
  const int64_t height = grad_out.size(mean ? 2 : 3), width = grad_out.size(mean ? 3 : 4);
  const torch::stable::accelerator::DeviceGuard guard(map.get_device_index());
  const InverseInputs inputs(map, fixation, theta0, scale, radii, height, width, normalized, law,
                             offset, mean, 0);
  const InverseSizes& n = inputs.sizes;
  if (mean) {
    logpolar::check_shape("grad_out", grad_out, {n.batch, n.channels, height, width});
    logpolar::check_shape("count", count, {n.batch, height, width});
  } else {
    logpolar::check_shape("grad_out", grad_out, {n.batch, n.fixations, n.channels, height, width});
  }
  const Tensor grad = to_contiguous(grad_out, ScalarType::Float);
  const Tensor counts = to_contiguous(count, ScalarType::Float);
  const auto zeros = [&](bool wanted, const Ints& sizes) {
    return torch::stable::new_zeros(map, wanted ? sizes : Ints{0}, ScalarType::Float);
  };
  Tensor grad_map = zeros(map_grad, {n.batch, n.fixations, n.channels, n.rings, n.rays});
  Tensor grad_fixation = zeros(pose_grad, {n.batch, n.fixations, 2});
  Tensor grad_theta0 = zeros(pose_grad, {n.batch, n.fixations});
  Tensor grad_scale = zeros(pose_grad, {n.batch, n.fixations});
  const int64_t items = n.batch * n.fixations;
  if (items * n.channels * height * width > 0 && (map_grad || pose_grad)) {
    Tensor partial =
        torch::stable::new_empty(map, Ints{pose_grad ? items * height * 4 : 0}, ScalarType::Float);
    const auto floats = [](Tensor& tensor) {
      return tensor.numel() > 0 ? static_cast<float*>(tensor.mutable_data_ptr()) : nullptr;
    };
    const InversionGradients gradients{
        static_cast<const float*>(grad.const_data_ptr()),
        mean ? static_cast<const float*>(counts.const_data_ptr()) : nullptr,
        floats(grad_map),
        floats(partial),
        floats(grad_fixation),
        floats(grad_theta0),
        floats(grad_scale)};
    STD_CUDA_CHECK(inverse_backward(inputs.inversion, gradients, current_stream(map)));
  }
  return {to_type(grad_map, map.scalar_type()), grad_fixation, grad_theta0, grad_scale};
}

}  // namespace
}  // namespace saccade::polar

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("logpolar_sample_forward", TORCH_BOX(&saccade::polar::sample_forward));
  m.impl("logpolar_sample_backward", TORCH_BOX(&saccade::polar::sample_backward_op));
  m.impl("logpolar_inverse_forward", TORCH_BOX(&saccade::polar::inverse_forward));
  m.impl("logpolar_inverse_backward", TORCH_BOX(&saccade::polar::inverse_backward_op));
}
