// Forward. A thread owns one or four neighbouring neurons for all time steps: the voltage stays in
// registers, x is read once and spikes are written once. The loads of four steps are issued before
// the first of them is used, because the recurrence alone would wait for each.
#include "spiking/cuda_neuron.cuh"

namespace saccade::lif {
namespace {

constexpr int kAhead = 4;
constexpr int kLeastBlocks = 5;  // of a multiprocessor: leaves enough registers not to spill

// Eight neighbours of a row make a byte, the first in the lowest bit. All lanes of a warp come
// here.
template <int kVec>
__device__ __forceinline__ void store_bits(uint8_t* to, int padded, unsigned spikes, bool inside) {
  if constexpr (kVec == 4) {
    const unsigned high = __shfl_xor_sync(cuda::kFullWarp, spikes, 1);
    if (inside && padded % 8 == 0) to[padded / 8] = static_cast<uint8_t>(spikes | high << 4);
  } else {
    const unsigned warp = __ballot_sync(cuda::kFullWarp, spikes != 0);
    const unsigned lane = threadIdx.x % 32;
    if (inside && padded % 8 == 0) to[padded / 8] = static_cast<uint8_t>(warp >> lane);
  }
}

// `extent` counts columns, of bits with every row of `last` neurons filled up to whole bytes.
template <class T, int kVec, bool kChannels>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    forward_kernel(const __grid_constant__ Forward f, const Shape shape, const int extent) {
  const Problem& p = f.problem;
  const int thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x);
  const int64_t row = int64_t{block / shape.column_blocks} * shape.along() + thread / shape.across;
  const int padded = (block % shape.column_blocks * shape.across + thread % shape.across) * kVec;
  const bool inside = row < p.rows && padded < extent;
  bool present = inside;
  int column = padded;
  if (f.kind == Spikes::kBits) {
    const int width = (f.last + 7) / 8 * 8;
    column = padded / width * f.last + padded % width;
    present = inside && padded % width < f.last;
  }
  if (!present) column = 0;
  const Neurons<kVec, kChannels> of(p, column);
  const int64_t at = row * p.columns + column, neurons = p.rows * p.columns;
  const T* const x = static_cast<const T*>(p.x) + at;
  float v[kVec];
  load_or<kVec>(p.v_reset, present ? p.v0 : nullptr, at, v);

#pragma unroll 1
  for (int64_t first = 0; first < p.steps; first += kAhead) {
    float ahead[kAhead][kVec];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (present && first + i < p.steps) {
        load<T, kVec>(x + (first + i) * p.x_step, ahead[i]);
      } else {
        fill<kVec>(0.f, ahead[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t step = first + i;
      if (step >= p.steps) break;
      if (present) current<T>(p, of, step, at, ahead[i]);
      unsigned spikes = 0;
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const float h = charge(p, v[j], ahead[i][j], of.tau(j));
        spikes |= static_cast<unsigned>(fires(h, of.threshold(j))) << j;
        v[j] = reset(p, h, of.threshold(j));
      }
      if (f.kind == Spikes::kBits) {
        const int64_t bytes = extent / 8;  // of a row
        uint8_t* const to = static_cast<uint8_t*>(f.spikes) + (step * p.rows + row) * bytes;
        store_bits<kVec>(to, padded, present ? spikes : 0, inside);
      } else if (present) {
        if (f.kind == Spikes::kByte) {
          Pack<uint8_t, kVec> pack;
#pragma unroll
          for (int j = 0; j < kVec; ++j) pack.element[j] = static_cast<uint8_t>(spikes >> j & 1);
          *reinterpret_cast<Pack<uint8_t, kVec>*>(static_cast<uint8_t*>(f.spikes) + step * neurons +
                                                  at) = pack;
        } else {
          float s[kVec];
#pragma unroll
          for (int j = 0; j < kVec; ++j) s[j] = static_cast<float>(spikes >> j & 1);
          store<T, kVec>(static_cast<T*>(f.spikes) + step * neurons + at, s);
        }
      }
      if (present && f.v_seq != nullptr) store<float, kVec>(f.v_seq + step * neurons + at, v);
    }
  }
  if (present) store<float, kVec>(f.v_last + at, v);
}

}  // namespace

cudaError_t forward(const Forward& f, cudaStream_t stream) {
  const Problem& p = f.problem;
  const bool bits = f.kind == Spikes::kBits;
  const int extent = bits ? p.columns / f.last * ((f.last + 7) / 8 * 8) : p.columns;
  return dispatch(p, [&]<class T, int kVec>(Case<T, kVec>) {
    const Shape shape = Shape::over(extent, kVec, bits ? 8 : 1);
    const int64_t blocks = shape.column_blocks * ((p.rows + shape.along() - 1) / shape.along());
    const auto kernel =
        has_channels(p) ? forward_kernel<T, kVec, true> : forward_kernel<T, kVec, false>;
    return cuda::launch(kernel, blocks, kThreads, 0, stream, f, shape, extent);
  });
}

}  // namespace saccade::lif
