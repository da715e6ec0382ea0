// Forward: all steps of a tile; the potentials stand in v_last from one step to the next.
#pragma once

#include "spiking/cpu_step.inl"

namespace saccade::spiking::SACCADE_ISA_NAMESPACE {

template <typename T, bool kPartial>
SACCADE_STEP void store_bytes(uint8_t* p, Mask<T> fired, int64_t lanes) {
  typedef uint8_t Bytes __attribute__((vector_size(kWidth<T>)));
  const Bytes bytes = __builtin_convertvector(fired & 1, Bytes);
  memcpy(p, &bytes, kPartial ? static_cast<size_t>(lanes) : sizeof(bytes));
}

// Eight bytes of 0 and 1 become a byte, low bit first.
SACCADE_STEP uint8_t pack_byte(const uint8_t* spikes) {
  uint64_t word;
  memcpy(&word, spikes, 8);
  return static_cast<uint8_t>((word * 0x0102040810204080ull) >> 56);
}

// Spikes of neurons [begin, begin + count), which start at a byte's first bit in every row.
inline void pack_rows(const uint8_t* spikes, int64_t begin, int64_t count, int64_t row,
                      uint8_t* out) {
  const int64_t row_bytes = (row + 7) / 8;
  for (int64_t i = 0; i < count;) {
    const int64_t place = (begin + i) % row;
    const int64_t length = row - place < count - i ? row - place : count - i;
    uint8_t* to = out + (begin + i) / row * row_bytes + place / 8;
    int64_t j = 0;
    for (; j + 8 <= length; j += 8) *to++ = pack_byte(spikes + i + j);
    if (j < length) {
      uint8_t last[8] = {};
      memcpy(last, spikes + i + j, static_cast<size_t>(length - j));
      *to = pack_byte(last);
    }
    i += length;
  }
}

// Steps that a vector of potentials stays in its register. Each reads and writes a row of its own,
// and rows whose distance is a power of two meet in one set of every cache: two rows leave room
// there, four do not.
constexpr int64_t kStride = 2;

// Calls body(first step, steps as a type) for all steps, kStride at a time.
template <typename F>
SACCADE_STEP void for_each_stride(int64_t steps, const F& body) {
  int64_t t = 0;
  for (; t + kStride <= steps; t += kStride) body(t, std::integral_constant<int64_t, kStride>{});
  if (t < steps) body(t, std::integral_constant<int64_t, 1>{});
}

// The plain case: one parameter for all neurons, spikes of the type of x and nothing else.
template <typename T, Charge kCharge, bool kMultiply, bool kHard>
void run_forward_plain(const ForwardArgs<T>& args, const Tile& tile, const Operands<T>& operands) {
  const int64_t neurons = args.problem.neurons(), stride = args.in.x.stride;
  const T reset = operands.reset;
  const Vec<T> rate = load(operands.rate.data), threshold = load(operands.threshold.data);
  T* v_last = args.v_last + tile.begin;
  const bool stream = args.stream;
  for_each_stride(args.problem.steps, [&](int64_t t, auto together) {
    constexpr int64_t kSteps = decltype(together)::value;
    const T* x = args.in.x.data + t * stride + tile.begin;
    // the next rows of the tile, which the prefetcher cannot know of; none: the same rows
    const int64_t ahead = t + 2 * kStride <= args.problem.steps ? kStride * stride : 0;
    T* spikes = static_cast<T*>(args.spikes) + t * neurons + tile.begin;
    const Operand<T> before = t == 0 ? operands.v0 : Operand<T>{v_last, 1};
    for_each_vector<T>(
        tile.count, [&](auto partial, int64_t i, int64_t lanes) __attribute__((always_inline)) {
          constexpr bool kPartial = decltype(partial)::value;
          Vec<T> v =
              before.step == 0 ? load(before.data) : load_some<T, kPartial>(before.data + i, lanes);
          for (int64_t k = 0; k < kSteps; ++k) {
            const T* from = x + k * stride + i;
            const Vec<T> u = load_some<T, kPartial>(from, lanes);
            __builtin_prefetch(from + ahead);
            const Vec<T> h = charged<T, kCharge, kMultiply>(v, u, reset, rate);
            const Vec<T> d = h - threshold;
            v = after_reset<T, kHard>(h, d, reset);
            const Vec<T> s = d >= T(0) ? broadcast<T>(T(1)) : Vec<T>{};
            T* to = spikes + k * neurons + i;
            if (!kPartial && stream) {
              store_stream<T>(to, s);
            } else {
              store_some<T, kPartial>(to, s, lanes);
            }
          }
          store_some<T, kPartial>(v_last + i, v, lanes);
        });
  });
  if (stream) fence_stream();
}

template <typename T, Charge kCharge, bool kMultiply, bool kHard, bool kInput>
void run_forward(const ForwardArgs<T>& args, const Tile& tile, const Operands<T>& operands,
                 uint8_t* unpacked) {
  const int64_t neurons = args.problem.neurons();
  const T reset = operands.reset;
  const int64_t row_bytes = (args.row + 7) / 8;
  T* v_last = args.v_last + tile.begin;
  for (int64_t t = 0; t < args.problem.steps; ++t) {
    const int64_t at = t * neurons + tile.begin;
    const T* x = args.in.x.data + t * args.in.x.stride + tile.begin;
    const T* residual = nullptr;
    if constexpr (kInput) {
      if (args.in.residual.data != nullptr)
        residual = args.in.residual.data + t * args.in.residual.stride + tile.begin;
    }
    T* spikes = args.spike_code == kFloatSpikes ? static_cast<T*>(args.spikes) + at : nullptr;
    uint8_t* bytes = unpacked;
    if (args.spike_code == kByteSpikes) bytes = static_cast<uint8_t*>(args.spikes) + at;
    T* v_seq = args.v_seq == nullptr ? nullptr : args.v_seq + at;
    const Operand<T> before = t == 0 ? operands.v0 : Operand<T>{v_last, 1};
    const bool stream = args.stream;
    for_each_vector<T>(
        tile.count, [&](auto partial, int64_t i, int64_t lanes) __attribute__((always_inline)) {
          constexpr bool kPartial = decltype(partial)::value;
          Vec<T> u = load_some<T, kPartial>(x + i, lanes);
          if constexpr (kInput) u = input_of<T, kPartial>(u, operands, residual, i, lanes);
          const Vec<T> v =
              before.step == 0 ? load(before.data) : load_some<T, kPartial>(before.data + i, lanes);
          const Vec<T> h = charged<T, kCharge, kMultiply>(
              v, u, reset, load(operands.rate.data + i * operands.rate.step));
          const Vec<T> d = h - load(operands.threshold.data + i * operands.threshold.step);
          const Vec<T> next = after_reset<T, kHard>(h, d, reset);
          store_some<T, kPartial>(v_last + i, next, lanes);
          if (spikes != nullptr) {
            const Vec<T> s = d >= T(0) ? broadcast<T>(T(1)) : Vec<T>{};
            if (!kPartial && stream) {
              store_stream<T>(spikes + i, s);
            } else {
              store_some<T, kPartial>(spikes + i, s, lanes);
            }
          } else {
            store_bytes<T, kPartial>(bytes + i, d >= T(0), lanes);
          }
          if (v_seq != nullptr) store_some<T, kPartial>(v_seq + i, next, lanes);
        });
    if (args.spike_code == kBitSpikes) {
      pack_rows(bytes, tile.begin, tile.count, args.row,
                static_cast<uint8_t*>(args.spikes) + t * (neurons / args.row * row_bytes));
    }
  }
  if (args.problem.steps == 0) {
    for_each_vector<T>(tile.count, [&](auto partial, int64_t i, int64_t lanes) {
      constexpr bool kPartial = decltype(partial)::value;
      const Vec<T> v = operands.v0.step == 0 ? load(operands.v0.data)
                                             : load_some<T, kPartial>(operands.v0.data + i, lanes);
      store_some<T, kPartial>(v_last + i, v, lanes);
    });
  }
  if (args.stream) fence_stream();
}

}  // namespace saccade::spiking::SACCADE_ISA_NAMESPACE
