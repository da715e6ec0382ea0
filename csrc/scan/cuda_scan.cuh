// What the scan's kernels share. A block holds a tile of channels of one batch entry, path and
// group. kLanes neighbouring lanes hold the states of a channel, kStates each, in registers, and
// walk the steps one after another; what they read at a step stands in shared memory, staged for
// kSteps steps at a time with global accesses along whichever axis is contiguous. B and C are
// staged once for all channels of the tile.
#pragma once

#include "common/cuda_device.cuh"
#include "scan/cuda_kernel.cuh"

namespace saccade::scan_device {

constexpr int kThreads = 128;
constexpr int kBlocksOfScan = 2;
constexpr int kSteps = 16;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kSoftplusIsIdentity = 20.f;

__device__ __forceinline__ float load(const View& view, int64_t at) {
  switch (view.dtype) {
    case Dtype::kHalf:
      return cuda::to_float(static_cast<const __half*>(view.data)[at]);
    case Dtype::kBfloat16:
      return cuda::to_float(static_cast<const __nv_bfloat16*>(view.data)[at]);
    default:
      return static_cast<const float*>(view.data)[at];
  }
}

__device__ __forceinline__ void store(const View& view, int64_t at, float value) {
  switch (view.dtype) {
    case Dtype::kHalf:
      static_cast<__half*>(view.data)[at] = cuda::from_float<__half>(value);
      break;
    case Dtype::kBfloat16:
      static_cast<__nv_bfloat16*>(view.data)[at] = cuda::from_float<__nv_bfloat16>(value);
      break;
    default:
      static_cast<float*>(view.data)[at] = value;
  }
}

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// Position on the map that a path visits at a step.
__device__ __forceinline__ int position(const Problem& p, int direction, int step) {
  const int s = (direction & 1) != 0 ? p.length - 1 - step : step;
  if (direction < 2) return s;
  return s % p.height * (p.length / p.height) + s / p.height;
}

__device__ __forceinline__ float step_size(const Problem& p, float pre) {
  if (p.softplus && !(pre > kSoftplusIsIdentity)) pre = log1pf(expf(pre));
  // written so that NaN stays
  if (pre < p.least) pre = p.least;
  return pre > p.most ? p.most : pre;
}

// Derivative of step_size.
__device__ __forceinline__ float step_slope(const Problem& p, float pre) {
  float value = pre, slope = 1.f;
  if (p.softplus && !(pre > kSoftplusIsIdentity)) {
    value = log1pf(expf(pre));
    slope = sigmoid(pre);
  }
  return value < p.least || value > p.most ? 0.f : slope;
}

// What a block works on, and what a thread holds of it.
template <int kLanes>
struct Site {
  static constexpr int kTile = kThreads / kLanes;
  int batch, path, group, slot, segment;
  int direction;
  int begin, end;       // steps
  int lane;             // of the channel
  int row;              // channel in the tile
  int first, channels;  // first channel of the tile, and how many there are

  __device__ __forceinline__ bool here() const { return row < channels; }
  __device__ __forceinline__ int channel() const { return first + row; }
};

template <int kLanes>
__device__ __forceinline__ Site<kLanes> find_site(const Problem& p, const Partition& cut) {
  Site<kLanes> site{};
  int64_t block = blockIdx.x;
  site.slot = static_cast<int>(block % cut.slots);
  block /= cut.slots;
  site.segment = static_cast<int>(block % cut.segments);
  block /= cut.segments;
  site.group = static_cast<int>(block % p.groups);
  block /= p.groups;
  site.path = static_cast<int>(block % p.paths);
  site.batch = static_cast<int>(block / p.paths);
  site.direction = p.directions[site.path];
  site.begin = site.segment * cut.steps;
  site.end = site.begin + cut.steps < p.length ? site.begin + cut.steps : p.length;
  site.lane = static_cast<int>(threadIdx.x) % kLanes;
  site.row = static_cast<int>(threadIdx.x) / kLanes;
  return site;
}

template <int kLanes>
__device__ __forceinline__ void enter_tile(Site<kLanes>& site, const Problem& p, int tile) {
  const int per_group = p.channels / p.groups;
  const int left = per_group - tile * Site<kLanes>::kTile;
  site.first = site.group * per_group + tile * Site<kLanes>::kTile;
  site.channels = left < Site<kLanes>::kTile ? left : Site<kLanes>::kTile;
}

// Offsets into [B, K, segments, D, N] and [B, K, D, N].
template <int kLanes>
__device__ __forceinline__ int64_t segment_state(const Problem& p, const Site<kLanes>& site,
                                                 int segments) {
  return (((int64_t{site.batch} * p.paths + site.path) * segments + site.segment) * p.channels +
          site.channel()) *
         p.states;
}

template <int kLanes>
__device__ __forceinline__ int64_t plain_state(const Problem& p, const Site<kLanes>& site) {
  return ((int64_t{site.batch} * p.paths + site.path) * p.channels + site.channel()) * p.states;
}

// Tiles of shared memory. A row of a channel has one word more than steps, so that threads of
// different channels meet different banks; rows of B and C start at multiples of 16 bytes.
template <int kLanes, int kStates>
struct Shared {
  static constexpr int kTile = kThreads / kLanes;
  static constexpr int kRow = kSteps + 1;
  static constexpr int kStateRow = (kLanes * kStates + 3) / 4 * 4 + 4;
  static constexpr int kChannels = kTile * kRow;
  static constexpr int kInputs = (kTile > kSteps ? kTile : kSteps) * kStateRow;

  int position[kSteps];
  int reset[kSteps];
  alignas(16) float b[kInputs];
  alignas(16) float c[kInputs];
  alignas(16) float dt[kChannels];
  float x[kChannels];  // forward: dt * u, then y; backward: u, then grad_u
};

// Positions of the steps [step, step + count), and whether a sequence starts at them.
template <int kLanes, class S>
__device__ __forceinline__ void stage_positions(S& shared, const Problem& p,
                                                const Site<kLanes>& site, int step, int count) {
  const int t = static_cast<int>(threadIdx.x);
  if (t >= count) return;
  const int here = position(p, site.direction, step + t);
  shared.position[t] = here;
  shared.reset[t] = 0;
  if (p.sequence != nullptr && step + t > 0) {
    const int before = position(p, site.direction, step + t - 1);
    const int* const ids = p.sequence + site.batch * p.sequence_batch;
    shared.reset[t] = ids[here * p.sequence_step] != ids[before * p.sequence_step] ? 1 : 0;
  }
}

// Calls visit(row, t) for rows * count pairs, neighbouring threads along the contiguous axis.
template <class F>
__device__ __forceinline__ void visit_tile(int rows, int count, bool along_rows, F visit) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < rows * kSteps; i += kThreads) {
    const int row = along_rows ? i % rows : i / kSteps;
    const int t = along_rows ? i / rows : i % kSteps;
    if (t < count) visit(row, t);
  }
}

template <int kLanes>
__device__ __forceinline__ int64_t base(const View& view, const Site<kLanes>& site) {
  return site.batch * view.batch + site.path * view.path + site.first * view.row;
}

// The argument of the step size.
template <int kLanes>
__device__ __forceinline__ float pre_step(const Problem& p, const Site<kLanes>& site, int row,
                                          int position) {
  const int head = (site.first + row) / p.share;
  float pre = load(p.delta, site.batch * p.delta.batch + site.path * p.delta.path +
                                head * p.delta.row + position * p.delta.step);
  if (p.bias != nullptr) pre += p.bias[int64_t{site.path} * (p.channels / p.share) + head];
  return pre;
}

