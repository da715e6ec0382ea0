// Products of small matrices on a warp's tensor cores, for sm_80 and newer. Lane 4 g + t holds the
// elements of rows g and g + 8 of A, of column g of B, and of columns 2 t and 2 t + 1 of the
// result; t alone decides which of the k it holds, so a caller may deal out k as it likes, the same
// way for A and B.
#pragma once

#include <type_traits>

#include "common/cuda_device.cuh"

namespace saccade::cuda {

// Result of a 16 x 8 tile: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
using MmaTile = float[4];

#ifdef __CUDACC__
template <class T>
__device__ __forceinline__ void mma_16bit(MmaTile& d, const uint32_t (&a)[4],
                                          const uint32_t (&b)[2]) {
  static_assert(sizeof(T) == 2);
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

__device__ __forceinline__ void mma_tf32(MmaTile& d, const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// The float32 nearest to x that TF32 holds exactly; an infinity stays one. A NaN may be lost, but
// not from x - rounded_tf32(x).
__device__ __forceinline__ float rounded_tf32(float x) {
  return __int_as_float((__float_as_int(x) + 0x1000) & static_cast<int>(0xffffe000u));
}

}  // namespace saccade::cuda
