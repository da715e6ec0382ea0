// Torch's side of the CPU kernels: checks, allocation, and tiles in parallel. Every sum is cut by
// sizes alone, so its order is the same for any number of threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "statevector/bind.h"
#include "statevector/kernel.h"

namespace saccade::statevector {
namespace {

// Cosets and tiles are summed in so many parts at most.
constexpr int64_t kChunks = 16;
constexpr int64_t kSlots = 64;
// Numbers of work below which a second thread costs more than it saves.
constexpr int64_t kSmall = 1 << 16;

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

template <typename F>
void run_tasks(int64_t count, bool parallel, const F& make_task) {
  if (parallel) return parallel_tasks(count, make_task);
  auto task = make_task();
  for (int64_t i = 0; i < count; ++i) task(i);
}

template <typename T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}
template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

int log2(int64_t x) { return 63 - __builtin_clzll(static_cast<uint64_t>(x)); }

template <typename T>
struct Job {
  Program program;
  Circuit<T> circuit{};
  std::vector<Group> groups;
  std::vector<double> shared;
  int64_t lanes, tiles, tile_size, chain_size;
  bool small, over_cosets;

  Job(const Sizes& sizes, const Tensor& params, const Tensor& inputs, const Tensor& plan,
      const Tensor& constants, const OptionalTensor& state)
      : program(make_program(sizes, plan, constants, state)) {
    const int64_t width = kernels<T>().width;
    // samples in the lanes where states are small and there are enough of them, or amplitudes few
    const bool samples =
        sizes.bits <= kLaneBits && (2 * sizes.batch >= width || sizes.bits < log2(width) + 2);
    circuit.bits = program.bits;
    circuit.lane_bits = samples ? 0 : log2(width);
    groups = program.group(circuit.lane_bits);
    circuit.factors = program.factors.data();
    circuit.chains = program.chains.data();
    circuit.n_chains = static_cast<int64_t>(program.chains.size());
    circuit.product = program.product.data();
    circuit.n_product = static_cast<int64_t>(program.product.size());
    circuit.passes = program.passes.data();
    circuit.entries = program.entries.data();
    circuit.dense = program.dense;
    circuit.params = data<T>(params);
    circuit.inputs = data<T>(inputs);
    circuit.n_inputs = sizes.inputs;
    circuit.batch = sizes.batch;
    circuit.images = program.images.data();
    circuit.origin = program.origin;
    shared.resize(8 * circuit.n_chains);
    for (int64_t c = 0; c < circuit.n_chains; ++c) {
      if (!program.chains[c].own) kernels<T>().shared_matrix(circuit, c, shared.data() + 8 * c);
    }
    circuit.shared = shared.data();
    lanes = samples ? width : 1;
    tiles = (sizes.batch + lanes - 1) / lanes;
    tile_size = (int64_t{2} << sizes.bits) * lanes;
    chain_size = 8 * lanes * circuit.n_chains;
    small = tiles * tile_size * (static_cast<int64_t>(program.passes.size()) + 4) < kSmall;
    over_cosets = !small && tiles < torch::stable::get_num_threads();
  }

  int64_t cosets(const Group& group) const {
    return int64_t{1} << (circuit.bits - circuit.lane_bits - group.bits);
  }
  int64_t chunks() const {
    int64_t most = 1;
    for (const Group& g : groups) most = std::max(most, std::min(cosets(g), kChunks));
    return most;
  }
  int64_t scratch() const { return kernels<T>().scratch(circuit); }

  // run(begin, end, chunk, scratch) for the cosets of a group, cut into chunks.
  template <typename F>
  void for_chunks(const Group& group, T* scratch_of_tile, const F& run) const {
    const int64_t all = cosets(group), parts = std::min(all, kChunks), each = all / parts;
    if (!over_cosets) {
      for (int64_t k = 0; k < parts; ++k) run(k * each, (k + 1) * each, k, scratch_of_tile);
      return;
    }
    parallel_tasks(parts, [&] {
      return [&, own = AlignedScratch<T>(scratch())](int64_t k) mutable {
        run(k * each, (k + 1) * each, k, own.data());
      };
    });
  }