// B or C of the staged steps, [step][state]; constant ones [channel][state]. States beyond N are
// zero, and so are constant rows beyond the tile's channels: their lanes take part in sums.
template <int kLanes, int kStates>
__device__ __forceinline__ void stage_input(float* to, const int* positions, const Problem& p,
                                            const Site<kLanes>& site, const View& view,
                                            bool constant, int count) {
  constexpr int kStateRow = Shared<kLanes, kStates>::kStateRow;
  constexpr int kAll = kLanes * kStates;
  const int64_t from = site.batch * view.batch + site.path * view.path +
                       (constant ? site.first : site.group) * view.row;
  const int rows = constant ? Site<kLanes>::kTile : count;
  const int present = constant ? site.channels : count;
  if (view.state == 1) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * kAll; i += kThreads) {
      const int n = i % kAll, row = i / kAll;
      const int64_t at = from + (constant ? row * view.row : positions[row] * view.step);
      to[row * kStateRow + n] = n < p.states && row < present ? load(view, at + n) : 0.f;
    }
  } else {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kAll * rows; i += kThreads) {
      const int n = i / rows, row = i % rows;
      const int64_t at = from + (constant ? row * view.row : positions[row] * view.step);
      to[row * kStateRow + n] =
          n < p.states && row < present ? load(view, at + n * view.state) : 0.f;
    }
  }
}

template <int kStates>
__device__ __forceinline__ void read_states(const float* from, float (&to)[kStates]) {
  if constexpr (kStates % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kStates; i += 4) {
      const auto v = *reinterpret_cast<const cuda::Vector<float>*>(from + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) to[i + j] = v.element[j];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kStates; ++i) to[i] = from[i];
  }
}

// log2(e) * A of the thread's states; one entry if kScalar. Zero beyond N and beyond the tile.
template <int kLanes, int kStates, bool kScalar>
__device__ __forceinline__ void load_decay(const Problem& p, const Site<kLanes>& site,
                                           float (&a)[kScalar ? 1 : kStates]) {
  if constexpr (kScalar) {
    a[0] = site.here() ? p.a[site.channel() / p.share] * kLog2E : 0.f;
  } else {
    const float* const row = p.a + (int64_t{site.path} * p.channels + site.channel()) * p.states;
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = site.lane * kStates + i;
      a[i] = site.here() && n < p.states ? row[n] * kLog2E : 0.f;
    }
  }
}

template <int kLanes, int kStates>
__device__ __forceinline__ void load_state(const float* from, int64_t stride, int states,
                                           const Site<kLanes>& site, float (&h)[kStates]) {
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    const int n = site.lane * kStates + i;
    h[i] = from != nullptr && site.here() && n < states ? from[n * stride] : 0.f;
  }
}

template <int kLanes, int kStates>
__device__ __forceinline__ void store_state(float* to, int64_t stride, int states,
                                            const Site<kLanes>& site, const float (&h)[kStates]) {
  if (!site.here()) return;
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    const int n = site.lane * kStates + i;
    if (n < states) to[n * stride] = h[i];
  }
}

template <int kLanes>
__device__ __forceinline__ float* checkpoint(const Checkpoints& c, const Site<kLanes>& site,
                                             int time) {
  return c.data + site.batch * c.batch + site.path * c.path + time * c.time +
         site.channel() * c.row;
}

// A decay that stands for a reset within the segment: what flows in is dropped, not multiplied.
constexpr float kDropped = -1.f;

template <int kStates, bool kScalar>
__device__ __forceinline__ void decays(const float (&a)[kScalar ? 1 : kStates], float dt,
                                       float (&factor)[kStates]) {
  if constexpr (kScalar) {
    const float one = exp2f(a[0] * dt);
#pragma unroll
    for (int i = 0; i < kStates; ++i) factor[i] = one;
  } else {
#pragma unroll
    for (int i = 0; i < kStates; ++i) factor[i] = exp2f(a[i] * dt);
  }
}

}  // namespace saccade::scan_device
