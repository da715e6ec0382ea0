// A matrix product of tiles on tensor cores, whose operands may be made where they are used. A
// block of 8 warps owns 128 x 128 results and walks k in chunks of 32. A chunk of an operand lies
// in shared memory as units: 8 consecutive k of one row, in pieces of 16 bytes. Which k share a
// unit is the caller's choice: for features they are 8 basis functions of one input, so that one
// thread makes a unit from one x. A lane's fragments of two (float32: four) products in a row are
// one unit, hence it reads pieces of 16 bytes, without bank conflicts.
#pragma once

#include <cstring>
#include <type_traits>

#include "common/cuda_mma.cuh"

namespace saccade::kan_gpu {

constexpr int kThreads = 256;
constexpr int kRows = 128;     // rows of A and of B, hence of the tile of results
constexpr int kUnit = 8;       // k of a unit
constexpr int kUnits = 4;      // units of a row in a chunk, one a lane t
constexpr int kDepth = 32;     // k of a chunk
constexpr int kWarpsDown = 4;  // a warp owns 32 x 64 results
constexpr int kTilesDown = 2;
constexpr int kTilesAcross = 8;

template <class T>
constexpr int kPieces = kUnit / cuda::kVector<T>;

constexpr int kTile = kRows * kDepth;  // elements of an operand's chunk

// Blocks of a multiprocessor that registers are kept for; three products of float32 need them all.
template <class T>
constexpr int kResident = sizeof(T) == 2 ? 2 : 1;

using Results = cuda::MmaTile[kTilesDown][kTilesAcross];

// Element j of unit t of a row. Rows of the same piece follow each other, so that a warp reads or
// writes consecutive pieces.
template <class T>
__device__ __forceinline__ int place(int row, int t, int j) {
  constexpr int vector = cuda::kVector<T>;
  return ((j / vector * kRows + row) * kUnits + t) * vector + j % vector;
}

template <class T>
__device__ __forceinline__ void store_unit(T* tile, int row, int t, const float (&x)[kUnit]) {
#pragma unroll
  for (int piece = 0; piece < kPieces<T>; ++piece) {
    cuda::Vector<T> v;
#pragma unroll
    for (int i = 0; i < cuda::kVector<T>; ++i)
      v.element[i] = cuda::from_float<T>(x[piece * cuda::kVector<T> + i]);
    *reinterpret_cast<cuda::Vector<T>*>(tile + place<T>(row, t, piece * cuda::kVector<T>)) = v;
  }
}

// Starts the copy of a packed chunk, which lies in global memory as it does in shared memory.
template <class T>
__device__ __forceinline__ void copy_tile(T* tile, const T* packed) {
  constexpr int vector = cuda::kVector<T>;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) * vector; i < kTile; i += kThreads * vector) {
    cuda::copy_async(tile + i, packed + i);
  }
}

// A unit of a 16-bit type as the tensor cores take it: two elements in one register.
struct alignas(16) Pairs {
  uint32_t pair[kUnit / 2];
};

// x as the sum of two TF32 numbers, but for 2^-22 of it.
__device__ __forceinline__ void split(float x, uint32_t& upper, uint32_t& rest) {
  const float rounded = cuda::rounded_tf32(x);
  upper = static_cast<uint32_t>(__float_as_int(rounded));
  rest = static_cast<uint32_t>(__float_as_int(x - rounded));
}