  void forward(int64_t tile, const T* state, T* u, T* psi, T* space) const {
    kernels<T>().matrices(circuit, tile, u);
    kernels<T>().start(circuit, tile, u, state, psi);
    for (const Group& group : groups) {
      for_chunks(group, space, [&](int64_t begin, int64_t end, int64_t, T* own) {
        kernels<T>().forward(circuit, group, begin, end, u, psi, own);
      });
    }
  }
};

// What a thread needs for a tile.
template <typename T>
struct Work {
  AlignedScratch<T> u, psi, gradient, real, values, space, K;
  Work(const Job<T>& job, bool psi_too, bool backward, int64_t observables)
      : u(job.chain_size),
        psi(psi_too ? job.tile_size : 0),
        gradient(backward ? job.tile_size : 0),
        real(observables ? job.tile_size / 2 : 0),
        values(observables * job.lanes),
        space(job.scratch()),
        K(backward ? job.chunks() * job.chain_size : 0) {}
};

template <typename T>
void run_state(const Job<T>& job, const T* state, T* out) {
  run_tasks(job.tiles, !job.small && !job.over_cosets, [&] {
    return [&, work = Work<T>(job, true, false, 0)](int64_t tile) mutable {
      job.forward(tile, state, work.u.data(), work.psi.data(), work.space.data());
      kernels<T>().store(job.circuit, tile, work.psi.data(), out);
    };
  });
}

template <typename T>
void run_expval(const Job<T>& job, const T* state, int64_t observables, T* values, T* kept) {
  const Circuit<T>& circuit = job.circuit;
  run_tasks(job.tiles, !job.small && !job.over_cosets, [&] {
    return [&, work = Work<T>(job, kept == nullptr, false, observables)](int64_t tile) mutable {
      T* const psi = kept ? kept + tile * job.tile_size : work.psi.data();
      job.forward(tile, state, work.u.data(), psi, work.space.data());
      T* const sums = work.values.data();
      std::fill_n(sums, observables * job.lanes, T(0));
      kernels<T>().observe(circuit, job.program.terms.data(),
                           static_cast<int64_t>(job.program.terms.size()), psi, work.real.data(),
                           sums);
      const int64_t first = tile * job.lanes;
      for (int64_t l = 0; l < std::min(job.lanes, circuit.batch - first); ++l) {
        for (int64_t k = 0; k < observables; ++k) {
          values[(first + l) * observables + k] = sums[k * job.lanes + l];
        }
      }
    };
  });
}

// begin(tile, work) fills psi and the gradient of a tile; sums go to grad_params [P] and to
// grad_inputs [B, Pb], which hold zeros, and what is left of the gradient to grad_state.
template <typename T, typename F>
void run_backward(const Job<T>& job, const Sizes& sizes, const F& begin, T* grad_params,
                  T* grad_inputs, T* grad_state) {
  const Circuit<T>& circuit = job.circuit;
  const int64_t slots = std::min(job.tiles, kSlots), chunks = job.chunks();
  const int64_t row = 8 * circuit.n_chains + sizes.params;
  // a slot: the sums of K over its tiles' samples, then what chains of single samples add to params
  std::vector<double> sums(slots * row);
  run_tasks(slots, !job.small && !job.over_cosets, [&] {
    return [&, work = Work<T>(job, true, true, sizes.observables)](int64_t slot) mutable {
      double* const total = sums.data() + slot * row;
      const int64_t end = job.tiles * (slot + 1) / slots;
      for (int64_t tile = job.tiles * slot / slots; tile < end; ++tile) {
        T *const u = work.u.data(), *const K = work.K.data();
        T *const psi = work.psi.data(), *const gradient = work.gradient.data();
        kernels<T>().matrices(circuit, tile, u);
        begin(tile, work);
        std::fill_n(K, chunks * job.chain_size, T(0));
        for (auto group = job.groups.rbegin(); group != job.groups.rend(); ++group) {
          job.for_chunks(*group, work.space.data(),
                         [&](int64_t first, int64_t last, int64_t chunk, T* own) {
                           kernels<T>().backward(circuit, *group, first, last, u, psi, gradient,
                                                 own, K + chunk * job.chain_size);
                         });
        }
        if (grad_state) {
          // the order that wires have before the first gate
          Circuit<T> before = circuit;
          std::vector<int32_t> images(circuit.bits);
          for (int b = 0; b < circuit.bits; ++b) images[b] = 1 << b;
          before.images = images.data();
          before.origin = 0;
          kernels<T>().store(before, tile, gradient, grad_state);
        }
        kernels<T>().product_backward(circuit, u, psi, gradient, K);
        for (int64_t chunk = 1; chunk < chunks; ++chunk) {
          for (int64_t i = 0; i < job.chain_size; ++i) K[i] += K[chunk * job.chain_size + i];
        }
        for (int64_t i = 0; i < 8 * circuit.n_chains; ++i) {
          for (int64_t l = 0; l < job.lanes; ++l) total[i] += K[i * job.lanes + l];
        }
        kernels<T>().chain_gradients(circuit, tile, u, K, total + 8 * circuit.n_chains,
                                     grad_inputs);
      }
    };
  });
  std::vector<double> params(sizes.params), K(8 * circuit.n_chains);
  for (int64_t slot = 0; slot < slots; ++slot) {
    const double* const total = sums.data() + slot * row;
    for (size_t i = 0; i < K.size(); ++i) K[i] += total[i];
    for (int64_t i = 0; i < sizes.params; ++i) params[i] += total[K.size() + i];
  }
  for (int64_t c = 0; c < circuit.n_chains; ++c) {
    const Chain& chain = job.program.chains[c];
    if (chain.wanted && !chain.own) {
      kernels<T>().shared_gradient(circuit, c, K.data() + 8 * c, params.data());
    }
  }
  for (int64_t i = 0; i < sizes.params; ++i) grad_params[i] = static_cast<T>(params[i]);
}

template <typename F>
void for_compute_type(ScalarType type, const F& f) {
  if (type == ScalarType::Double) {
    f(double{});
  } else {
    f(float{});
  }
}

Tensor empty(const Tensor& like, const std::vector<int64_t>& sizes) {
  return torch::stable::new_empty(like, sizes);
}

OptionalTensor contiguous(const OptionalTensor& tensor) {
  if (!tensor.has_value()) return std::nullopt;
  return torch::stable::contiguous(*tensor);
}

Tensor forward(const Tensor& params_, const Tensor& inputs_, const OptionalTensor& state_,
               const Tensor& plan, const Tensor& constants, int64_t bits) {
  const Sizes sizes = check_circuit(params_, inputs_, state_, plan, constants, bits, 0);
  const Tensor params = torch::stable::contiguous(params_);
  const Tensor inputs = torch::stable::contiguous(inputs_);
  const OptionalTensor state = contiguous(state_);
  Tensor out = empty(params, {sizes.batch, int64_t{1} << bits, 2});
  for_compute_type(params.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const Job<T> job(sizes, params, inputs, plan, constants, state);
    run_state<T>(job, data_or_null<T>(state), data<T>(out));
  });
  return out;
}

