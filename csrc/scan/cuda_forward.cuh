// Forward of the scan. Where there are too few channels to fill a device the length is cut into
// segments: scan_segment_kernel finds what each adds to the state and how much it keeps, carry()
// what flows into each, and scan_forward_kernel then runs all segments at once.
#pragma once

#include "scan/cuda_scan.cuh"

namespace saccade::scan_device {

// Stages dt and dt * u, and B.
template <int kLanes, int kStates>
__device__ __forceinline__ void stage_forward(Shared<kLanes, kStates>& shared, const Problem& p,
                                              const Site<kLanes>& site, int count) {
  constexpr int kRow = Shared<kLanes, kStates>::kRow;
  const int64_t from = base(p.u, site);
  visit_tile(site.channels, count, p.u.row == 1, [&](int row, int t) {
    const int at = shared.position[t];
    const float dt = step_size(p, pre_step(p, site, row, at));
    shared.dt[row * kRow + t] = dt;
    shared.x[row * kRow + t] = dt * load(p.u, from + row * p.u.row + at * p.u.step);
  });
  if (!p.constant_b) {
    stage_input<kLanes, kStates>(shared.b, shared.position, p, site, p.b, false, count);
  }
}

// Where the thread reads B or C at step t: row(t) = base + t * stride.
template <int kLanes, int kStates>
struct Input {
  const float* base;
  int stride;
  __device__ __forceinline__ Input(const float* tile, bool constant, const Site<kLanes>& site)
      : base(tile + site.lane * kStates +
             (constant ? site.row * Shared<kLanes, kStates>::kStateRow : 0)),
        stride(constant ? 0 : Shared<kLanes, kStates>::kStateRow) {}
  __device__ __forceinline__ void read(int t, float (&to)[kStates]) const {
    read_states(base + t * stride, to);
  }
};

// One step of the state.
template <int kStates>
__device__ __forceinline__ void advance(float (&h)[kStates], const float (&factor)[kStates],
                                        float x, const float (&b)[kStates]) {
#pragma unroll
  for (int i = 0; i < kStates; ++i) h[i] = fmaf(factor[i], h[i], x * b[i]);
}

template <int kStates>
__device__ __forceinline__ void clear(float (&h)[kStates]) {
#pragma unroll
  for (int i = 0; i < kStates; ++i) h[i] = 0.f;
}

template <int kLanes, int kStates, bool kScalar>
__global__ void __launch_bounds__(kThreads, kBlocksOfScan)
    scan_segment_kernel(const __grid_constant__ Forward f, const __grid_constant__ Partition cut) {
  using Tiles = Shared<kLanes, kStates>;
  const Problem& p = f.problem;
  Tiles& shared = *cuda::dynamic_shared<Tiles>();
  Site<kLanes> site = find_site<kLanes>(p, cut);
  enter_tile(site, p, site.slot);
  float a[kScalar ? 1 : kStates], h[kStates];
  load_decay<kLanes, kStates, kScalar>(p, site, a);
  clear(h);
  if (p.constant_b) {
    stage_input<kLanes, kStates>(shared.b, shared.position, p, site, p.b, true, 0);
  }
  const Input<kLanes, kStates> input_b(shared.b, p.constant_b, site);
  float total = 0.f;
  bool dropped = false;

#pragma unroll 1
  for (int step = site.begin; step < site.end; step += kSteps) {
    const int count = site.end - step < kSteps ? site.end - step : kSteps;
    stage_positions(shared, p, site, step, count);
    __syncthreads();
    stage_forward(shared, p, site, count);
    __syncthreads();
    if (site.here()) {
#pragma unroll 1
      for (int t = 0; t < count; ++t) {
        const int at = site.row * Tiles::kRow + t;
        const float dt = shared.dt[at];
        float factor[kStates], b[kStates];
        if (shared.reset[t] != 0) {
          clear(h);
          dropped = true;
        }
        total += dt;
        decays<kStates, kScalar>(a, dt, factor);
        input_b.read(t, b);
        advance(h, factor, shared.x[at], b);
      }
    }
    __syncthreads();
  }
  float factor[kStates];
  decays<kStates, kScalar>(a, total, factor);
  if (dropped) {
#pragma unroll
    for (int i = 0; i < kStates; ++i) factor[i] = kDropped;
  }
  const int64_t to = segment_state(p, site, cut.segments);
  store_state(f.decay + to, 1, p.states, site, factor);
  store_state(f.inflow + to, 1, p.states, site, h);
}

template <int kLanes, int kStates, bool kScalar>
__global__ void __launch_bounds__(kThreads, kBlocksOfScan)
    scan_forward_kernel(const __grid_constant__ Forward f, const __grid_constant__ Partition cut) {
  using Tiles = Shared<kLanes, kStates>;
  using Owned = cuda::Owner<4, kLanes>;
  const Problem& p = f.problem;
  Tiles& shared = *cuda::dynamic_shared<Tiles>();
  Site<kLanes> site = find_site<kLanes>(p, cut);
  enter_tile(site, p, site.slot);
  const bool gated = p.z.data != nullptr && p.paths == 1;
  float a[kScalar ? 1 : kStates], h[kStates];
  load_decay<kLanes, kStates, kScalar>(p, site, a);
  if (cut.segments > 1) {
    load_state(f.inflow + segment_state(p, site, cut.segments), 1, p.states, site, h);
  } else {
    load_state(f.initial == nullptr ? nullptr : f.initial + plain_state(p, site), 1, p.states, site,
               h);
  }
  if (p.constant_b) {
    stage_input<kLanes, kStates>(shared.b, shared.position, p, site, p.b, true, 0);
  }
  if (p.constant_c) {
    stage_input<kLanes, kStates>(shared.c, shared.position, p, site, p.c, true, 0);
  }
  const Input<kLanes, kStates> input_b(shared.b, p.constant_b, site);
  const Input<kLanes, kStates> input_c(shared.c, p.constant_c, site);

  int count;
#pragma unroll 1
  for (int step = site.begin; step < site.end; step += count) {
    const int to_checkpoint = p.interval - step % p.interval;
    count = site.end - step < kSteps ? site.end - step : kSteps;
    count = to_checkpoint < count ? to_checkpoint : count;
    if (f.checkpoints.data != nullptr && to_checkpoint == p.interval) {
      store_state(checkpoint(f.checkpoints, site, step / p.interval), f.checkpoints.state, p.states,
                  site, h);
    }
    stage_positions(shared, p, site, step, count);
    __syncthreads();
    stage_forward(shared, p, site, count);
    if (!p.constant_c) {
      stage_input<kLanes, kStates>(shared.c, shared.position, p, site, p.c, false, count);
    }
    __syncthreads();
#pragma unroll 1
    for (int first = 0; first < count; first += 4) {
      float y[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int t = first + j;
        y[j] = 0.f;
        if (t < count) {
          const int at = site.row * Tiles::kRow + t;
          float factor[kStates], b[kStates], c[kStates];
          if (shared.reset[t] != 0) clear(h);
          decays<kStates, kScalar>(a, site.here() ? shared.dt[at] : 0.f, factor);
          input_b.read(t, b);
          input_c.read(t, c);
          advance(h, factor, site.here() ? shared.x[at] : 0.f, b);
#pragma unroll
          for (int i = 0; i < kStates; ++i) y[j] = fmaf(h[i], c[i], y[j]);
        }
      }
      cuda::team_reduce<4, kLanes>(y, site.lane);
      if (site.lane % Owned::kCopies == 0 && site.here()) {
#pragma unroll
        for (int v = 0; v < Owned::kOwned; ++v) {
          const int t = first + Owned::first(site.lane) + v;
          if (t < count) shared.x[site.row * Tiles::kRow + t] = y[v];
        }
      }
    }
    __syncthreads();
    const int64_t from_u = base(p.u, site), from_z = base(p.z, site), to = base(f.out, site);
    visit_tile(site.channels, count, f.out.row == 1, [&](int row, int t) {
      const int at = shared.position[t];
      float y = shared.x[row * Tiles::kRow + t];
      if (p.d != nullptr) {
        y += p.d[int64_t{site.path} * p.channels + site.first + row] *
             load(p.u, from_u + row * p.u.row + at * p.u.step);
      }
      if (gated) {
        const float z = load(p.z, from_z + row * p.z.row + at * p.z.step);
        y *= z * sigmoid(z);
      }
      store(f.out, to + row * f.out.row + at * f.out.step, y);
    });
    __syncthreads();
  }
  if (site.end == p.length) store_state(f.last + plain_state(p, site), 1, p.states, site, h);
}

template <int kLanes, int kStates, bool kScalar>
cudaError_t run_forward(const Forward& f, const Partition& cut, cudaStream_t stream) {
  const Problem& p = f.problem;
  constexpr size_t shared = sizeof(Shared<kLanes, kStates>);
  if (cut.segments > 1) {
    cudaError_t error = cuda::launch(scan_segment_kernel<kLanes, kStates, kScalar>, cut.blocks(p),
                                     kThreads, shared, stream, f, cut);
    if (error == cudaSuccess) {
      error = carry(p, cut.segments, f.initial, f.decay, f.inflow, false, stream);
    }
    if (error != cudaSuccess) return error;
  }
  return cuda::launch(scan_forward_kernel<kLanes, kStates, kScalar>, cut.blocks(p), kThreads,
                      shared, stream, f, cut);
}

}  // namespace saccade::scan_device
