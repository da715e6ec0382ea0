// Stands in for the CUDA toolkit's header so that g++ compiles the kernels and the CPU runs them: a
// block's threads are fibers, which give way at barriers and warp exchanges. Shared memory and
// fresh copies hold NaN until they are written, an asynchronous copy lands only when it is waited
// for, and a barrier that some threads never reach aborts.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

struct __half;
struct __nv_bfloat16;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;

struct float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
using std::exp2f;
using std::fmaf;
using std::fmaxf;
using std::fminf;
using std::log2f;
using std::max;
using std::min;
using std::rintf;

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline float __fdividef(float x, float y) { return x / y; }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(M_PI * x));
  *cosine = static_cast<float>(std::cos(M_PI * x));
}

inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline int64_t __double_as_longlong(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline double __longlong_as_double(int64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

namespace emulation {

struct Index {
  unsigned x;
};

struct Copy {
  void* to;
  const void* from;
};

// The context starts a fiber, which then runs one block's thread after another: jumps spare the
// system calls of a switch.
struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool started = false;
  std::unique_ptr<char[]> stack;
  std::vector<Copy> copies;
  const void* waits_at = nullptr;
  bool done = false;
  unsigned trades = 0;
};

inline Index grid, block, thread, threads;
inline std::vector<Fiber> fibers;
inline jmp_buf scheduler;
inline std::vector<unsigned char> shared;
inline uint64_t exchange[2][32][32];
struct MmaInput {
  uint32_t a[4], b[2];
};
inline MmaInput mma_inputs[2][32][32];
inline const std::function<void()>* body;
inline bool reversed =
    false;  // the order in which threads take turns: results must not depend on it

constexpr size_t kStack = 256 * 1024;
constexpr unsigned kWarp = 32;

inline Fiber& current() { return fibers[thread.x]; }

inline void run_fiber() {
  for (;;) {
    (*body)();
    current().done = true;
    if (_setjmp(current().place) == 0) _longjmp(scheduler, 1);
  }
}

// Gives way until all threads [first, last) have come to a barrier of this kind. Two rounds of
// turns make one barrier: nobody passes while somebody of the group has not arrived.
inline void barrier(const void* kind) {
  Fiber& self = current();
  self.waits_at = kind;
  if (_setjmp(self.place) == 0) _longjmp(scheduler, 1);
}

inline const char block_barrier = 0;
inline const char warp_barrier = 0;

inline bool arrived(unsigned first, unsigned last, const void* kind) {
  for (unsigned t = first; t < last; ++t) {
    if (fibers[t].waits_at != kind) return false;
  }
  return true;
}

// Runs a fiber until it gives way.
inline void switch_to(unsigned t) {
  Fiber& fiber = fibers[t];
  fiber.waits_at = nullptr;
  thread.x = t;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_fiber, 0);
  setcontext(&fiber.context);
}

inline void take_turns(unsigned first, unsigned last) {
  for (unsigned i = first; i < last; ++i) {
    const unsigned t = reversed ? last - 1 - (i - first) : i;
    if (fibers[t].done) continue;
    switch_to(t);
  }
}

inline void run_block() {
  for (Fiber& fiber : fibers) {
    fiber.done = false;
    fiber.waits_at = nullptr;
    fiber.trades = 0;
    fiber.copies.clear();
  }
  take_turns(0, threads.x);
  for (;;) {
    bool progress = false, finished = true;
    for (unsigned first = 0; first < threads.x; first += kWarp) {
      while (arrived(first, first + kWarp, &warp_barrier)) {
        take_turns(first, first + kWarp);
        progress = true;
      }
    }
    for (const Fiber& fiber : fibers) finished = finished && fiber.done;
    if (finished) return;
    if (arrived(0, threads.x, &block_barrier)) {
      take_turns(0, threads.x);
      progress = true;
    }
    if (!progress) {
      std::fprintf(stderr, "emulation: threads of block %u wait at different barriers\n", block.x);
      std::abort();
    }
  }
}

// Publishes a value to the warp and returns the row of all lanes' values. Rows alternate, so one
// barrier is enough: a row is written again only after everybody has passed the barrier of the row
// between.
template <class T>
const uint64_t* publish(T value) {
  const unsigned lane = thread.x % kWarp, warp = thread.x / kWarp;
  uint64_t* const row = exchange[current().trades++ % 2][warp];
  row[lane] = 0;
  std::memcpy(&row[lane], &value, sizeof value);
  barrier(&warp_barrier);
  return row;
}

template <class T>
T trade(T value, unsigned lane_to_read, unsigned width) {
  const uint64_t* const row = publish(value);
  std::memcpy(&value, &row[thread.x % kWarp / width * width + lane_to_read % width], sizeof value);
  return value;
}

// d += A B for a 16 x 8 tile, from the registers of all lanes; get(register, k, b_side) reads
// element k of a lane's registers, kPerRegister of which stand in one.
template <int kPerRegister, class Get>
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Get get) {
  const unsigned lane = thread.x % kWarp, warp = thread.x / kWarp;
  MmaInput* const row = mma_inputs[current().trades++ % 2][warp];
  std::memcpy(row[lane].a, a, sizeof a);
  std::memcpy(row[lane].b, b, sizeof b);
  barrier(&warp_barrier);
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned column = 2 * (lane % 4) + i % 2;
    for (unsigned k = 0; k < 8 * kPerRegister; ++k) {
      const unsigned t = k / kPerRegister % 4, high = k / kPerRegister / 4;
      const MmaInput &of_a = row[lane / 4 * 4 + t], &of_b = row[column * 4 + t];
      d[i] += get(of_a.a[i / 2 + 2 * high], k % kPerRegister) * get(of_b.b[high], k % kPerRegister);
    }
  }
}

}  // namespace emulation

