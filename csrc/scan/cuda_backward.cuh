// Backward of the scan. A block walks its segment against the scan, an interval between two
// checkpoints at a time: it recomputes the states from the checkpoint, keeps those of up to kPart
// steps in shared memory, and runs the adjoint over them. Sums over channels (B, C) go to a table
// that blocks share by tiles of channels, sums over batch and segments (A, D, delta_bias) to slots;
// both are added by kernels of their own, in an order that depends on sizes alone.
#pragma once

#include "scan/cuda_forward.cuh"

namespace saccade::scan_device {

constexpr int kWarps = kThreads / 32;

// Steps whose states are kept at a time: fewer where a channel has many states.
template <int kLanes>
constexpr int kPart = kLanes >= 16 ? 8 : 16;

template <int kLanes, int kStates>
struct SharedBackward : Shared<kLanes, kStates> {
  using Base = Shared<kLanes, kStates>;
  static constexpr int kKept = kPart<kLanes>;
  static constexpr int kSums = 2 * kLanes * kStates + 1;

  float dy[Base::kChannels];
  float slope[Base::kChannels];
  float y[Base::kChannels];
  float before[kKept * kStates * kThreads];  // states before each step
  float sums[kWarps * kKept * kSums];        // a warp's shares of the gradients of B and C
};

// Sums over lanes whose numbers differ in the bits from kLow up to, not including, kHigh: as
// team_reduce, for a team of neighbours at a distance of kLow.
template <int N, int kLow, int kHigh, int kCount = N>
__device__ __forceinline__ void spread_reduce(float (&v)[N], int lane) {
  if constexpr (kHigh > kLow) {
    constexpr int partner = kHigh / 2;
    if constexpr (kCount > 1) {
      constexpr int half = kCount / 2;
      const bool upper = (lane & partner) != 0;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const float send = upper ? v[i] : v[i + half];
        const float keep = upper ? v[i + half] : v[i];
        v[i] = keep + __shfl_xor_sync(cuda::kFullWarp, send, partner);
      }
      spread_reduce<N, kLow, partner, half>(v, lane);
    } else {
      v[0] += __shfl_xor_sync(cuda::kFullWarp, v[0], partner);
      spread_reduce<N, kLow, partner, 1>(v, lane);
    }
  }
}

// Stages dt, its slope, u and dy, and C.
template <int kLanes, int kStates>
__device__ __forceinline__ void stage_backward(SharedBackward<kLanes, kStates>& shared,
                                               const Backward& f, const Site<kLanes>& site,
                                               int count) {
  constexpr int kRow = Shared<kLanes, kStates>::kRow;
  const Problem& p = f.problem;
  const int64_t from_u = base(p.u, site), from_z = base(p.z, site);
  const int64_t from_out = base(f.grad_out, site);
  visit_tile(site.channels, count, p.u.row == 1, [&](int row, int t) {
    const int at = shared.position[t];
    const int to = row * kRow + t;
    const float pre = pre_step(p, site, row, at);
    shared.dt[to] = step_size(p, pre);
    shared.slope[to] = step_slope(p, pre);
    shared.x[to] = load(p.u, from_u + row * p.u.row + at * p.u.step);
    float dy = load(f.grad_out, from_out + row * f.grad_out.row + at * f.grad_out.step);
    if (p.z.data != nullptr) {
      const float z = load(p.z, from_z + row * p.z.row + at * p.z.step);
      dy *= z * sigmoid(z);
    }
    shared.dy[to] = dy;
  });
  if (!p.constant_c) {
    stage_input<kLanes, kStates>(shared.c, shared.position, p, site, p.c, false, count);
  }
}

// What a segment adds to the gradient of the state before it, and how much of what comes from
// behind it keeps.
template <int kLanes, int kStates, bool kScalar>
__global__ void __launch_bounds__(kThreads, kBlocksOfScan)
    adjoint_segment_kernel(const __grid_constant__ Backward f,
                           const __grid_constant__ Partition cut) {
  using Tiles = SharedBackward<kLanes, kStates>;
  const Problem& p = f.problem;
  Tiles& shared = *cuda::dynamic_shared<Tiles>();
  Site<kLanes> site = find_site<kLanes>(p, cut);
  const int last = (site.slot + 1) * cut.tiles_a_block;
#pragma unroll 1
  for (int tile = site.slot * cut.tiles_a_block; tile < last && tile < cut.tiles; ++tile) {
    enter_tile(site, p, tile);
    float a[kScalar ? 1 : kStates], g[kStates];
    load_decay<kLanes, kStates, kScalar>(p, site, a);
    clear(g);
    __syncthreads();
    if (p.constant_c) {
      stage_input<kLanes, kStates>(shared.c, shared.position, p, site, p.c, true, 0);
    }
    const Input<kLanes, kStates> input_c(shared.c, p.constant_c, site);
    float total = 0.f;
    bool dropped = false;
    const int steps = (site.end - site.begin + kSteps - 1) / kSteps * kSteps;
#pragma unroll 1
    for (int step = site.begin + steps - kSteps; step >= site.begin; step -= kSteps) {
      const int count = site.end - step < kSteps ? site.end - step : kSteps;
      stage_positions(shared, p, site, step, count);
      __syncthreads();
      stage_backward(shared, f, site, count);
      __syncthreads();
      if (site.here()) {
#pragma unroll 1
        for (int t = count - 1; t >= 0; --t) {
          const int at = site.row * Tiles::kRow + t;
          const float dt = shared.dt[at], dy = shared.dy[at];
          float factor[kStates], c[kStates];
          total += dt;
          decays<kStates, kScalar>(a, dt, factor);
          input_c.read(t, c);
#pragma unroll
          for (int i = 0; i < kStates; ++i) g[i] = factor[i] * fmaf(c[i], dy, g[i]);
          if (shared.reset[t] != 0) {
            clear(g);
            dropped = true;
          }
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
    store_state(f.inflow + to, 1, p.states, site, g);
  }
}

// What a thread sums over its whole segment.
template <int kStates, bool kScalar>
struct Sums {
  float a[kScalar ? 1 : kStates];
  float b[kStates], c[kStates];  // of constant B and C
  float d, bias;

  __device__ __forceinline__ void clear_all() {
    clear(a);
    clear(b);
    clear(c);
    d = bias = 0.f;
  }
};

// The adjoint over the kept steps [0, count); g enters and leaves as what is carried over the
// border in front of a step.
template <int kLanes, int kStates, bool kScalar>
__device__ __forceinline__ void run_adjoint(SharedBackward<kLanes, kStates>& shared,
                                            const Problem& p, const Site<kLanes>& site,
                                            const float (&a)[kScalar ? 1 : kStates],
                                            const Input<kLanes, kStates>& input_b,
                                            const Input<kLanes, kStates>& input_c, float d,
                                            int count, float (&h)[kStates], float (&g)[kStates],
                                            Sums<kStates, kScalar>& sums) {
  using Tiles = SharedBackward<kLanes, kStates>;
  using Owned = cuda::Owner<2, kLanes>;
  using OwnedSums = cuda::Owner<2 * kStates, 32 / kLanes>;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int member = lane / kLanes;
#pragma unroll 1
  for (int t = count - 1; t >= 0; --t) {
    const int at = site.row * Tiles::kRow + t;
    const bool reset = shared.reset[t] != 0;
    float dt = 0.f, u = 0.f, dy = 0.f;
    if (site.here()) dt = shared.dt[at], u = shared.x[at], dy = shared.dy[at];
    float factor[kStates], b[kStates], c[kStates], of_inputs[2 * kStates];
    decays<kStates, kScalar>(a, dt, factor);
    input_b.read(t, b);
    input_c.read(t, c);
    float of_decay = 0.f, of_input = 0.f;
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const float before = shared.before[(t * kStates + i) * kThreads + threadIdx.x];
      const float here = fmaf(c[i], dy, g[i]);
      const float kept = factor[i] * here;
      const float through = reset ? 0.f : kept * before;
      of_input = fmaf(here, b[i], of_input);
      of_inputs[i] = here * (dt * u);
      of_inputs[kStates + i] = h[i] * dy;
      if constexpr (kScalar) {
        of_decay += through;
      } else {
        of_decay = fmaf(a[i] * kLn2, through, of_decay);
        sums.a[i] = fmaf(dt, through, sums.a[i]);
      }
      g[i] = reset ? 0.f : kept;
      h[i] = before;
    }
    if constexpr (kScalar) {
      sums.a[0] = fmaf(dt, of_decay, sums.a[0]);
      of_decay *= a[0] * kLn2;
    }
    float pair[2] = {fmaf(u, of_input, of_decay), dt * of_input};
    cuda::team_reduce<2, kLanes>(pair, site.lane);
    if (site.lane % Owned::kCopies == 0 && site.here()) {
#pragma unroll
      for (int v = 0; v < Owned::kOwned; ++v) {
        if (Owned::first(site.lane) + v == 0) {
          const float of_delta = pair[v] * shared.slope[at];
          shared.dt[at] = of_delta;
          sums.bias += of_delta;
        } else {
          shared.x[at] = fmaf(d, dy, pair[v]);
          sums.d = fmaf(u, dy, sums.d);
        }
      }
    }
    if (p.constant_b || p.constant_c) {
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        sums.b[i] += of_inputs[i];
        sums.c[i] += of_inputs[kStates + i];
      }
    }
    if (!p.constant_b || !p.constant_c) {
      spread_reduce<2 * kStates, kLanes, 32>(of_inputs, lane);
      if (member % OwnedSums::kCopies == 0) {
        float* const to = shared.sums + (warp * Tiles::kKept + t) * Tiles::kSums;
#pragma unroll
        for (int v = 0; v < OwnedSums::kOwned; ++v) {
          const int value = OwnedSums::first(member) + v;
          to[value / kStates * (kLanes * kStates) + site.lane * kStates + value % kStates] =
              of_inputs[v];
        }
      }
    }
  }
}

// Adds the warps' shares of the gradients of B and C to the slot's table [B, K, G, N, L] by step.
template <int kLanes, int kStates>
__device__ __forceinline__ void store_sums(const SharedBackward<kLanes, kStates>& shared,
                                           const Problem& p, const Site<kLanes>& site, float* table,
                                           int which, int step, int count, bool first_tile) {
  using Tiles = SharedBackward<kLanes, kStates>;
  const int64_t group =
      ((int64_t{site.slot} * p.batch + site.batch) * p.paths + site.path) * p.groups + site.group;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < p.states * Tiles::kKept; i += kThreads) {
    const int t = i % Tiles::kKept, n = i / Tiles::kKept;
    if (t >= count) continue;
    float sum = 0.f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      sum += shared.sums[(warp * Tiles::kKept + t) * Tiles::kSums + which * (kLanes * kStates) + n];
    }
    float* const to = table + (group * p.states + n) * p.length + step + t;
    *to = first_tile ? sum : *to + sum;
  }
}

// Writes what the staged steps give to grad_u, grad_delta, grad_z or, with several paths, to the
// tables.
template <int kLanes, int kStates>
__device__ __forceinline__ void store_steps(const SharedBackward<kLanes, kStates>& shared,
                                            const Backward& f, const Site<kLanes>& site,
                                            int count) {
  using Tiles = SharedBackward<kLanes, kStates>;
  const Problem& p = f.problem;
  const int64_t to_u = base(f.grad_u, site), to_delta = base(f.grad_delta, site);
  visit_tile(site.channels, count, f.grad_u.row == 1, [&](int row, int t) {
    const int at = shared.position[t];
    store(f.grad_u, to_u + row * f.grad_u.row + at * f.grad_u.step,
          shared.x[row * Tiles::kRow + t]);
  });
  visit_tile(site.channels, count, f.grad_delta.row == 1, [&](int row, int t) {
    const int at = shared.position[t];
    store(f.grad_delta, to_delta + row * f.grad_delta.row + at * f.grad_delta.step,
          shared.dt[row * Tiles::kRow + t]);
  });
  if (p.z.data == nullptr) return;
  const int64_t from_u = base(p.u, site), from_z = base(p.z, site), to_y = base(f.y, site);
  const int64_t from_out = base(f.grad_out, site), to_z = base(f.grad_z, site);
  visit_tile(site.channels, count, p.z.row == 1, [&](int row, int t) {
    const int at = shared.position[t];
    float y = shared.y[row * Tiles::kRow + t];
    if (p.d != nullptr) {
      y += p.d[int64_t{site.path} * p.channels + site.first + row] *
           load(p.u, from_u + row * p.u.row + at * p.u.step);
    }
    if (p.paths > 1) {
      store(f.y, to_y + row * f.y.row + at * f.y.step, y);
      return;
    }
    const float z = load(p.z, from_z + row * p.z.row + at * p.z.step), s = sigmoid(z);
    const float out = load(f.grad_out, from_out + row * f.grad_out.row + at * f.grad_out.step);
    store(f.grad_z, to_z + row * f.grad_z.row + at * f.grad_z.step,
          out * y * s * (1.f + z * (1.f - s)));
  });
}

