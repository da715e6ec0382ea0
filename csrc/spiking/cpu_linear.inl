// A linear layer over bits: rows of the transposed weight are added where a bit is set.
#pragma once

#include "spiking/cpu_step.inl"

namespace saccade::spiking::SACCADE_ISA_NAMESPACE {

constexpr int kVectors = 8;  // sums in registers: enough to hide the latency of an addition
template <typename T>
constexpr int64_t kColumns = kVectors * kWidth<T>;

template <typename T>
void pack_panel(const LinearArgs<T>& args, int64_t first, T* panel) {
  const int64_t columns = args.outputs - first < kColumns<T> ? args.outputs - first : kColumns<T>;
  if (columns < kColumns<T>) fill_zero(panel, args.inputs * kColumns<T>);
  for (int64_t column = 0; column < columns; ++column) {
    const T* weight = args.weight + (first + column) * args.inputs;
    for (int64_t i = 0; i < args.inputs; ++i) panel[i * kColumns<T> + column] = weight[i];
  }
}

template <typename T>
void multiply_panel(const LinearArgs<T>& args, int64_t first, const T* panel, int64_t first_row,
                    int64_t rows) {
  const int64_t bytes = (args.inputs + 7) / 8;
  const int64_t columns = args.outputs - first < kColumns<T> ? args.outputs - first : kColumns<T>;
  T start[kColumns<T>] = {};
  for (int64_t i = 0; args.bias != nullptr && i < columns; ++i) start[i] = args.bias[first + i];
  for (int64_t row = first_row; row < first_row + rows; ++row) {
    const uint8_t* spikes = args.spikes + row * bytes;
    Vec<T> sum[kVectors];
    for (int j = 0; j < kVectors; ++j) sum[j] = load(start + j * kWidth<T>);
    for (int64_t byte = 0; byte < bytes; byte += 8) {
      uint64_t word = 0;
      memcpy(&word, spikes + byte, static_cast<size_t>(bytes - byte < 8 ? bytes - byte : 8));
      // bits behind the last input do not count
      const int64_t left = args.inputs - byte * 8;
      if (left < 64) word &= (uint64_t{1} << left) - 1;
      const T* rows_of_word = panel + byte * 8 * kColumns<T>;
      for (; word != 0; word &= word - 1) {
        const T* add = rows_of_word + __builtin_ctzll(word) * kColumns<T>;
        for (int j = 0; j < kVectors; ++j) sum[j] += load(add + j * kWidth<T>);
      }
    }
    T* out = args.out + row * args.outputs + first;
    for (int j = 0; j < kVectors && j * kWidth<T> < columns; ++j)
      store_partial<T>(out + j * kWidth<T>, sum[j], columns - j * kWidth<T>);
  }
}

}  // namespace saccade::spiking::SACCADE_ISA_NAMESPACE
