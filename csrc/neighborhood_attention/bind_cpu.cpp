// Torch's side of the CPU kernels: half types are computed in float32 and rounded once.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "common/bind.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "neighborhood_attention/bind.h"
#include "neighborhood_attention/plan.h"

namespace saccade::neighborhood_attention {

namespace {

using Ints = std::vector<int64_t>;

// The most tasks a phase of backward is cut into; a power of two above any core count that shares
// one memory.
constexpr int64_t kMaxTasks = 256;
// The most elements that all tasks together may spend on bias gradients of their own.
constexpr int64_t kMaxBiasPartials = int64_t{1} << 22;

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

template <typename T>
int64_t max_scratch(const Problem& problem, const Plan& plan, bool backward) {
  int64_t most = 1;
  for (const std::vector<Tile>& phase : plan.phase) {
    for (const Tile& tile : phase)
      most = std::max(most, kernels<T>().scratch(problem, tile, backward));
  }
  return most;
}

Tensor prepare(const Tensor& tensor, ScalarType type) {
  return with_contiguous_dim(to_type(tensor, type));
}

// The inputs in the type of computation, kept alive beside the views of them.
struct Prepared {
  Tensor query, key, value;
  OptionalTensor bias, additional_keys, additional_values;

  Prepared(ScalarType type, const Tensor& q, const Tensor& k, const Tensor& v,
           const OptionalTensor& b, const OptionalTensor& ak, const OptionalTensor& av)
      : query(prepare(q, type)),
        key(prepare(k, type)),
        value(prepare(v, type)),
        bias(to_contiguous(b, type)),
        additional_keys(to_contiguous(ak, type)),
        additional_values(to_contiguous(av, type)) {}

  template <typename T>
  Inputs<T> inputs() const {
    Inputs<T> in{};
    in.query = view<const T>(query);
    in.key = view<const T>(key);
    in.value = view<const T>(value);
    if (bias.has_value()) in.bias = static_cast<const T*>(bias->const_data_ptr());
    if (additional_keys.has_value()) {
      in.extra_key = view<const T>(*additional_keys);
      in.extra_value = view<const T>(*additional_values);
    }
    return in;
  }
};

template <typename T>
void run_forward(const Problem& problem, const Prepared& prepared, Tensor& out, Tensor& lse) {
  const Plan plan(problem, 2, sizeof(T));
  const ForwardArgs<T> args{problem, prepared.inputs<T>(), static_cast<T*>(out.mutable_data_ptr()),
                            static_cast<T*>(lse.mutable_data_ptr())};
  const int64_t scratch_size = max_scratch<T>(problem, plan, false);
  std::vector<const Tile*> tiles;
  for (const std::vector<Tile>& phase : plan.phase) {
    for (const Tile& tile : phase) tiles.push_back(&tile);
  }
  const int64_t count = static_cast<int64_t>(tiles.size());
  parallel_tasks(problem.batch * problem.kv_heads * count, [&] {
    return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
      const int64_t box = i / count;
      kernels<T>().forward(args, *tiles[i % count], box / problem.kv_heads, box % problem.kv_heads,
                           scratch.data());
    };
  });
}

// Work is cut into tasks from sizes alone. A task stays with one key head, and with whole batch
// entries where additional keys are shared by all tiles of an entry; it sums bias gradients of its
// own, which are added in order at the end.
template <typename T>
void run_backward(const BackwardArgs<T>& args, T* grad_bias) {
  const Problem& problem = args.problem;
  const Plan plan(problem, 5, sizeof(T));
  const int64_t scratch_size = max_scratch<T>(problem, plan, true);
  int64_t table = 0;
  int64_t tasks = std::max<int64_t>(kMaxTasks / problem.kv_heads, 1);
  if (grad_bias != nullptr) {
    table = problem.heads;
    for (const Axis& axis : problem.axis) table *= 2 * axis.kernel - 1;
    tasks = std::clamp<int64_t>(kMaxBiasPartials / table, 1, tasks);
  }
  std::vector<T> partials(table * tasks);
  for (const std::vector<Tile>& tiles : plan.phase) {
    const int64_t count = static_cast<int64_t>(tiles.size());
    const int64_t unit = problem.extra > 0 ? count : 1;  // tiles that one task must not share
    const int64_t units = unit == 0 ? 0 : problem.batch * count / unit;
    parallel_tasks(problem.kv_heads * tasks, [&] {
      return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
        // Heads innermost: they stand side by side in memory.
        const int64_t kv_head = i % problem.kv_heads;
        const int64_t task = i / problem.kv_heads;
        const int64_t end = (task + 1) * units / tasks * unit;
        for (int64_t j = task * units / tasks * unit; j < end; ++j) {
          kernels<T>().backward(args, tiles[j % count], j / count, kv_head,
                                partials.data() + task * table, scratch.data());
        }
      };
    });
  }
  for (int64_t task = 0; task < tasks; ++task) {
    for (int64_t i = 0; i < table; ++i) grad_bias[i] += partials[task * table + i];
  }
}