template <int kLanes, int kStates, bool kScalar>
__device__ __forceinline__ void store_totals(const Backward& f, const Partition& cut,
                                             const Site<kLanes>& site,
                                             const Sums<kStates, kScalar>& sums) {
  const Problem& p = f.problem;
  float reduced[3] = {kScalar ? sums.a[0] : 0.f, sums.d, sums.bias};
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    reduced[i] = cuda::lanes_reduce<1, kLanes>(reduced[i], [](float x, float y) { return x + y; });
  }
  if (!site.here()) return;
  const int64_t slot = int64_t{site.batch} * cut.segments + site.segment;
  const int64_t channel = (slot * p.paths + site.path) * p.channels + site.channel();
  if (site.lane == 0) {
    if constexpr (kScalar) f.slots_a[channel] = reduced[0];
    if (f.slots_d != nullptr) f.slots_d[channel] = reduced[1];
    if (f.slots_bias != nullptr) f.slots_bias[channel] = reduced[2];
  }
  if constexpr (!kScalar) store_state(f.slots_a + channel * p.states, 1, p.states, site, sums.a);
  if (p.constant_b) store_state(f.slots_b + channel * p.states, 1, p.states, site, sums.b);
  if (p.constant_c) store_state(f.slots_c + channel * p.states, 1, p.states, site, sums.c);
}

