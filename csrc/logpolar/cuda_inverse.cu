// The inverse, and its backward without atomics. Forward: a thread owns a pixel and adds its
// fixations. Backward of the map: a warp owns a ring of a fixation, looks at 32 pixels at once in
// their order and adds those between its ring and the next ones. Of the poses: a block sums a row
// of pixels of a fixation, and the rows are added in their order.
#include "logpolar/cuda_taps.cuh"

namespace saccade::polar {
namespace {

constexpr int kWarps = 4;
constexpr int kLeastBlocks = 4;

// Where a pixel stands on the map of a fixation.
struct Place {
  bool covered, central;
  int ring, ray;       // the first of two
  float upper, later;  // share of ring + 1, of ray + 1
  float dx, dy, r;     // in units of the radii
  float du;            // derivative of the ring index by r; 0 where it is clamped

  __device__ __forceinline__ Place(const Inversion& v, const Pose& pose, int column, int row) {
    dx = (static_cast<float>(column) - pose.x) / (pose.unit_x * pose.scale);
    dy = (static_cast<float>(row) - pose.y) / (pose.unit_y * pose.scale);
    r = sqrtf(dx * dx + dy * dy);
    const float inner = v.radii[0], outer = v.radii[v.rings - 1];
    covered = pose.is_finite && r <= outer;
    central = r < 0.5f * inner;
    ring = ray = 0;
    upper = later = du = 0.f;
    if (!covered) return;
    const float last = static_cast<float>(v.rings - 1);
    float u = 0.f;
    if (v.rings > 1 && r >= inner) {
      if (v.law == Law::kTable) {
        int low = 0, high = v.rings - 1;  // radii[low] <= r, and the answer is below high
        while (high - low > 1) {
          const int middle = (low + high) / 2;
          (v.radii[middle] <= r ? low : high) = middle;
        }
        du = 1.f / (v.radii[low + 1] - v.radii[low]);
        u = static_cast<float>(low) + (r - v.radii[low]) * du;
      } else if (v.law == Law::kLogarithmic) {
        const float whole = logf(outer + v.offset) - logf(inner + v.offset);
        u = last * (logf(r + v.offset) - logf(inner + v.offset)) / whole;
        du = last / (whole * (r + v.offset));
      } else {
        du = last / (outer - inner);
        u = (r - inner) * du;
      }
      if (!(u >= 0.f && u <= last)) du = 0.f;
      u = fminf(fmaxf(u, 0.f), last);
    }
    ring = static_cast<int>(u);
    if (ring > v.rings - 2) ring = v.rings > 1 ? v.rings - 2 : 0;
    upper = u - static_cast<float>(ring);
    const float n = static_cast<float>(v.rays);
    float turn = n / kTurn * ((r > 0.f ? atan2f(dy, dx) : 0.f) - pose.theta0);
    turn -= n * floorf(turn / n);
    const float whole = floorf(turn);
    later = turn - whole;
    ray = static_cast<int>(whole) % v.rays;
  }
  __device__ __forceinline__ int next_ring(const Inversion& v) const {
    return v.rings > 1 ? ring + 1 : 0;
  }
  __device__ __forceinline__ int next_ray(const Inversion& v) const {
    return ray + 1 < v.rays ? ray + 1 : 0;
  }
};

__device__ __forceinline__ float central_value(const Inversion& v, const float* map) {
  float sum = 0.f;
  for (int j = 0; j < v.rays; ++j) sum += map[j];
  return sum / static_cast<float>(v.rays);
}

__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    inverse_kernel(const __grid_constant__ Inversion v, float* out, float* count) {
  const int64_t plane = int64_t{v.height} * v.width;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int images = v.mean ? 1 : v.poses.fixations;
  const int64_t image = item / plane, pixel = item % plane;
  if (image >= int64_t{v.poses.batch} * images) return;
  const int row = static_cast<int>(pixel / v.width), column = static_cast<int>(pixel % v.width);
  const int64_t map = int64_t{v.rings} * v.rays;
  const int64_t begin = v.mean ? image * v.poses.fixations : image;
  const int fixations = v.mean ? v.poses.fixations : 1;
  const float nan = __int_as_float(0x7fc00000);
  int covering = 0;
  bool all_finite = true;
  for (int n = 0; n < fixations; ++n) {
    const Pose pose(v.poses, v.width, v.height, begin + n);
    all_finite = all_finite && pose.is_finite;
    covering += Place(v, pose, column, row).covered ? 1 : 0;
  }
  if (count != nullptr) count[item] = static_cast<float>(covering);
  for (int c = 0; c < v.channels; ++c) {
    float sum = 0.f;
    for (int n = 0; n < fixations; ++n) {
      const Pose pose(v.poses, v.width, v.height, begin + n);
      const Place at(v, pose, column, row);
      if (!at.covered) continue;
      const float* const m = v.map + ((begin + n) * v.channels + c) * map;
      if (at.central) {
        sum += central_value(v, m);
        continue;
      }
      const int64_t low = int64_t{at.ring} * v.rays, high = int64_t{at.next_ring(v)} * v.rays;
      const int first = at.ray, second = at.next_ray(v);
      sum += (1.f - at.upper) * ((1.f - at.later) * m[low + first] + at.later * m[low + second]) +
             at.upper * ((1.f - at.later) * m[high + first] + at.later * m[high + second]);
    }
    float value = covering > 0 ? sum / static_cast<float>(covering) : v.fill;
    if (!all_finite) value = nan;
    out[(image * v.channels + c) * plane + pixel] = value;
  }
}

// The gradient that a pixel hands to a fixation.
__device__ __forceinline__ float handed(const Inversion& v, const InversionGradients& g,
                                        int64_t index, int c, int64_t pixel) {
  const int64_t plane = int64_t{v.height} * v.width;
  if (!v.mean) return g.out[(index * v.channels + c) * plane + pixel];
  const int64_t batch = index / v.poses.fixations;
  return g.out[(batch * v.channels + c) * plane + pixel] / g.count[batch * plane + pixel];
}

__global__ void __launch_bounds__(kWarps * 32, kLeastBlocks)
    map_kernel(const __grid_constant__ Inversion v, const __grid_constant__ InversionGradients g) {
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t index = warp / v.rings;
  if (index >= int64_t{v.poses.batch} * v.poses.fixations) return;
  const int ring = static_cast<int>(warp % v.rings);
  const Pose pose(v.poses, v.width, v.height, index);
  if (!pose.is_finite) return;
  const int pixels = v.height * v.width;
  const int64_t map = int64_t{v.rings} * v.rays;
  float* const mine = g.map + index * v.channels * map + int64_t{ring} * v.rays;
  for (int first = 0; first < pixels; first += 32) {
    const int pixel = first + lane;
    bool touches = false;
    if (pixel < pixels) {
      const Place at(v, pose, pixel % v.width, pixel / v.width);
      touches = at.covered && (at.central ? ring == 0 : ring == at.ring || ring == at.next_ring(v));
    }
    for (unsigned hits = __ballot_sync(cuda::kFullWarp, touches); hits != 0; hits &= hits - 1) {
      const int hit = first + __ffs(static_cast<int>(hits)) - 1;
      const Place at(v, pose, hit % v.width, hit / v.width);
      float share = 0.f;
      if (ring == at.ring) share += 1.f - at.upper;
      if (ring == at.next_ring(v)) share += at.upper;
      for (int c = lane; c < v.channels; c += 32) {
        const float gradient = handed(v, g, index, c, hit);
        float* const to = mine + c * map;
        if (at.central) {
          for (int j = 0; j < v.rays; ++j) to[j] += gradient / static_cast<float>(v.rays);
        } else {
          to[at.ray] += gradient * share * (1.f - at.later);
          to[at.next_ray(v)] += gradient * share * at.later;
        }
      }
      __syncwarp();
    }
  }
}

__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    inverse_pose_kernel(const __grid_constant__ Inversion v,
                        const __grid_constant__ InversionGradients g) {
  __shared__ float of_thread[4][kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t index = blockIdx.x / v.height;
  const int row = static_cast<int>(blockIdx.x % v.height);
  const Pose pose(v.poses, v.width, v.height, index);
  const int64_t map = int64_t{v.rings} * v.rays;
  float sum[4] = {};
  for (int column = thread; pose.is_finite && column < v.width; column += kThreads) {
    const Place at(v, pose, column, row);
    if (!at.covered || at.central || !(at.r > 0.f)) continue;
    float of_u = 0.f, of_v = 0.f;
    for (int c = 0; c < v.channels; ++c) {
      const float gradient = handed(v, g, index, c, int64_t{row} * v.width + column);
      const float* const m = v.map + (index * v.channels + c) * map;
      const float* const low = m + int64_t{at.ring} * v.rays;
      const float* const high = m + int64_t{at.next_ring(v)} * v.rays;
      const int first = at.ray, second = at.next_ray(v);
      of_u += gradient * ((1.f - at.later) * (high[first] - low[first]) +
                          at.later * (high[second] - low[second]));
      of_v += gradient * ((1.f - at.upper) * (low[second] - low[first]) +
                          at.upper * (high[second] - high[first]));
    }
    const float of_angle = of_v * static_cast<float>(v.rays) / kTurn, of_r = of_u * at.du;
    const float square = at.r * at.r;
    const float of_dx = of_r * at.dx / at.r - of_angle * at.dy / square;
    const float of_dy = of_r * at.dy / at.r + of_angle * at.dx / square;
    sum[0] -= of_dx / (pose.unit_x * pose.scale);
    sum[1] -= of_dy / (pose.unit_y * pose.scale);
    sum[2] -= of_angle;
    sum[3] -= (of_dx * at.dx + of_dy * at.dy) / pose.scale;
  }
  if (v.poses.normalized) {
    sum[0] *= pose.unit_x;
    sum[1] *= pose.unit_y;
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

}  // namespace

cudaError_t inverse(const Inversion& v, float* out, float* count, cudaStream_t stream) {
  const int64_t images = int64_t{v.poses.batch} * (v.mean ? 1 : v.poses.fixations);
  const int64_t items = images * v.height * v.width;
  return cuda::launch(inverse_kernel, blocks_for(items, kThreads), kThreads, 0, stream, v, out,
                      count);
}

cudaError_t inverse_backward(const Inversion& v, const InversionGradients& g, cudaStream_t stream) {
  const int64_t items = int64_t{v.poses.batch} * v.poses.fixations;
  if (g.map != nullptr) {
    const cudaError_t error =
        cuda::launch(map_kernel, blocks_for(items * v.rings, kWarps), kWarps * 32, 0, stream, v, g);
    if (error != cudaSuccess) return error;
  }
  if (g.partial == nullptr) return cudaSuccess;
  const cudaError_t error =
      cuda::launch(inverse_pose_kernel, items * v.height, kThreads, 0, stream, v, g);
  if (error != cudaSuccess) return error;
  return sum_poses(g.partial, items, v.height, g.fixation, g.theta0, g.scale, stream);
}

}  // namespace saccade::polar
