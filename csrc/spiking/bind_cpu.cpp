// Torch's side of the CPU kernels: half types are computed in float32 and rounded once.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "spiking/bind.h"

namespace saccade::spiking {

namespace {

// Bytes of a row of a tile: long enough for the prefetcher, short enough that the potentials stay
// in the first-level cache.
constexpr int64_t kRowBytes = 8192;
// Bytes of the charges that the backward pass recomputes: half of a second-level cache, at most.
constexpr int64_t kChargeBytes = 65536;
// Tasks that the tiles are dealt to; a power of two above any core count that shares one memory.
constexpr int64_t kMaxTasks = 256;
// The most numbers that all tasks together may spend on sums of their own.
constexpr int64_t kMaxSums = int64_t{1} << 22;
// Results of that many bytes push what the next operators read out of a shared third-level cache,
// or are gone from it before anyone reads them: a chain of operators is faster around streamed
// ones.
constexpr int64_t kStreamBytes = int64_t{1} << 23;

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

// The neurons cut into tiles. Each tile of bits lies in whole bytes.
class Tiling {
 public:
  Tiling(int64_t neurons, int64_t size, int64_t row) : neurons_(neurons) {
    if (row % 8 == 0 || row == 0) row = neurons;
    if (row <= size) {  // whole rows
      size_ = std::max<int64_t>(size / std::max<int64_t>(row, 1), 1) * row;
      row_ = neurons;
    } else {
      size_ = size;
      row_ = row;
    }
    per_row_ = size_ == 0 ? 0 : (row_ + size_ - 1) / size_;
    count_ = row_ == 0 ? 0 : neurons_ / row_ * per_row_;
  }

  int64_t count() const { return count_; }
  int64_t largest() const { return std::min(size_, row_); }
  Tile operator[](int64_t i) const {
    const int64_t in_row = i % per_row_ * size_;
    return {i / per_row_ * row_ + in_row, std::min(size_, row_ - in_row)};
  }

 private:
  int64_t neurons_, size_, row_, per_row_, count_;
};

// Runs body(task, tile, scratch) for every tile, on all threads; a task's tiles in order.
template <typename T, typename F>
void for_each_tile(const Tiling& tiling, int64_t tasks, int64_t scratch_size, const F& body) {
  parallel_tasks(tasks, [&] {
    return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t task) mutable {
      const int64_t end = (task + 1) * tiling.count() / tasks;
      for (int64_t i = task * tiling.count() / tasks; i < end; ++i)
        body(task, tiling[i], scratch.data());
    };
  });
}

template <typename T>
int64_t tile_size(const Problem& problem, bool backward) {
  int64_t bytes = kRowBytes;
  if (backward && problem.steps > 0)
    bytes = std::clamp<int64_t>(kChargeBytes / problem.steps, 256, bytes / 2);
  return bytes / static_cast<int64_t>(sizeof(T));
}

template <typename T>
Steps<const T> steps_of(const OptionalTensor& tensor) {
  if (!tensor.has_value()) return {nullptr, 0};
  return {static_cast<const T*>(tensor->const_data_ptr()), tensor->stride(0)};
}

// The inputs in the type of computation, kept alive beside the pointers to them.
struct Prepared {
  Tensor x;
  OptionalTensor v0, tau, threshold, weight, bias, residual;

  Prepared(ScalarType type, const Tensor& x_given, const OptionalTensor& v0_given,
           const OptionalTensor& tau_given, const OptionalTensor& threshold_given,
           const OptionalTensor& weight_given, const OptionalTensor& bias_given,
           const OptionalTensor& residual_given)
      : x(with_contiguous_neurons(to_type(x_given, type))),
        v0(to_contiguous(v0_given, type)),
        tau(to_contiguous(tau_given, type)),
        threshold(to_contiguous(threshold_given, type)),
        weight(to_contiguous(weight_given, type)),
        bias(to_contiguous(bias_given, type)) {
    if (residual_given.has_value())
      residual = with_contiguous_neurons(to_type(*residual_given, type));
  }

