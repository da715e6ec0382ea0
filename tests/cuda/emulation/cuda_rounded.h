// Intrinsics that round as they are written, votes, static shared memory and the functions that
// kernels of single threads need; included by cuda_runtime.h.
#pragma once

#define __shared__ static

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }

inline unsigned __ballot_sync(unsigned, bool value) {
  const uint64_t* const row = emulation::publish(unsigned{value});
  unsigned bits = 0;
  for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
    bits |= static_cast<unsigned>(row[lane]) << lane;
  }
  return bits;
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }
