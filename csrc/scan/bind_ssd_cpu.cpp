// Torch's side of the CPU kernels of SSD.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "scan/bind_cpu.h"

namespace saccade::scan {

namespace {

// Strides of [B, L, H, P] or, for dt, [B, L, H].
template <typename T>
Tokens<const T> tokens(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()), tensor.stride(0), tensor.stride(1),
          tensor.stride(2), tensor.dim() == 4 ? tensor.stride(3) : 0};
}

// B or C with N contiguous and padded by zeros.
template <typename T>
Tensor pack(const Tensor& given, const SsdProblem& problem, ScalarType type) {
  Tensor tensor = to_type(given, type);
  const int64_t unit = kernels<T>().ssd_states, state = problem.state;
  if (state % unit == 0) {
    return tensor.stride(3) == 1 ? tensor : torch::stable::contiguous(tensor);
  }
  const int64_t padded = (state + unit - 1) / unit * unit;
  tensor = torch::stable::contiguous(tensor);
  Tensor packed =
      torch::stable::new_zeros(tensor, Ints{problem.batch, problem.length, problem.groups, padded});
  const T* from = static_cast<const T*>(tensor.const_data_ptr());
  T* to = data<T>(packed);
  const int64_t rows = problem.batch * problem.length * problem.groups;
  for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * state, state, to + i * padded);
  return packed;
}

// The inputs in the type of computation, kept alive beside the views of them.
template <typename T>
struct Prepared {
  Tensor x, dt, a, b, c;
  OptionalTensor skip, z, dt_bias, initial, sequence;

  Prepared(const SsdProblem& problem, ScalarType type, const Tensor& x_, const Tensor& dt_,
           const Tensor& a_, const Tensor& b_, const Tensor& c_, const OptionalTensor& skip_,
           const OptionalTensor& z_, const OptionalTensor& dt_bias_, const OptionalTensor& initial_,
           const OptionalTensor& seq_idx)
      : x(to_type(x_, type)),
        dt(to_type(dt_, type)),
        a(to_contiguous(a_, type)),
        b(pack<T>(b_, problem, type)),
        c(pack<T>(c_, problem, type)),
        skip(to_contiguous(skip_, type)),
        dt_bias(to_contiguous(dt_bias_, type)),
        initial(to_contiguous(initial_, type)),
        sequence(to_contiguous(seq_idx, ScalarType::Int)) {
    if (z_.has_value()) z = to_type(*z_, type);
  }

  SsdInputs<T> inputs() const {
    SsdInputs<T> in{};
    in.x = tokens<T>(x);
    in.dt = tokens<T>(dt);
    if (z.has_value()) in.z = tokens<T>(*z);
    in.a = static_cast<const T*>(a.const_data_ptr());
    in.b = tokens<T>(b);
    in.c = tokens<T>(c);
    in.skip = saccade::data_or_null<T>(skip);
    in.dt_bias = saccade::data_or_null<T>(dt_bias);
    in.initial = saccade::data_or_null<T>(initial);
    in.sequence = saccade::data_or_null<int32_t>(sequence);
    return in;
  }
};

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& x, const Tensor& dt, const Tensor& a,
                                           const Tensor& b, const Tensor& c,
                                           const OptionalTensor& skip, const OptionalTensor& z,
                                           const OptionalTensor& dt_bias,
                                           const OptionalTensor& initial_states,
                                           const OptionalTensor& seq_idx, bool dt_softplus,
                                           double dt_min, double dt_max, int64_t chunk) {
  const SsdProblem problem = check_ssd(x, dt, a, b, c, skip, z, dt_bias, initial_states, seq_idx,
                                       dt_softplus, dt_min, dt_max, chunk);
  const ScalarType type = compute_type("x", x);
  Tensor out = torch::stable::new_empty(x, x.sizes(), type);
  Tensor final_states = torch::stable::new_empty(
      x, Ints{problem.batch, problem.heads, problem.width, problem.state}, type);
  Tensor checkpoints = new_checkpoints(x,
                                       {problem.batch, intervals(problem.length, chunk),
                                        problem.heads, problem.width, problem.state},
                                       1, type);
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(problem, type, x, dt, a, b, c, skip, z, dt_bias, initial_states,
                               seq_idx);
    const SsdForward<T> args{problem, prepared.inputs(), data<T>(out), data<T>(final_states),
                             data<T>(checkpoints)};
    const int64_t scratch_size = kernels<T>().ssd_scratch(problem, false);
    parallel_tasks(problem.batch * problem.heads, [&] {
      return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
        kernels<T>().ssd_forward(args, i / problem.heads, i % problem.heads, scratch.data());
      };
    });
  });
  return {to_type(out, x.scalar_type()), final_states, checkpoints};
}