  template <typename T>
  Inputs<T> inputs() const {
    return {steps_of<T>(x),
            data_or_null<T>(v0),
            {data_or_null<T>(tau), tau.has_value() && tau->size(0) == 1},
            {data_or_null<T>(threshold), threshold.has_value() && threshold->size(0) == 1},
            data_or_null<T>(weight),
            data_or_null<T>(bias),
            steps_of<T>(residual)};
  }
};

// Whole vectors of a row are aligned, and there are too many bytes for the caches.
template <typename T>
bool streams(const Problem& problem, const Tensor& result) {
  return problem.steps * problem.neurons() * static_cast<int64_t>(sizeof(T)) >= kStreamBytes &&
         problem.neurons() * sizeof(T) % 64 == 0 &&
         reinterpret_cast<uintptr_t>(result.const_data_ptr()) % 64 == 0;
}

std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& x, const OptionalTensor& v0, const OptionalTensor& tau,
    const OptionalTensor& v_threshold, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& residual, double tau_value, double v_threshold_value, double v_reset,
    double alpha, int64_t charge, bool hard_reset, bool detach_reset, int64_t surrogate,
    bool smooth, bool store_v, int64_t spike_code, int64_t row) {
  const Problem problem = check_problem(x, v0, tau, v_threshold, weight, bias, residual,
                                        {tau_value, v_threshold_value, v_reset, alpha, charge,
                                         hard_reset, detach_reset, surrogate, smooth});
  check_row(problem, spike_code, row);
  const ScalarType type = compute_type("x", x);
  const Prepared prepared(type, x, v0, tau, v_threshold, weight, bias, residual);
  Tensor spikes = [&] {
    if (spike_code == kFloatSpikes) return torch::stable::new_empty(x, x.sizes(), type);
    if (spike_code == kByteSpikes) return torch::stable::new_empty(x, x.sizes(), ScalarType::Byte);
    return torch::stable::new_empty(
        x, std::vector<int64_t>{problem.steps, problem.neurons() / row, (row + 7) / 8},
        ScalarType::Byte);
  }();
  Tensor v_last = torch::stable::new_empty(x, x.sizes().slice(1), type);
  Tensor v_seq = store_v ? torch::stable::new_empty(x, x.sizes(), type)
                         : torch::stable::new_empty(x, std::vector<int64_t>{0}, type);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const Tiling tiling(problem.neurons(), tile_size<T>(problem, false),
                        spike_code == kBitSpikes ? row : 0);
    const ForwardArgs<T> args{problem, prepared.inputs<T>(), static_cast<SpikeCode>(spike_code),
                              spike_code == kFloatSpikes && streams<T>(problem, spikes),
                              // rows of whole bytes are one row
                              std::max<int64_t>(row % 8 == 0 ? problem.neurons() : row, 1),
                              spikes.mutable_data_ptr(), static_cast<T*>(v_last.mutable_data_ptr()),
                              store_v ? static_cast<T*>(v_seq.mutable_data_ptr()) : nullptr};
    for_each_tile<T>(
        tiling, std::min(kMaxTasks, tiling.count()),
        kernels<T>().scratch(problem, tiling.largest(), false),
        [&](int64_t, const Tile& tile, T* scratch) { kernels<T>().forward(args, tile, scratch); });
  };
  if (type == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return {spike_code == kFloatSpikes ? to_type(spikes, x.scalar_type()) : spikes, v_last, v_seq};
}

// The sums of all tasks: [task][wanted input][channel], added in the order of the tasks.
class TaskSums {
 public:
  TaskSums(const bool* want, const OptionalTensor* inputs, int64_t tiles) {
    for (int i = kTau; i <= kBias; ++i) {
      place_[i] = want[i] ? size_ : -1;
      if (want[i]) size_ += inputs[i]->size(0);
    }
    tasks_ = std::min(kMaxTasks, tiles);
    if (size_ > 0) tasks_ = std::min(tasks_, std::max<int64_t>(kMaxSums / size_, 1));
    values_.resize(static_cast<size_t>(tasks_ * size_));
  }

  int64_t tasks() const { return tasks_; }
  Sums of(int64_t task) {
    double* sums = values_.data() + task * size_;
    const auto at = [&](int i) { return place_[i] < 0 ? nullptr : sums + place_[i]; };
    return {at(kTau), at(kThreshold), at(kWeight), at(kBias)};
  }

  template <typename T>
  void add_up(int input, Tensor& result) const {
    T* out = static_cast<T*>(result.mutable_data_ptr());
    for (int64_t i = 0; i < result.numel(); ++i) {
      double total = 0;
      for (int64_t task = 0; task < tasks_; ++task)
        total += values_[static_cast<size_t>(task * size_ + place_[input] + i)];
      out[i] = static_cast<T>(total);
    }
  }