template <int kLanes, int kStates, bool kScalar>
__global__ void __launch_bounds__(kThreads, kBlocksOfScan)
    scan_backward_kernel(const __grid_constant__ Backward f,
                         const __grid_constant__ Partition cut) {
  using Tiles = SharedBackward<kLanes, kStates>;
  constexpr int kKept = Tiles::kKept;
  const Problem& p = f.problem;
  Tiles& shared = *cuda::dynamic_shared<Tiles>();
  Site<kLanes> site = find_site<kLanes>(p, cut);
  float* const restart = f.restart + blockIdx.x * cut.restart + threadIdx.x;
  const int first_tile = site.slot * cut.tiles_a_block;
#pragma unroll 1
  for (int tile = first_tile; tile < first_tile + cut.tiles_a_block && tile < cut.tiles; ++tile) {
    enter_tile(site, p, tile);
    float a[kScalar ? 1 : kStates], g[kStates], h[kStates];
    Sums<kStates, kScalar> sums;
    load_decay<kLanes, kStates, kScalar>(p, site, a);
    sums.clear_all();
    if (cut.segments > 1) {
      load_state(f.inflow + segment_state(p, site, cut.segments), 1, p.states, site, g);
    } else {
      load_state(f.grad_last + plain_state(p, site), 1, p.states, site, g);
    }
    const float d =
        p.d != nullptr && site.here() ? p.d[int64_t{site.path} * p.channels + site.channel()] : 0.f;
    __syncthreads();
    if (p.constant_b) {
      stage_input<kLanes, kStates>(shared.b, shared.position, p, site, p.b, true, 0);
    }
    if (p.constant_c) {
      stage_input<kLanes, kStates>(shared.c, shared.position, p, site, p.c, true, 0);
    }
    const Input<kLanes, kStates> input_b(shared.b, p.constant_b, site);
    const Input<kLanes, kStates> input_c(shared.c, p.constant_c, site);

#pragma unroll 1
    for (int time = (site.end - 1) / p.interval; time * p.interval >= site.begin; --time) {
      const int start = time * p.interval;
      const int stop = start + p.interval < site.end ? start + p.interval : site.end;
      const float* const saved = checkpoint(f.checkpoints, site, time);
      const int parts = (stop - start + kKept - 1) / kKept;
      load_state(saved, f.checkpoints.state, p.states, site, h);
      // the states at the start of every part but the first, which has the checkpoint
#pragma unroll 1
      for (int part = 0; part + 1 < parts; ++part) {
        stage_positions(shared, p, site, start + part * kKept, kKept);
        __syncthreads();
        stage_forward(shared, p, site, kKept);
        __syncthreads();
#pragma unroll 1
        for (int t = 0; t < kKept; ++t) {
          const int at = site.row * Tiles::kRow + t;
          float factor[kStates], b[kStates];
          if (shared.reset[t] != 0) clear(h);
          decays<kStates, kScalar>(a, site.here() ? shared.dt[at] : 0.f, factor);
          input_b.read(t, b);
          advance(h, factor, site.here() ? shared.x[at] : 0.f, b);
        }
#pragma unroll
        for (int i = 0; i < kStates; ++i) restart[(part * kStates + i) * kThreads] = h[i];
        __syncthreads();
      }
#pragma unroll 1
      for (int part = parts - 1; part >= 0; --part) {
        const int step = start + part * kKept;
        const int count = stop - step < kKept ? stop - step : kKept;
        if (part == 0 && parts > 1) {
          load_state(saved, f.checkpoints.state, p.states, site, h);
        } else if (part > 0) {
#pragma unroll
          for (int i = 0; i < kStates; ++i) h[i] = restart[((part - 1) * kStates + i) * kThreads];
        }
        stage_positions(shared, p, site, step, count);
        __syncthreads();
        stage_backward(shared, f, site, count);
        if (!p.constant_b) {
          stage_input<kLanes, kStates>(shared.b, shared.position, p, site, p.b, false, count);
        }
        __syncthreads();
#pragma unroll 1
        for (int t = 0; t < count; ++t) {
          const int at = site.row * Tiles::kRow + t;
          float factor[kStates], b[kStates];
#pragma unroll
          for (int i = 0; i < kStates; ++i) {
            shared.before[(t * kStates + i) * kThreads + threadIdx.x] = h[i];
          }
          if (shared.reset[t] != 0) clear(h);
          const float dt = site.here() ? shared.dt[at] : 0.f;
          decays<kStates, kScalar>(a, dt, factor);
          input_b.read(t, b);
          advance(h, factor, site.here() ? dt * shared.x[at] : 0.f, b);
          if (p.z.data != nullptr) {
            float c[kStates], y = 0.f;
            input_c.read(t, c);
#pragma unroll
            for (int i = 0; i < kStates; ++i) y = fmaf(h[i], c[i], y);
            y = cuda::lanes_reduce<1, kLanes>(y, [](float v, float w) { return v + w; });
            if (site.lane == 0 && site.here()) shared.y[at] = y;
          }
        }
        run_adjoint<kLanes, kStates, kScalar>(shared, p, site, a, input_b, input_c, d, count, h, g,
                                              sums);
        __syncthreads();
        store_steps(shared, f, site, count);
        if (!p.constant_b)
          store_sums(shared, p, site, f.slots_b, 0, step, count, tile == first_tile);
        if (!p.constant_c)
          store_sums(shared, p, site, f.slots_c, 1, step, count, tile == first_tile);
        __syncthreads();
      }
    }
    if (f.grad_initial != nullptr && site.begin == 0) {
      store_state(f.grad_initial + plain_state(p, site), 1, p.states, site, g);
    }
    store_totals<kLanes, kStates, kScalar>(f, cut, site, sums);
  }
}

template <int kLanes, int kStates, bool kScalar>
cudaError_t run_backward(const Backward& f, const Partition& cut, cudaStream_t stream) {
  const Problem& p = f.problem;
  constexpr size_t shared = sizeof(SharedBackward<kLanes, kStates>);
  if (cut.segments > 1) {
    cudaError_t error = cuda::launch(adjoint_segment_kernel<kLanes, kStates, kScalar>,
                                     cut.blocks(p), kThreads, shared, stream, f, cut);
    if (error == cudaSuccess) {
      error = carry(p, cut.segments, f.grad_last, f.decay, f.inflow, true, stream);
    }
    if (error != cudaSuccess) return error;
  }
  return cuda::launch(scan_backward_kernel<kLanes, kStates, kScalar>, cut.blocks(p), kThreads,
                      shared, stream, f, cut);
}

}  // namespace saccade::scan_device