// A range of one group's heads of one batch entry has sums for B and C of its own, which are added
// in order at the end.
template <typename T>
void run_backward(const SsdBackward<T>& args, Tensor& grad_b, Tensor& grad_c) {
  const SsdProblem& problem = args.problem;
  const int64_t unit = kernels<T>().ssd_states, groups = problem.groups, length = problem.length;
  const int64_t padded = (problem.state + unit - 1) / unit * unit, size = length * 2 * padded;
  const int64_t group_heads = problem.heads / groups, entries = problem.batch * groups;
  const int64_t ranges = count_ranges(entries, group_heads, size * static_cast<int64_t>(sizeof(T)));
  AlignedScratch<T> partials(entries * ranges * size);
  const int64_t scratch_size = kernels<T>().ssd_scratch(problem, true);
  parallel_tasks(entries * ranges, [&] {
    return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
      const int64_t range = i % ranges, entry = i / ranges, group = entry % groups;
      T* partial = partials.data() + i * size;
      std::fill_n(partial, size, T(0));
      const int64_t end = (range + 1) * group_heads / ranges;
      for (int64_t head = range * group_heads / ranges; head < end; ++head) {
        kernels<T>().ssd_backward(args, entry / groups, group * group_heads + head, partial,
                                  scratch.data());
      }
    };
  });
  T* to_b = data<T>(grad_b);
  T* to_c = data<T>(grad_c);
  torch::stable::parallel_for(0, entries * length, 64, [&](int64_t begin, int64_t end) {
    std::vector<T> sum(2 * padded);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t position = i % length, entry = i / length;
      const T* from = partials.data() + entry * ranges * size + position * 2 * padded;
      std::copy_n(from, 2 * padded, sum.begin());
      for (int64_t r = 1; r < ranges; ++r) {
        for (int64_t j = 0; j < 2 * padded; ++j) sum[j] += from[r * size + j];
      }
      const int64_t to =
          ((entry / groups * length + position) * groups + entry % groups) * problem.state;
      for (int64_t n = 0; n < problem.state; ++n) {
        to_b[to + n] = sum[n];
        to_c[to + n] = sum[padded + n];
      }
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad_out, const Tensor& grad_final_states, const Tensor& x, const Tensor& dt,
    const Tensor& a, const Tensor& b, const Tensor& c, const OptionalTensor& skip,
    const OptionalTensor& z, const OptionalTensor& dt_bias, const OptionalTensor& initial_states,
    const OptionalTensor& seq_idx, const Tensor& checkpoints, bool dt_softplus, double dt_min,
    double dt_max, int64_t chunk) {
  const SsdProblem problem = check_ssd(x, dt, a, b, c, skip, z, dt_bias, initial_states, seq_idx,
                                       dt_softplus, dt_min, dt_max, chunk);
  STD_TORCH_CHECK(chunk >= 1, "chunk must be at least 1 for the gradient, got ", chunk, ".");
  const auto [batch, heads, width, state] =
      std::tuple(problem.batch, problem.heads, problem.width, problem.state);
  check_shape("grad_out", grad_out, {batch, problem.length, heads, width});
  check_shape("grad_final_states", grad_final_states, {batch, heads, width, state});
  check_shape("checkpoints", checkpoints,
              {batch, intervals(problem.length, chunk), heads, width, state});
  const ScalarType type = compute_type("x", x), result = x.scalar_type();
  const Tensor dout = to_type(grad_out, type), dlast = to_contiguous(grad_final_states, type);
  const Tensor saved = to_contiguous(checkpoints, type);
  const auto like = [&](const Tensor& tensor) {
    return torch::stable::new_empty(x, tensor.sizes(), type);
  };
  Tensor grad_x = like(x), grad_dt = like(dt), grad_b = like(b), grad_c = like(c);
  OptionalTensor grad_z, grad_initial, grad_a, grad_skip, grad_bias;
  if (z.has_value()) grad_z = like(*z);
  if (initial_states.has_value()) grad_initial = torch::stable::clone(dlast);
  OptionalTensor share_a = shares(x, type, true, {batch, heads});
  OptionalTensor share_skip = shares(x, type, skip.has_value(), {batch, heads, width});
  OptionalTensor share_bias = shares(x, type, dt_bias.has_value(), {batch, heads});
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(problem, type, x, dt, a, b, c, skip, z, dt_bias, initial_states,
                               seq_idx);
    SsdBackward<T> args{};
    args.problem = problem;
    args.in = prepared.inputs();
    args.grad_out = tokens<T>(dout);
    args.grad_final = static_cast<const T*>(dlast.const_data_ptr());
    args.checkpoints = static_cast<const T*>(saved.const_data_ptr());
    args.grad_x = data<T>(grad_x);
    args.grad_dt = data<T>(grad_dt);
    args.grad_z = data_or_null<T>(grad_z);
    args.grad_a = data_or_null<T>(share_a);
    args.grad_skip = data_or_null<T>(share_skip);
    args.grad_bias = data_or_null<T>(share_bias);
    args.grad_initial = data_or_null<T>(grad_initial);
    run_backward<T>(args, grad_b, grad_c);
    grad_a = sum_batch<T>(*share_a);
    grad_skip = sum_or_absent<T>(share_skip, x, result);
    grad_bias = sum_or_absent<T>(share_bias, x, result);
  });
  return {to_type(grad_x, result),
          to_type(grad_dt, result),
          *grad_a,
          to_type(grad_b, result),
          to_type(grad_c, result),
          *grad_skip,
          grad_z.has_value() ? to_type(*grad_z, result) : absent(x, result),
          *grad_bias,
          grad_initial.has_value() ? *grad_initial : absent(x, result)};
}

}  // namespace

}  // namespace saccade::scan

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("ssd_scan_forward", TORCH_BOX(&saccade::scan::forward));
  m.impl("ssd_scan_backward", TORCH_BOX(&saccade::scan::backward));
}