 private:
  int64_t place_[kInputs], size_ = 0, tasks_;
  std::vector<double> values_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const OptionalTensor& grad_spikes, const OptionalTensor& grad_v_last,
    const OptionalTensor& grad_v_seq, const Tensor& x, const OptionalTensor& v0,
    const OptionalTensor& tau, const OptionalTensor& v_threshold, const OptionalTensor& weight,
    const OptionalTensor& bias, const OptionalTensor& residual, double tau_value,
    double v_threshold_value, double v_reset, double alpha, int64_t charge, bool hard_reset,
    bool detach_reset, int64_t surrogate, bool smooth, int64_t wanted) {
  const Problem problem = check_problem(x, v0, tau, v_threshold, weight, bias, residual,
                                        {tau_value, v_threshold_value, v_reset, alpha, charge,
                                         hard_reset, detach_reset, surrogate, smooth});
  check_gradient("grad_spikes", grad_spikes, x, true);
  check_gradient("grad_v_last", grad_v_last, x, false);
  check_gradient("grad_v_seq", grad_v_seq, x, true);
  const ScalarType type = compute_type("x", x);
  const Prepared prepared(type, x, v0, tau, v_threshold, weight, bias, residual);
  const auto neurons_of = [&](const OptionalTensor& gradient) -> OptionalTensor {
    if (!gradient.has_value()) return std::nullopt;
    return with_contiguous_neurons(to_type(*gradient, type));
  };
  const OptionalTensor gs = neurons_of(grad_spikes);
  const OptionalTensor gv = to_contiguous(grad_v_last, type);
  const OptionalTensor gv_seq = neurons_of(grad_v_seq);

  const OptionalTensor inputs[kInputs] = {x, v0, tau, v_threshold, weight, bias, residual};
  bool want[kInputs];
  std::vector<Tensor> grads;
  for (int i = 0; i < kInputs; ++i) {
    want[i] = (wanted >> i & 1) != 0 && (i == kV0 || inputs[i].has_value());
    if (!want[i]) {
      grads.push_back(torch::stable::new_empty(x, std::vector<int64_t>{0}, type));
    } else if (i == kV0) {
      grads.push_back(torch::stable::new_empty(x, x.sizes().slice(1), type));
    } else {
      grads.push_back(torch::stable::new_empty(x, inputs[i]->sizes(), type));
    }
  }

  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const auto data = [&](int i) {
      return want[i] ? static_cast<T*>(grads[i].mutable_data_ptr()) : nullptr;
    };
    const Tiling tiling(problem.neurons(), tile_size<T>(problem, true), 0);
    BackwardArgs<T> args{problem,
                         prepared.inputs<T>(),
                         steps_of<T>(gs),
                         steps_of<T>(gv_seq),
                         data_or_null<T>(gv),
                         want[kX] && streams<T>(problem, grads[kX]),
                         data(kX),
                         data(kResidual),
                         data(kV0),
                         {}};
    std::copy(want, want + kInputs, args.want);
    TaskSums sums(want, inputs, tiling.count());
    for_each_tile<T>(tiling, sums.tasks(), kernels<T>().scratch(problem, tiling.largest(), true),
                     [&](int64_t task, const Tile& tile, T* scratch) {
                       kernels<T>().backward(args, tile, sums.of(task), scratch);
                     });
    for (int i = kTau; i <= kBias; ++i) {
      if (want[i]) sums.add_up<T>(i, grads[i]);
    }
  };
  if (type == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return {to_type(grads[kX], x.scalar_type()),
          grads[kV0],
          grads[kTau],
          grads[kThreshold],
          grads[kWeight],
          grads[kBias],
          to_type(grads[kResidual], x.scalar_type())};
}

template <typename T>
const LinearKernels<T>& linear_kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kLinearFloat), SACCADE_FOR_ISA(kLinearDouble));
}

// Rows of spikes that meet one panel of the weight before the next thread may take over.
constexpr int64_t kLinearRows = 256;

Tensor spike_linear(const Tensor& spikes, const Tensor& weight, const OptionalTensor& bias) {
  STD_TORCH_CHECK(weight.dim() == 2, "weight must be [O, I], got ", shape(weight), ".");
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  STD_TORCH_CHECK(spikes.scalar_type() == ScalarType::Byte && spikes.dim() == 2 &&
                      spikes.size(1) == (inputs + 7) / 8,
                  "spikes must be uint8 [M, ", (inputs + 7) / 8, "], got ", shape(spikes), ".");
  STD_TORCH_CHECK(!bias.has_value() || (bias->dim() == 1 && bias->size(0) == outputs &&
                                        bias->scalar_type() == weight.scalar_type()),
                  "bias must be [", outputs, "] in weight's type.");
  const ScalarType type = compute_type("weight", weight);
  const Tensor s = torch::stable::contiguous(spikes);
  const Tensor w = to_contiguous(weight, type);
  const OptionalTensor b = to_contiguous(bias, type);
  const int64_t rows = spikes.size(0);
  Tensor out = torch::stable::new_empty(weight, std::vector<int64_t>{rows, outputs}, type);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const LinearArgs<T> args{rows,
                             inputs,
                             outputs,
                             static_cast<const uint8_t*>(s.const_data_ptr()),
                             static_cast<const T*>(w.const_data_ptr()),
                             data_or_null<T>(b),
                             static_cast<T*>(out.mutable_data_ptr())};
    const int64_t columns = linear_kernels<T>().columns;
    const int64_t panels = (outputs + columns - 1) / columns;
    const int64_t size = std::max<int64_t>(inputs, 1) * columns;
    AlignedScratch<T> packed(panels * size);
    parallel_tasks(panels, [&] {
      return
          [&](int64_t i) { linear_kernels<T>().pack(args, i * columns, packed.data() + i * size); };
    });
    const int64_t blocks = (rows + kLinearRows - 1) / kLinearRows;
    parallel_tasks(panels * blocks, [&] {
      return [&](int64_t i) {
        const int64_t panel = i / blocks, first = i % blocks * kLinearRows;
        linear_kernels<T>().multiply(args, panel * columns, packed.data() + panel * size, first,
                                     std::min(kLinearRows, rows - first));
      };
    });
  };
  if (type == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return to_type(out, weight.scalar_type());
}

}  // namespace

}  // namespace saccade::spiking

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("lif_forward", TORCH_BOX(&saccade::spiking::forward));
  m.impl("lif_backward", TORCH_BOX(&saccade::spiking::backward));
  m.impl("spike_linear", TORCH_BOX(&saccade::spiking::spike_linear));
}
