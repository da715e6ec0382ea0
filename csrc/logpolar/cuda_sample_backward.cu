// Backward of sampling, without atomics. Of the image: a warp owns a band of rows of all planes of
// a batch entry on one level. It looks at 32 positions at once, in a fixed order, and adds those
// that touch its band one after another, a lane a corner and channel. Of the poses: a block sums a
// ring of a fixation, and the rings are added in their order.
#include "logpolar/cuda_taps.cuh"

namespace saccade::polar {
namespace {

constexpr int kLeastBlocks = 5;  // of a multiprocessor: leaves enough registers not to spill
constexpr int kBand = 8;         // rows of a warp
constexpr int kWarps = 4;        // of a block
constexpr int kPerPass = 8;      // channels that the lanes of a warp hold, four corners each

__global__ void __launch_bounds__(kWarps * 32, kLeastBlocks)
    image_kernel(const __grid_constant__ Sampling s, const __grid_constant__ SamplingGradients g,
                 const int level) {
  const int height = level_size(s.height, level), width = level_size(s.width, level);
  const int bands = (height + kBand - 1) / kBand;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (warp >= int64_t{bands} * s.poses.batch) return;
  const int64_t batch = warp / bands;
  const int top = static_cast<int>(warp % bands) * kBand;
  const int bottom = top + kBand < height ? top + kBand : height;
  const int64_t plane = level == 0 ? int64_t{s.height} * s.width : s.pyramid_size;
  float* const planes =
      (level == 0 ? g.image : g.pyramid + level_offset(s, level)) + batch * s.channels * plane;
  const int64_t map = int64_t{s.rings} * s.rays;
  const int corner = lane % 4;

  for (int n = 0; n < s.poses.fixations; ++n) {
    const int64_t index = batch * s.poses.fixations + n;
    const Pose pose(s.poses, s.width, s.height, index);
    if (!pose.is_finite) continue;
    const float* const out = g.out + index * s.channels * map;
    for (int ring = 0; ring < s.rings; ++ring) {
      const Taps taps(s, pose, ring);
      const int which = level - taps.level;
      if (which < 0 || which >= taps.levels) continue;
      const float shrink = 1.f / static_cast<float>(1 << level);
      if (s.padding == Padding::kZeros) {
        // with a margin for the rounding of positions
        const float middle = (pose.y + 0.5f) * shrink - 0.5f;
        const float reach = fabsf(pose.unit_y * pose.scale) *
                                fmaxf(fabsf(taps.radius(taps.across - 1)), fabsf(taps.low)) *
                                shrink * 1.001f +
                            1.01f;
        if (middle + reach < static_cast<float>(top) || middle - reach > static_cast<float>(bottom))
          continue;
      }
      const float share = taps.share(which);
      const int positions = s.rays * taps.count();
      for (int first = 0; first < positions; first += 32) {
        const int position = first + lane;
        const int ray = position % s.rays;
        const int tap = position / s.rays;
        float x = 0.f, y = 0.f, weight = 0.f;
        bool touches = false;
        if (position < positions) {
          const Spot spot(taps, pose, s.rays, ray, tap);
          x = spot.x(pose);
          y = spot.y(pose);
          weight = spot.weight * share;
          const Pair row((y + 0.5f) * shrink - 0.5f, height, s.padding);
          touches = row.first + 1 >= top && row.first < bottom;
        }
        for (unsigned hits = __ballot_sync(cuda::kFullWarp, touches); hits != 0; hits &= hits - 1) {
          const int from = __ffs(static_cast<int>(hits)) - 1;
          const float at_x = __shfl_sync(cuda::kFullWarp, x, from);
          const float at_y = __shfl_sync(cuda::kFullWarp, y, from);
          const float factor = __shfl_sync(cuda::kFullWarp, weight, from);
          const int at_ray = __shfl_sync(cuda::kFullWarp, ray, from);
          const Corners corners(s, level, at_x, at_y);
          const int row = corners.row.first + (corner >> 1);
          if (corners.there(corner) && row >= top && row < bottom) {
            const float share_of_corner = factor * corners.weight(corner);
            for (int c = lane / 4; c < s.channels; c += kPerPass) {
              planes[c * plane + corners.pixel(corner)] +=
                  share_of_corner * out[c * map + int64_t{ring} * s.rays + at_ray];
            }
          }
          __syncwarp();
        }
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    pose_kernel(const __grid_constant__ Sampling s, const __grid_constant__ SamplingGradients g) {
  __shared__ float of_thread[4][kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t index = blockIdx.x / s.rings, batch = index / s.poses.fixations;
  const int ring = static_cast<int>(blockIdx.x % s.rings);
  const Pose pose(s.poses, s.width, s.height, index);
  const int64_t map = int64_t{s.rings} * s.rays, plane = int64_t{s.height} * s.width;
  float sum[4] = {};
  if (pose.is_finite) {
    const Taps taps(s, pose, ring);
    const int positions = s.rays * taps.count();
    for (int position = thread; position < positions; position += kThreads) {
      const int ray = position % s.rays;
      const Spot spot(taps, pose, s.rays, ray, position / s.rays);
      const float* const out = g.out + index * s.channels * map + int64_t{ring} * s.rays + ray;
      float along_x = 0.f, along_y = 0.f;
      for (int which = 0; which < taps.levels; ++which) {
        const int level = taps.level + which;
        const Corners corners(s, level, spot.x(pose), spot.y(pose));
        const float* const pixels =
            level == 0 ? static_cast<const float*>(s.image) : s.pyramid + level_offset(s, level);
        const int64_t step = level == 0 ? plane : s.pyramid_size;
        const float factor = spot.weight * taps.share(which) * corners.shrink;
        for (int c = 0; c < s.channels; ++c) {
          const float gradient = factor * out[c * map];
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            if (!corners.there(corner)) continue;
            const int i = corner & 1, j = corner >> 1;
            const float value =
                gradient * pixels[(batch * s.channels + c) * step + corners.pixel(corner)];
            along_x += corners.column.slope[i] * corners.row.weight[j] * value;
            along_y += corners.column.weight[i] * corners.row.slope[j] * value;
          }
        }
      }
      const float right = pose.unit_x * spot.radius, down = pose.unit_y * spot.radius;
      sum[0] += along_x;
      sum[1] += along_y;
      sum[2] += pose.scale * (along_y * down * spot.cosine - along_x * right * spot.sine);
      sum[3] += along_x * right * spot.cosine + along_y * down * spot.sine;
    }
    if (s.poses.normalized) {
      sum[0] *= pose.unit_x;
      sum[1] *= pose.unit_y;
    }
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) of_thread[k][thread] = sum[k];
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) {
#pragma unroll
      for (int k = 0; k < 4; ++k) of_thread[k][thread] += of_thread[k][thread + half];
    }
  }
  if (thread == 0) {
#pragma unroll
    for (int k = 0; k < 4; ++k) g.partial[4 * int64_t{blockIdx.x} + k] = of_thread[k][0];
  }
}

__global__ void __launch_bounds__(kThreads)
    sum_kernel(const float* partial, int64_t items, int parts, float* fixation, float* theta0,
               float* scale) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= items) return;
  float sum[4] = {};
  for (int part = 0; part < parts; ++part) {
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] += partial[(item * parts + part) * 4 + k];
  }
  fixation[2 * item] = sum[0];
  fixation[2 * item + 1] = sum[1];
  theta0[item] = sum[2];
  scale[item] = sum[3];
}

}  // namespace

cudaError_t sum_poses(const float* partial, int64_t items, int parts, float* fixation,
                      float* theta0, float* scale, cudaStream_t stream) {
  return cuda::launch(sum_kernel, blocks_for(items, kThreads), kThreads, 0, stream, partial, items,
                      parts, fixation, theta0, scale);
}

cudaError_t sample_backward(const Sampling& s, const SamplingGradients& g, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  for (int level = 0; level <= kLevels && error == cudaSuccess; ++level) {
    if ((level == 0 ? g.image : g.pyramid) == nullptr) continue;
    const int64_t bands = blocks_for(level_size(s.height, level), kBand) * s.poses.batch;
    error =
        cuda::launch(image_kernel, blocks_for(bands, kWarps), kWarps * 32, 0, stream, s, g, level);
  }
  if (error != cudaSuccess || g.partial == nullptr) return error;
  const int64_t items = int64_t{s.poses.batch} * s.poses.fixations;
  error = cuda::launch(pose_kernel, items * s.rings, kThreads, 0, stream, s, g);
  if (error != cudaSuccess) return error;
  return sum_poses(g.partial, items, s.rings, g.fixation, g.theta0, g.scale, stream);
}

}  // namespace saccade::polar
