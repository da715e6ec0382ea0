// Forward. A thread owns a position of the map and takes all its taps, four channels at a time, so
// that the weights of a tap are computed once for them. Threads of a warp lie along the rays, which
// share the number of taps; neighbouring rays read neighbouring pixels.
#include "logpolar/cuda_taps.cuh"

namespace saccade::polar {
namespace {

constexpr int kChannels = 4;
constexpr int kLeastBlocks = 5;  // of a multiprocessor: leaves enough registers not to spill

template <class T, class Out>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    sample_kernel(const __grid_constant__ Sampling s, Out* out) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t map = int64_t{s.rings} * s.rays;
  const int64_t index = item / map;
  if (index >= int64_t{s.poses.batch} * s.poses.fixations) return;
  const int ring = static_cast<int>(item % map / s.rays), ray = static_cast<int>(item % s.rays);
  const int64_t batch = index / s.poses.fixations;
  const Pose pose(s.poses, s.width, s.height, index);
  Out* const to = out + index * s.channels * map + item % map;
  if (!pose.is_finite) {
    for (int c = 0; c < s.channels; ++c) {
      to[c * map] = cuda::from_float<Out>(__int_as_float(0x7fc00000));
    }
    return;
  }
  const Taps taps(s, pose, ring);
  const int64_t plane = int64_t{s.height} * s.width;
  for (int first = 0; first < s.channels; first += kChannels) {
    float sum[kChannels] = {};
    for (int tap = 0; tap < taps.count(); ++tap) {
      const Spot spot(taps, pose, s.rays, ray, tap);
      for (int which = 0; which < taps.levels; ++which) {
        const int level = taps.level + which;
        const Corners corners(s, level, spot.x(pose), spot.y(pose));
        const float share = spot.weight * taps.share(which);
        const int64_t offset = level == 0 ? 0 : level_offset(s, level);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          const int64_t channel = batch * s.channels + first + c;
          if (first + c >= s.channels) break;
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            if (!corners.there(corner)) continue;
            const float value =
                level == 0 ? pixel_value(static_cast<const T*>(
                                 s.image)[channel * plane + corners.pixel(corner)])
                           : s.pyramid[channel * s.pyramid_size + offset + corners.pixel(corner)];
            sum[c] += share * corners.weight(corner) * value;
          }
        }
      }
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (first + c < s.channels) to[(first + c) * map] = cuda::from_float<Out>(sum[c]);
    }
  }
}

template <class T, class Out>
cudaError_t run(const Sampling& s, void* out, cudaStream_t stream) {
  const int64_t items = int64_t{s.poses.batch} * s.poses.fixations * s.rings * s.rays;
  return cuda::launch(sample_kernel<T, Out>, blocks_for(items, kThreads), kThreads, 0, stream, s,
                      static_cast<Out*>(out));
}

}  // namespace

cudaError_t sample(const Sampling& s, void* out, cudaStream_t stream) {
  if (s.dtype == Dtype::kHalf) return run<__half, __half>(s, out, stream);
  if (s.dtype == Dtype::kBfloat16) return run<__nv_bfloat16, __nv_bfloat16>(s, out, stream);
  if (s.dtype == Dtype::kByte) return run<uint8_t, float>(s, out, stream);
  return run<float, float>(s, out, stream);
}

}  // namespace saccade::polar