std::tuple<Tensor, Tensor> expval_forward(const Tensor& params_, const Tensor& inputs_,
                                          const OptionalTensor& state_, const Tensor& plan,
                                          const Tensor& constants, int64_t bits,
                                          int64_t observables, bool keep) {
  const Sizes sizes = check_circuit(params_, inputs_, state_, plan, constants, bits, observables);
  const Tensor params = torch::stable::contiguous(params_);
  const Tensor inputs = torch::stable::contiguous(inputs_);
  const OptionalTensor state = contiguous(state_);
  Tensor values = empty(params, {sizes.batch, observables});
  Tensor kept = keep ? empty(params, {kept_rows(sizes.batch, bits), int64_t{1} << bits, 2})
                     : empty(params, {0});
  for_compute_type(params.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const Job<T> job(sizes, params, inputs, plan, constants, state);
    run_expval<T>(job, data_or_null<T>(state), observables, data<T>(values),
                  keep ? data<T>(kept) : nullptr);
    // rows that no tile fills: the same inputs give the same bits
    const int64_t written = job.tiles * job.tile_size;
    if (keep) std::fill_n(data<T>(kept) + written, kept.numel() - written, T(0));
  });
  return {values, kept};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out_, const Tensor& params_,
                                            const Tensor& inputs_, const OptionalTensor& state,
                                            const Tensor& out_, const Tensor& plan,
                                            const Tensor& constants, int64_t bits) {
  const Sizes sizes = check_circuit(params_, inputs_, state, plan, constants, bits, 0);
  const std::vector<int64_t> rows{sizes.batch, int64_t{1} << bits, 2};
  check_shape("grad_out", grad_out_, rows, params_);
  check_shape("out", out_, rows, params_);
  const Tensor params = torch::stable::contiguous(params_);
  const Tensor inputs = torch::stable::contiguous(inputs_);
  const Tensor grad_out = torch::stable::contiguous(grad_out_);
  const Tensor out = torch::stable::contiguous(out_);
  Gradients grads(params, sizes, state.has_value());
  for_compute_type(params.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const Job<T> job(sizes, params, inputs, plan, constants, state);
    std::fill_n(data<T>(grads.inputs), grads.inputs.numel(), T(0));
    run_backward<T>(
        job, sizes,
        [&](int64_t tile, Work<T>& work) {
          kernels<T>().load(job.circuit, tile, data<T>(out), work.psi.data());
          kernels<T>().load(job.circuit, tile, data<T>(grad_out), work.gradient.data());
        },
        data<T>(grads.params), data<T>(grads.inputs),
        state.has_value() ? data<T>(grads.state) : nullptr);
  });
  return {grads.params, grads.inputs, grads.state};
}

