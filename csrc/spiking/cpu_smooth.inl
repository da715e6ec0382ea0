// The surrogate's smooth step in place of the spike, a neuron at a time: with it the gradients are
// those of the function itself, which is how they are verified.
#pragma once

#include "spiking/cpu_surrogate.inl"

namespace saccade::spiking::SACCADE_ISA_NAMESPACE {

inline double smooth_step(Surrogate kind, double d, double alpha) {
  const double z = alpha * d;
  switch (kind) {
    case kSigmoid:
      return 1 / (1 + ::exp(-z));
    case kAtan:
      return ::atan(kHalfPi<double> * z) / (2 * kHalfPi<double>)+0.5;
    case kPiecewiseQuadratic:
      return z <= -1 ? 0.0 : z >= 1 ? 1.0 : 0.5 + z - 0.5 * ::fabs(z) * z;
    case kPiecewiseExp:
      return d < 0 ? 0.5 * ::exp(z) : 1 - 0.5 * ::exp(-z);
    case kSoftSign:
      return 0.5 + 0.5 * z / (1 + ::fabs(z));
    case kSuperSpike:
      return 0.5 + z / (1 + ::fabs(d));
    case kErf:
      return 0.5 + 0.5 * ::erf(z);
    case kRectangle:
      break;
  }
  return z <= -0.5 ? 0.0 : z >= 0.5 ? 1.0 : z + 0.5;
}

// A neuron's parameters.
template <typename T>
struct Neuron {
  T tau, threshold, weight, bias, reset;
  bool affine;

  Neuron(const Problem& problem, const Inputs<T>& in, int64_t channel)
      : tau(at(in.tau, problem.tau, channel)),
        threshold(at(in.threshold, problem.threshold, channel)),
        weight(in.weight == nullptr ? T(1) : in.weight[channel]),
        bias(in.bias == nullptr ? T(0) : in.bias[channel]),
        reset(static_cast<T>(problem.reset)),
        affine(in.weight != nullptr) {}

  T input(const Inputs<T>& in, int64_t t, int64_t n) const {
    T u = in.x.data[t * in.x.stride + n];
    if (affine) u = weight * u + bias;
    if (in.residual.data != nullptr) u = u + in.residual.data[t * in.residual.stride + n];
    return u;
  }

  T charge(const Problem& problem, T v, T u) const {
    if (problem.charge == kIntegrate) return v + u;
    if (problem.charge == kDecayInput) return v + (u - (v - reset)) / tau;
    return v - (v - reset) / tau + u;
  }

  T after(const Problem& problem, T h, T s) const {
    return problem.hard_reset ? s * reset + (1 - s) * h : h - s * threshold;
  }

 private:
  static T at(const PerChannel<T>& given, double number, int64_t channel) {
    if (given.data == nullptr) return static_cast<T>(number);
    return given.data[given.shared ? 0 : channel];
  }
};

template <typename T>
void forward_smooth(const ForwardArgs<T>& args, const Tile& tile) {
  const Problem& problem = args.problem;
  const int64_t neurons = problem.neurons();
  for_each_run(problem, tile, [&](int64_t channel, int64_t i, int64_t length) {
    const Neuron<T> neuron(problem, args.in, channel);
    for (int64_t n = tile.begin + i; n < tile.begin + i + length; ++n) {
      T v = args.in.v0 == nullptr ? neuron.reset : args.in.v0[n];
      for (int64_t t = 0; t < problem.steps; ++t) {
        const T h = neuron.charge(problem, v, neuron.input(args.in, t, n));
        const T s =
            static_cast<T>(smooth_step(problem.surrogate, h - neuron.threshold, problem.alpha));
        v = neuron.after(problem, h, s);
        static_cast<T*>(args.spikes)[t * neurons + n] = s;
        if (args.v_seq != nullptr) args.v_seq[t * neurons + n] = v;
      }
      args.v_last[n] = v;
    }
  });
}

// memory: 4 rows of `steps` numbers.
template <typename T>
void backward_smooth(const BackwardArgs<T>& args, const Tile& tile, const Sums& sums, T* memory) {
  const Problem& problem = args.problem;
  const int64_t neurons = problem.neurons();
  const int64_t steps = problem.steps;
  T *h = memory, *s = h + steps, *before = s + steps, *slope = before + steps;
  const FillSlopes<T> fill = slopes_of<T>(problem.surrogate);
  for_each_run(problem, tile, [&](int64_t channel, int64_t i, int64_t length) {
    const Neuron<T> neuron(problem, args.in, channel);
    for (int64_t n = tile.begin + i; n < tile.begin + i + length; ++n) {
      T v = args.in.v0 == nullptr ? neuron.reset : args.in.v0[n];
      for (int64_t t = 0; t < steps; ++t) {
        before[t] = v;
        h[t] = neuron.charge(problem, v, neuron.input(args.in, t, n));
        s[t] =
            static_cast<T>(smooth_step(problem.surrogate, h[t] - neuron.threshold, problem.alpha));
        v = neuron.after(problem, h[t], s[t]);
        T charge[kWidth<T>] = {h[t]}, threshold[kWidth<T>] = {neuron.threshold}, out[kWidth<T>];
        fill(charge, Operand<T>{threshold, 0}, 1, static_cast<T>(problem.alpha), out);
        slope[t] = out[0];
      }
      T carry = steps == 0 && args.grad_v_last != nullptr ? args.grad_v_last[n] : T(0);
      for (int64_t t = steps - 1; t >= 0; --t) {
        const int64_t at = t * neurons + n;
        T potential = carry;
        if (args.grad_v_seq.data != nullptr)
          potential += args.grad_v_seq.data[t * args.grad_v_seq.stride + n];
        if (t == steps - 1 && args.grad_v_last != nullptr) potential += args.grad_v_last[n];
        T spike = args.grad_spikes.data == nullptr
                      ? T(0)
                      : args.grad_spikes.data[t * args.grad_spikes.stride + n];
        if (!problem.detach_reset)
          spike += potential * (problem.hard_reset ? neuron.reset - h[t] : -neuron.threshold);
        const T through_spike = spike * slope[t];
        const T charge = through_spike + (problem.hard_reset ? (1 - s[t]) * potential : potential);
        const T leaked = problem.charge == kIntegrate ? T(0) : charge / neuron.tau;
        const T input = problem.charge == kDecayInput ? leaked : charge;
        const T x = args.in.x.data[t * args.in.x.stride + n];
        carry = charge - leaked;
        if (sums.threshold != nullptr)
          sums.threshold[args.in.threshold.shared ? 0 : channel] -=
              through_spike + (problem.hard_reset ? T(0) : s[t] * potential);
        if (sums.tau != nullptr && problem.charge != kIntegrate) {
          T pull = before[t] - neuron.reset;
          if (problem.charge == kDecayInput) pull -= neuron.input(args.in, t, n);
          sums.tau[args.in.tau.shared ? 0 : channel] += leaked * pull / neuron.tau;
        }
        if (sums.weight != nullptr) sums.weight[channel] += input * x;
        if (sums.bias != nullptr) sums.bias[channel] += input;
        if (args.grad_residual != nullptr) args.grad_residual[at] = input;
        if (args.grad_x != nullptr) args.grad_x[at] = input * neuron.weight;
      }
      if (args.grad_v0 != nullptr) args.grad_v0[n] = carry;
    }
  });
}

}  // namespace saccade::spiking::SACCADE_ISA_NAMESPACE