#define threadIdx emulation::thread
#define blockIdx emulation::block
#define blockDim emulation::threads
#define gridDim emulation::grid

inline void __syncthreads() { emulation::barrier(&emulation::block_barrier); }

inline void __syncwarp(unsigned = 0) { emulation::barrier(&emulation::warp_barrier); }

template <class T>
T __shfl_sync(unsigned, T value, int lane, int width = 32) {
  return emulation::trade(value, static_cast<unsigned>(lane), static_cast<unsigned>(width));
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::trade(value, (threadIdx.x % 32) ^ static_cast<unsigned>(mask), 32);
}

inline unsigned __reduce_max_sync(unsigned, unsigned value) {
  const uint64_t* const row = emulation::publish(value);
  for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
    const unsigned other = static_cast<unsigned>(row[lane]);
    value = other > value ? other : value;
  }
  return value;
}

inline unsigned __reduce_min_sync(unsigned, unsigned value) {
  return ~__reduce_max_sync(0, ~value);
}

inline bool __any_sync(unsigned, bool value) { return __reduce_max_sync(0, value) != 0; }

#include "cuda_rounded.h"

namespace saccade::cuda {

inline void copy_async(void* shared, const void* global) {
  emulation::current().copies.push_back({shared, global});
}

inline void copy_async_wait() {
  for (const emulation::Copy& copy : emulation::current().copies)
    std::memcpy(copy.to, copy.from, 16);
  emulation::current().copies.clear();
}

float to_float(__half x);
float to_float(__nv_bfloat16 x);

template <class T>
void mma_16bit(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulation::mma<2>(d, a, b, [](uint32_t bits, unsigned k) {
    const uint16_t half = static_cast<uint16_t>(bits >> 16 * k);
    T x;
    std::memcpy(&x, &half, sizeof x);
    return to_float(x);
  });
}

inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulation::mma<1>(d, a, b, [](uint32_t bits, unsigned) {
    return __int_as_float(static_cast<int>(bits & 0xffffe000u));
  });
}

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulation::shared.data());
}

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared,
                   cudaStream_t, const Arguments&... arguments) {
  using namespace emulation;
  const std::function<void()> call = [&] { kernel(arguments...); };
  body = &call;
  grid.x = static_cast<unsigned>(blocks);
  emulation::threads.x = static_cast<unsigned>(threads);
  fibers.resize(static_cast<size_t>(threads));
  for (Fiber& fiber : fibers) {
    if (!fiber.stack) fiber.stack.reset(new char[kStack]);
  }
  for (unsigned i = 0; i < grid.x; ++i) {
    block.x = reversed ? grid.x - 1 - i : i;
    emulation::shared.assign(shared, 0xff);
    run_block();
  }
  return cudaSuccess;
}

}  // namespace saccade::cuda