template <class T>
__device__ __forceinline__ void multiply(const T* a, const T* b, Results& results) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int down = warp % kWarpsDown * (16 * kTilesDown);
  const int across = warp / kWarpsDown * (8 * kTilesAcross);
  if constexpr (sizeof(T) == 2) {
    Pairs of_a[kTilesDown][2];
#pragma unroll
    for (int m = 0; m < kTilesDown; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        of_a[m][half] =
            *reinterpret_cast<const Pairs*>(a + place<T>(down + 16 * m + 8 * half + g, t, 0));
    }
#pragma unroll
    for (int n = 0; n < kTilesAcross; ++n) {
      const Pairs of_b = *reinterpret_cast<const Pairs*>(b + place<T>(across + 8 * n + g, t, 0));
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const uint32_t right[2] = {of_b.pair[2 * step], of_b.pair[2 * step + 1]};
#pragma unroll
        for (int m = 0; m < kTilesDown; ++m) {
          const uint32_t left[4] = {of_a[m][0].pair[2 * step], of_a[m][1].pair[2 * step],
                                    of_a[m][0].pair[2 * step + 1], of_a[m][1].pair[2 * step + 1]};
          cuda::mma_16bit<T>(results[m][n], left, right);
        }
      }
    }
  } else {
    // three products of TF32 numbers; that of the small parts is 2^-22 of the whole, and left out
#pragma unroll
    for (int piece = 0; piece < kPieces<T>; ++piece) {
      uint32_t left[2][kTilesDown][4], left_rest[2][kTilesDown][4];
#pragma unroll
      for (int m = 0; m < kTilesDown; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const auto of_a = *reinterpret_cast<const cuda::Vector<T>*>(
              a + place<T>(down + 16 * m + 8 * half + g, t, 4 * piece));
#pragma unroll
          for (int i = 0; i < 4; ++i)
            split(of_a.element[i], left[i / 2][m][half + 2 * (i % 2)],
                  left_rest[i / 2][m][half + 2 * (i % 2)]);
        }
      }
#pragma unroll
      for (int n = 0; n < kTilesAcross; ++n) {
        const auto of_b = *reinterpret_cast<const cuda::Vector<T>*>(
            b + place<T>(across + 8 * n + g, t, 4 * piece));
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          uint32_t right[2], right_rest[2];
          split(of_b.element[2 * step], right[0], right_rest[0]);
          split(of_b.element[2 * step + 1], right[1], right_rest[1]);
#pragma unroll
          for (int m = 0; m < kTilesDown; ++m) {
            cuda::mma_tf32(results[m][n], left_rest[step][m], right);
            cuda::mma_tf32(results[m][n], left[step][m], right_rest);
            cuda::mma_tf32(results[m][n], left[step][m], right);
          }
        }
      }
    }
  }
}

// Walks chunks [first, last): load(chunk, a, b) fills both operands' shared memory, by copy_tile or
// by stores of its own. `shared` holds two stages of two tiles.
template <class T, class Load>
__device__ __forceinline__ void accumulate(T* shared, int first, int last, Load load,
                                           Results& results) {
#pragma unroll
  for (int m = 0; m < kTilesDown; ++m) {
#pragma unroll
    for (int n = 0; n < kTilesAcross; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) results[m][n][i] = 0.f;
    }
  }
  T* stage = shared;
  T* other = shared + 2 * kTile;
  if (first < last) load(first, stage, stage + kTile);
#pragma unroll 1
  for (int chunk = first; chunk < last; ++chunk) {
    cuda::copy_async_wait();
    // this chunk is there, and nobody reads the chunk before it any more
    __syncthreads();
    if (chunk + 1 < last) load(chunk + 1, other, other + kTile);
    multiply<T>(stage, stage + kTile, results);
    T* const swap = stage;
    stage = other, other = swap;
  }
  __syncthreads();
}

// Calls store(row, column, value) for every result of this thread, rows and columns within the
// tile.
template <class Store>
__device__ __forceinline__ void for_each_result(const Results& results, Store store) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int down = warp % kWarpsDown * (16 * kTilesDown) + lane / 4;
  const int across = warp / kWarpsDown * (8 * kTilesAcross) + lane % 4 * 2;
#pragma unroll
  for (int m = 0; m < kTilesDown; ++m) {
#pragma unroll
    for (int n = 0; n < kTilesAcross; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        store(down + 16 * m + 8 * (i / 2), across + 8 * n + i % 2, results[m][n][i]);
    }
  }
}

}  // namespace saccade::kan_gpu