std::tuple<Tensor, Tensor, Tensor> expval_backward(const Tensor& grad_values_,
                                                   const Tensor& params_, const Tensor& inputs_,
                                                   const OptionalTensor& state, const Tensor& kept_,
                                                   const Tensor& plan, const Tensor& constants,
                                                   int64_t bits) {
  STD_TORCH_CHECK(grad_values_.dim() == 2, "grad_values must have shape [B, K], got ",
                  shape(grad_values_), ".");
  const int64_t observables = grad_values_.size(1);
  const Sizes sizes = check_circuit(params_, inputs_, state, plan, constants, bits, observables);
  check_shape("grad_values", grad_values_, {sizes.batch, observables}, params_);
  check_shape("kept", kept_, {kept_rows(sizes.batch, bits), int64_t{1} << bits, 2}, params_);
  const Tensor params = torch::stable::contiguous(params_);
  const Tensor inputs = torch::stable::contiguous(inputs_);
  const Tensor grad_values = torch::stable::contiguous(grad_values_);
  const Tensor kept = torch::stable::contiguous(kept_);
  Gradients grads(params, sizes, state.has_value());
  for_compute_type(params.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const Job<T> job(sizes, params, inputs, plan, constants, state);
    std::fill_n(data<T>(grads.inputs), grads.inputs.numel(), T(0));
    const T* const g = data<T>(grad_values);
    run_backward<T>(
        job, sizes,
        [&](int64_t tile, Work<T>& work) {
          std::memcpy(work.psi.data(), data<T>(kept) + tile * job.tile_size,
                      job.tile_size * sizeof(T));
          T* const weights = work.values.data();
          const int64_t first = tile * job.lanes;
          for (int64_t k = 0; k < observables; ++k) {
            for (int64_t l = 0; l < job.lanes; ++l) {
              weights[k * job.lanes + l] =
                  first + l < sizes.batch ? g[(first + l) * observables + k] : T(0);
            }
          }
          kernels<T>().observe_backward(
              job.circuit, job.program.terms.data(), static_cast<int64_t>(job.program.terms.size()),
              work.psi.data(), weights, work.real.data(), work.gradient.data());
        },
        data<T>(grads.params), data<T>(grads.inputs),
        state.has_value() ? data<T>(grads.state) : nullptr);
  });
  return {grads.params, grads.inputs, grads.state};
}

}  // namespace
}  // namespace saccade::statevector

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("statevector_backward", TORCH_BOX(&saccade::statevector::backward));
  m.impl("statevector_expval_backward", TORCH_BOX(&saccade::statevector::expval_backward));
  m.impl("statevector_expval_forward", TORCH_BOX(&saccade::statevector::expval_forward));
  m.impl("statevector_forward", TORCH_BOX(&saccade::statevector::forward));
}