std::tuple<Tensor, Tensor> forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                   const OptionalTensor& bias,
                                   const OptionalTensor& additional_keys,
                                   const OptionalTensor& additional_values, const Ints& kernel_size,
                                   const Ints& stride, const Ints& dilation, const Ints& is_causal,
                                   double scale) {
  const Problem problem = check_problem(query, key, value, bias, additional_keys, additional_values,
                                        kernel_size, stride, dilation, is_causal, scale);
  const ScalarType type = compute_type("query", query);
  const Prepared prepared(type, query, key, value, bias, additional_keys, additional_values);
  Tensor out = torch::stable::new_empty(query, query.sizes(), type);
  Tensor lse = torch::stable::new_empty(query, query.sizes().slice(0, query.dim() - 1), type);
  if (type == ScalarType::Double) {
    run_forward<double>(problem, prepared, out, lse);
  } else {
    run_forward<float>(problem, prepared, out, lse);
  }
  return {to_type(out, query.scalar_type()), lse};
}

template <typename T>
T* data_or_null(Tensor& tensor, bool present) {
  return present ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad_out, const Tensor& grad_lse, const Tensor& query, const Tensor& key,
    const Tensor& value, const Tensor& out, const Tensor& lse, const OptionalTensor& bias,
    const OptionalTensor& additional_keys, const OptionalTensor& additional_values,
    const Ints& kernel_size, const Ints& stride, const Ints& dilation, const Ints& is_causal,
    double scale) {
  const Problem problem = check_problem(query, key, value, bias, additional_keys, additional_values,
                                        kernel_size, stride, dilation, is_causal, scale);
  const ScalarType type = compute_type("query", query);
  const Prepared prepared(type, query, key, value, bias, additional_keys, additional_values);
  const Tensor go = prepare(grad_out, type);
  const Tensor o = prepare(out, type);
  const Tensor l = torch::stable::contiguous(prepare(lse, type));
  const Tensor gl = torch::stable::contiguous(prepare(grad_lse, type));
  const auto empty_like = [&](const Tensor& like) {
    return torch::stable::new_empty(query, like.sizes(), type);
  };
  const auto zeros_or_none = [&](const OptionalTensor& like) {
    return like.has_value() ? torch::stable::new_zeros(query, like->sizes(), type)
                            : torch::stable::new_empty(query, Ints{0}, type);
  };
  Tensor grad_query = empty_like(query);
  Tensor grad_key = empty_like(key);
  Tensor grad_value = empty_like(value);
  Tensor grad_bias = zeros_or_none(bias);
  Tensor grad_extra_key = zeros_or_none(additional_keys);
  Tensor grad_extra_value = zeros_or_none(additional_values);

  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const BackwardArgs<T> args{problem,
                               prepared.inputs<T>(),
                               view<const T>(go),
                               view<const T>(o),
                               static_cast<const T*>(l.const_data_ptr()),
                               static_cast<const T*>(gl.const_data_ptr()),
                               static_cast<T*>(grad_query.mutable_data_ptr()),
                               static_cast<T*>(grad_key.mutable_data_ptr()),
                               static_cast<T*>(grad_value.mutable_data_ptr()),
                               data_or_null<T>(grad_extra_key, problem.extra > 0),
                               data_or_null<T>(grad_extra_value, problem.extra > 0)};
    run_backward<T>(args, data_or_null<T>(grad_bias, bias.has_value()));
  };
  if (type == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  const ScalarType result = query.scalar_type();
  return {to_type(grad_query, result),     to_type(grad_key, result),
          to_type(grad_value, result),     to_type(grad_bias, result),
          to_type(grad_extra_key, result), to_type(grad_extra_value, result)};
}

}  // namespace

}  // namespace saccade::neighborhood_attention

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("na_forward", TORCH_BOX(&saccade::neighborhood_attention::forward));
  m.impl("na_backward", TORCH_BOX(&saccade::neighborhood_attention::backward));
}
