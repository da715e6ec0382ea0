// Backward: charge all steps of a tile again, then walk back; nothing but the inputs was kept.
#pragma once

#include "spiking/cpu_forward.inl"
#include "spiking/cpu_surrogate.inl"

namespace saccade::spiking::SACCADE_ISA_NAMESPACE {

template <typename T>
struct BackwardBuffers {
  T *h, *slope, *carry, *tau, *threshold, *weight, *bias;
  int64_t row;

  BackwardBuffers(int64_t steps, int64_t count, Scratch<T>& scratch) : row(round_up<T>(count)) {
    h = scratch.take(steps * row);
    slope = scratch.take(row);
    carry = scratch.take(row);
    tau = scratch.take(4 * row);
    threshold = tau + row;
    weight = threshold + row;
    bias = weight + row;
  }
};

template <typename T>
SACCADE_STEP void add_to(T* sum, int64_t i, Vec<T> v) {
  store<T>(sum + i, load(sum + i) + v);
}

template <typename T>
SACCADE_STEP const T* row_of(const Steps<const T>& steps, int64_t t, const Tile& tile) {
  return steps.data == nullptr ? nullptr : steps.data + t * steps.stride + tile.begin;
}

// The potential before step t, from the charge of the step before.
template <typename T, bool kHard, bool kPartial>
SACCADE_STEP Vec<T> potential_before(int64_t t, const T* h_before, Vec<T> threshold,
                                     const Operands<T>& operands, int64_t i, int64_t lanes) {
  if (t == 0) {
    return operands.v0.step == 0 ? load(operands.v0.data)
                                 : load_some<T, kPartial>(operands.v0.data + i, lanes);
  }
  const Vec<T> h = load(h_before + i);
  return after_reset<T, kHard>(h, h - threshold, operands.reset);
}

// The plain case, its first half: charge all steps again.
template <typename T, Charge kCharge, bool kMultiply, bool kHard>
void charge_plain(const BackwardArgs<T>& args, const Tile& tile, const Operands<T>& operands,
                  const BackwardBuffers<T>& buffer) {
  const int64_t stride = args.in.x.stride;
  const T reset = operands.reset;
  const Vec<T> rate = load(operands.rate.data), threshold = load(operands.threshold.data);
  for_each_stride(args.problem.steps, [&](int64_t t, auto together) {
    constexpr int64_t kSteps = decltype(together)::value;
    const T* x = row_of(args.in.x, t, tile);
    const int64_t ahead = t + 2 * kStride <= args.problem.steps ? kStride * stride : 0;
    T* h_row = buffer.h + t * buffer.row;
    for_each_vector<T>(tile.count,
                       [&](auto partial, int64_t i, int64_t lanes) __attribute__((always_inline)) {
                         constexpr bool kPartial = decltype(partial)::value;
                         Vec<T> v = potential_before<T, kHard, kPartial>(
                             t, h_row - buffer.row, threshold, operands, i, lanes);
                         for (int64_t k = 0; k < kSteps; ++k) {
                           const T* from = x + k * stride + i;
                           const Vec<T> u = load_some<T, kPartial>(from, lanes);
                           __builtin_prefetch(from + ahead);
                           const Vec<T> h = charged<T, kCharge, kMultiply>(v, u, reset, rate);
                           store<T>(h_row + k * buffer.row + i, h);
                           v = after_reset<T, kHard>(h, h - threshold, reset);
                         }
                       });
  });
}

// Its second half: walk back. How a step charges is in two factors: dh / dx, and 1 - dh / dv.
template <typename T, Surrogate kSurrogate, bool kHard>
void walk_back_plain(const BackwardArgs<T>& args, const Tile& tile, const Operands<T>& operands,
                     const BackwardBuffers<T>& buffer) {
  const Problem& problem = args.problem;
  const int64_t neurons = problem.neurons();
  const T reset = operands.reset, alpha = static_cast<T>(problem.alpha);
  const Vec<T> threshold = load(operands.threshold.data), inverse = load(operands.inverse.data);
  const Vec<T> by_input = problem.charge == kDecayInput ? inverse : broadcast<T>(T(1));
  const Vec<T> leak = problem.charge == kIntegrate ? Vec<T>{} : inverse;
  const bool attached = !problem.detach_reset, stream = args.stream;
  fill_zero(buffer.carry, buffer.row);
  for_each_stride(problem.steps, [&](int64_t done, auto together) {
    constexpr int64_t kSteps = decltype(together)::value;
    const int64_t last = problem.steps - 1 - done;
    const T* h_row = buffer.h + last * buffer.row;
    const T* grad_spikes = row_of(args.grad_spikes, last, tile);
    const int64_t ahead = last >= 2 * kStride - 1 ? kStride * args.grad_spikes.stride : 0;
    const T* grad_v = row_of(args.grad_v_seq, last, tile);
    const T* grad_v_last =
        done == 0 && args.grad_v_last != nullptr ? args.grad_v_last + tile.begin : nullptr;
    T* grad_x = args.grad_x + last * neurons + tile.begin;
    for_each_vector<T>(
        tile.count, [&](auto partial, int64_t i, int64_t lanes) __attribute__((always_inline)) {
          constexpr bool kPartial = decltype(partial)::value;
          Vec<T> potential = load(buffer.carry + i);  // gradient of the potential after the step
          if (grad_v_last != nullptr) potential += load_some<T, kPartial>(grad_v_last + i, lanes);
          for (int64_t k = 0; k < kSteps; ++k) {
            const Vec<T> h = load(h_row + i - k * buffer.row);
            const Vec<T> d = h - threshold;
            if (grad_v != nullptr)
              potential += load_some<T, kPartial>(grad_v + i - k * args.grad_v_seq.stride, lanes);
            Vec<T> spike{};  // gradient of the spike
            if (grad_spikes != nullptr) {
              const T* from = grad_spikes + i - k * args.grad_spikes.stride;
              spike = load_some<T, kPartial>(from, lanes);
              __builtin_prefetch(from - ahead);
            }
            if (attached) spike += potential * (kHard ? reset - h : -threshold);
            const Vec<T> kept = kHard ? (d >= T(0) ? Vec<T>{} : potential) : potential;
            const Vec<T> charge = spike * slope_at<T, kSurrogate>(d, alpha) + kept;
            const Vec<T> result = charge * by_input;
            potential = charge - charge * leak;
            T* to = grad_x + i - k * neurons;
            if (!kPartial && stream) {
              store_stream<T>(to, result);
            } else {
              store_some<T, kPartial>(to, result, lanes);
            }
          }
          store<T>(buffer.carry + i, potential);
        });
  });
  if (stream) fence_stream();
}

// kGeneral: something else than x is differentiated or enters the input.
template <typename T, Charge kCharge, bool kMultiply, bool kHard, bool kGeneral>
void run_backward(const BackwardArgs<T>& args, const Tile& tile, const Operands<T>& operands,
                  const BackwardBuffers<T>& buffer) {
  const Problem& problem = args.problem;
  const int64_t neurons = problem.neurons();
  const int64_t steps = problem.steps;
  const T reset = operands.reset;
  const T alpha = static_cast<T>(problem.alpha);
  const FillSlopes<T> fill = slopes_of<T>(problem.surrogate);

  for (int64_t t = 0; t < steps; ++t) {
    const T* x = row_of(args.in.x, t, tile);
    const T* residual = kGeneral ? row_of(args.in.residual, t, tile) : nullptr;
    T* h_row = buffer.h + t * buffer.row;
    for_each_vector<T>(
        tile.count, [&](auto partial, int64_t i, int64_t lanes) __attribute__((always_inline)) {
          constexpr bool kPartial = decltype(partial)::value;
          Vec<T> u = load_some<T, kPartial>(x + i, lanes);
          if constexpr (kGeneral) u = input_of<T, kPartial>(u, operands, residual, i, lanes);
          const Vec<T> threshold = load(operands.threshold.data + i * operands.threshold.step);
          const Vec<T> v = potential_before<T, kHard, kPartial>(t, h_row - buffer.row, threshold,
                                                                operands, i, lanes);
          store<T>(h_row + i, charged<T, kCharge, kMultiply>(
                                  v, u, reset, load(operands.rate.data + i * operands.rate.step)));
        });
  }

  fill_zero(buffer.carry, buffer.row);
  for (int64_t t = steps - 1; t >= 0; --t) {
    const int64_t at = t * neurons + tile.begin;
    const T* h_row = buffer.h + t * buffer.row;
    fill(h_row, operands.threshold, tile.count, alpha, buffer.slope);
    const T* x = row_of(args.in.x, t, tile);
    const T* residual = row_of(args.in.residual, t, tile);
    const T* grad_spikes = row_of(args.grad_spikes, t, tile);
    const T* grad_v = row_of(args.grad_v_seq, t, tile);
    const T* grad_v_last =
        t == steps - 1 && args.grad_v_last != nullptr ? args.grad_v_last + tile.begin : nullptr;
    T* grad_x = args.grad_x == nullptr ? nullptr : args.grad_x + at;
    T* grad_residual = args.grad_residual == nullptr ? nullptr : args.grad_residual + at;
    const bool attached = !problem.detach_reset;
    const bool stream = args.stream;
    for_each_vector<T>(tile.count, [&](auto partial, int64_t i,
                                       int64_t lanes) __attribute__((always_inline)) {
      constexpr bool kPartial = decltype(partial)::value;
      const Vec<T> h = load(h_row + i);
      const Vec<T> threshold = load(operands.threshold.data + i * operands.threshold.step);
      const Vec<T> inverse = load(operands.inverse.data + i * operands.inverse.step);
      const Mask<T> fired = h - threshold >= T(0);
      Vec<T> potential = load(buffer.carry + i);  // gradient of the potential after the step
      if (grad_v != nullptr) potential += load_some<T, kPartial>(grad_v + i, lanes);
      if (grad_v_last != nullptr) potential += load_some<T, kPartial>(grad_v_last + i, lanes);
      Vec<T> spike{};  // gradient of the spike
      if (grad_spikes != nullptr) spike = load_some<T, kPartial>(grad_spikes + i, lanes);
      if (attached) spike += potential * (kHard ? reset - h : -threshold);
      const Vec<T> through_spike = spike * load(buffer.slope + i);
      const Vec<T> charge = through_spike + (kHard ? (fired ? Vec<T>{} : potential) : potential);
      const Vec<T> leaked = kCharge == kIntegrate ? Vec<T>{} : charge * inverse;
      const Vec<T> input = kCharge == kDecayInput ? leaked : charge;
      store<T>(buffer.carry + i, kCharge == kIntegrate ? charge : charge - leaked);
      Vec<T> result = input;
      if constexpr (kGeneral) {
        const Vec<T> x_t = load_some<T, kPartial>(x + i, lanes);
        if (args.want[kThreshold]) {
          const Vec<T> by_reset = kHard ? Vec<T>{} : (fired ? potential : Vec<T>{});
          add_to<T>(buffer.threshold, i, -through_spike - by_reset);
        }
        if (kCharge != kIntegrate && args.want[kTau]) {
          const Vec<T> v = potential_before<T, kHard, kPartial>(t, h_row - buffer.row, threshold,
                                                                operands, i, lanes);
          Vec<T> pull = v - reset;
          if constexpr (kCharge == kDecayInput)
            pull -= input_of<T, kPartial>(x_t, operands, residual, i, lanes);
          add_to<T>(buffer.tau, i, leaked * pull * inverse);
        }
        if (args.want[kWeight]) add_to<T>(buffer.weight, i, input * x_t);
        if (args.want[kBias]) add_to<T>(buffer.bias, i, input);
        if (operands.weight.data != nullptr)
          result *= load(operands.weight.data + i * operands.weight.step);
        if (grad_residual != nullptr) store_some<T, kPartial>(grad_residual + i, input, lanes);
      }
      if (grad_x != nullptr) {
        if (!kPartial && stream) {
          store_stream<T>(grad_x + i, result);
        } else {
          store_some<T, kPartial>(grad_x + i, result, lanes);
        }
      }
    });
  }
  if (args.stream) fence_stream();
}

// A tile's sums over the steps, added to the channels' sums.
template <typename T>
inline void add_sums(const Problem& problem, const Tile& tile, const T* values, bool shared,
                     double* sums) {
  for_each_run(problem, tile, [&](int64_t channel, int64_t i, int64_t length) {
    double total = 0;
    for (int64_t j = i; j < i + length; ++j) total += static_cast<double>(values[j]);
    sums[shared ? 0 : channel] += total;
  });
}

}  // namespace saccade::spiking::SACCADE_ISA_NAMESPACE
