// Torch's side of the CPU kernels of the selective scan.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "scan/bind_cpu.h"

namespace saccade::scan {

namespace {

// B or C as the kernels want it, kept alive beside the view of it.
template <typename T>
struct Packed {
  Tensor tensor;
  Coefficient<T> view{};

  Packed(const Tensor& given, const SelectiveProblem& problem, ScalarType type)
      : tensor(to_type(given, type)) {
    view.constant = given.dim() == 3;
    const int64_t unit = kernels<T>().states;
    if (view.constant) {
      tensor = torch::stable::contiguous(tensor);
    } else if (tensor.stride(3) != 1 || problem.state % unit != 0) {
      pack(problem, (problem.state + unit - 1) / unit * unit);
    }
    view.data = static_cast<const T*>(tensor.const_data_ptr());
    if (view.constant) return;
    view.batch = tensor.stride(0);
    view.path = tensor.stride(1);
    view.group = tensor.stride(2);
    view.position = tensor.stride(4);
  }

 private:
  // [B, K, G, N, L] to the same with padded N innermost, zeros in the padding.
  void pack(const SelectiveProblem& problem, int64_t padded) {
    const int64_t groups = tensor.size(2), length = problem.length, state = problem.state;
    Tensor packed = torch::stable::new_zeros(
        tensor, Ints{problem.batch, problem.paths, groups, length, padded});
    const T* source = static_cast<const T*>(tensor.const_data_ptr());
    T* target = data<T>(packed);
    const int64_t strides[] = {tensor.stride(0), tensor.stride(1), tensor.stride(2),
                               tensor.stride(3), tensor.stride(4)};
    parallel_tasks(problem.batch * problem.paths * groups, [&] {
      return [&](int64_t i) {
        const int64_t g = i % groups, k = i / groups % problem.paths,
                      b = i / groups / problem.paths;
        const T* from = source + b * strides[0] + k * strides[1] + g * strides[2];
        T* to = target + i * length * padded;
        for (int64_t n = 0; n < state; ++n) {
          for (int64_t p = 0; p < length; ++p) {
            to[p * padded + n] = from[n * strides[3] + p * strides[4]];
          }
        }
      };
    });
    tensor = torch::stable::transpose(packed, 3, 4);
  }
};

// The inputs in the type of computation, kept alive beside the views of them.
template <typename T>
struct Prepared {
  Tensor u, delta, a;
  Packed<T> b, c;
  OptionalTensor skip, z, delta_bias, initial, sequence;

  Prepared(const SelectiveProblem& problem, ScalarType type, const Tensor& u_, const Tensor& delta_,
           const Tensor& a_, const Tensor& b_, const Tensor& c_, const OptionalTensor& skip_,
           const OptionalTensor& z_, const OptionalTensor& delta_bias_,
           const OptionalTensor& initial_, const OptionalTensor& seq_idx)
      : u(to_type(u_, type)),
        delta(to_type(delta_, type)),
        a(to_contiguous(a_, type)),
        b(b_, problem, type),
        c(c_, problem, type),
        skip(to_contiguous(skip_, type)),
        delta_bias(to_contiguous(delta_bias_, type)),
        initial(to_contiguous(initial_, type)),
        sequence(to_contiguous(seq_idx, ScalarType::Int)) {
    if (z_.has_value()) z = to_type(*z_, type);
  }

  SelectiveInputs<T> inputs() const {
    SelectiveInputs<T> in{};
    in.u = view<const T>(u);
    in.delta = view<const T>(delta);
    if (z.has_value()) in.z = view<const T>(*z);
    in.a = static_cast<const T*>(a.const_data_ptr());
    in.b = b.view;
    in.c = c.view;
    in.skip = saccade::data_or_null<T>(skip);
    in.delta_bias = saccade::data_or_null<T>(delta_bias);
    in.initial = saccade::data_or_null<T>(initial);
    in.sequence = saccade::data_or_null<int32_t>(sequence);
    return in;
  }
};

// Channels in blocks of a vector's lanes that share a group.
struct Blocks {
  int64_t lanes, group_channels, groups, per_group;

  Blocks(const SelectiveProblem& problem, int64_t lanes)
      : lanes(lanes),
        group_channels(problem.channels / problem.groups),
        groups(problem.groups),
        per_group((group_channels + lanes - 1) / lanes) {}
  int64_t first(int64_t group, int64_t block) const {
    return group * group_channels + block * lanes;
  }
  int64_t count(int64_t block) const { return std::min(lanes, group_channels - block * lanes); }
};

template <typename T>
void run_forward(const SelectiveForward<T>& args) {
  const SelectiveProblem& problem = args.problem;
  const Blocks blocks(problem, kernels<T>().lanes);
  const int64_t per_batch = blocks.groups * blocks.per_group;
  const int64_t scratch_size = kernels<T>().selective_scratch(problem, false);
  parallel_tasks(problem.batch * per_batch, [&] {
    return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
      const int64_t block = i % blocks.per_group, group = i / blocks.per_group % blocks.groups;
      kernels<T>().selective_forward(args, i / per_batch, blocks.first(group, block),
                                     blocks.count(block), scratch.data());
    };
  });
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& u, const Tensor& delta, const Tensor& a,
                                           const Tensor& b, const Tensor& c,
                                           const OptionalTensor& skip, const OptionalTensor& z,
                                           const OptionalTensor& delta_bias,
                                           const OptionalTensor& initial_state,
                                           const OptionalTensor& seq_idx, bool delta_softplus,
                                           const Ints& directions, int64_t height, int64_t chunk) {
  const SelectiveProblem problem =
      check_selective(u, delta, a, b, c, skip, z, delta_bias, initial_state, seq_idx,
                      delta_softplus, directions, height, chunk);
  const ScalarType type = compute_type("u", u);
  Tensor out = new_like(u, type);
  Tensor last_state = torch::stable::new_empty(
      u, Ints{problem.batch, problem.paths, problem.channels, problem.state}, type);
  Tensor checkpoints =
      new_checkpoints(u,
                      {problem.batch, problem.paths, intervals(problem.length, chunk),
                       problem.state, problem.channels},
                      2, type);
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(problem, type, u, delta, a, b, c, skip, z, delta_bias, initial_state,
                               seq_idx);
    run_forward<T>(
        {problem, prepared.inputs(), view<T>(out), data<T>(last_state), data<T>(checkpoints)});
  });
  return {to_type(out, u.scalar_type()), last_state, checkpoints};
}

// Tasks of backward: a range of one group's blocks of one batch entry, with sums for B and C of its
// own, which are added in order at the end. The number of ranges follows from sizes alone.
struct Shares {
  int64_t ranges, padded, size;
  bool variable;

  Shares(const SelectiveProblem& problem, const Blocks& blocks, bool variable, int64_t unit,
         int64_t item)
      : padded((problem.state + unit - 1) / unit * unit), variable(variable) {
    size = variable ? problem.paths * problem.length * 2 * padded : 0;
    ranges = count_ranges(problem.batch * problem.groups, blocks.per_group, size * item);
  }
};

template <typename T>
void run_backward(const SelectiveBackward<T>& args, const Blocks& blocks, const Shares& shares,
                  T* partials) {
  const SelectiveProblem& problem = args.problem;
  const int64_t scratch_size = kernels<T>().selective_scratch(problem, true);
  parallel_tasks(problem.batch * blocks.groups * shares.ranges, [&] {
    return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
      const int64_t range = i % shares.ranges, group = i / shares.ranges % blocks.groups;
      T* partial = partials + i * shares.size;
      std::fill_n(partial, shares.size, T(0));
      const int64_t end = (range + 1) * blocks.per_group / shares.ranges;
      for (int64_t block = range * blocks.per_group / shares.ranges; block < end; ++block) {
        kernels<T>().selective_backward(args, i / shares.ranges / blocks.groups,
                                        blocks.first(group, block), blocks.count(block), partial,
                                        scratch.data());
      }
    };
  });
}

// Adds the ranges' shares of the gradient of B (offset 0) or C (offset `states`), in order.
template <typename T>
void add_shares(const SelectiveProblem& problem, const Shares& shares, const T* partials,
                bool second, Tensor& grad) {
  const int64_t unit = kernels<T>().states, groups = grad.size(2), length = problem.length;
  const int64_t rows = problem.batch * groups * problem.paths * length;
  T* target = data<T>(grad);
  const int64_t strides[] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3),
                             grad.stride(4)};
  torch::stable::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t p = i % length, k = i / length % problem.paths;
      const int64_t entry = i / length / problem.paths, g = entry % groups, b = entry / groups;
      T* to = target + b * strides[0] + k * strides[1] + g * strides[2] + p * strides[4];
      const T* from = partials + entry * shares.ranges * shares.size +
                      (k * length + p) * 2 * shares.padded + (second ? unit : 0);
      for (int64_t n = 0; n < problem.state; ++n) {
        T sum{};
        for (int64_t r = 0; r < shares.ranges; ++r) {
          sum += from[r * shares.size + n / unit * 2 * unit + n % unit];
        }
        to[n * strides[3]] = sum;
      }
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad_out, const Tensor& grad_last_state, const Tensor& u, const Tensor& delta,
    const Tensor& a, const Tensor& b, const Tensor& c, const OptionalTensor& skip,
    const OptionalTensor& z, const OptionalTensor& delta_bias, const OptionalTensor& initial_state,
    const OptionalTensor& seq_idx, const Tensor& checkpoints, bool delta_softplus,
    const Ints& directions, int64_t height, int64_t chunk) {
  const SelectiveProblem problem =
      check_selective(u, delta, a, b, c, skip, z, delta_bias, initial_state, seq_idx,
                      delta_softplus, directions, height, chunk);
  const auto [batch, paths, channels, state] =
      std::tuple(problem.batch, problem.paths, problem.channels, problem.state);
  STD_TORCH_CHECK(chunk >= 1, "chunk must be at least 1 for the gradient, got ", chunk, ".");
  check_shape("grad_out", grad_out, {batch, channels, problem.length});
  check_shape("grad_last_state", grad_last_state, {batch, paths, channels, state});
  check_shape("checkpoints", checkpoints,
              {batch, paths, intervals(problem.length, chunk), state, channels});
  const ScalarType type = compute_type("u", u), result = u.scalar_type();
  const Tensor dout = to_type(grad_out, type), dlast = to_contiguous(grad_last_state, type);
  const Tensor saved = to_contiguous(checkpoints, type);
  Tensor grad_u = new_like(u, type), grad_delta = new_like(delta, type);
  OptionalTensor grad_z;
  if (z.has_value()) grad_z = new_like(*z, type);
  const Ints by_state{batch, paths, channels, state}, by_channel{batch, paths, channels};
  OptionalTensor share_a = shares(u, type, true, by_state);
  OptionalTensor share_b = shares(u, type, b.dim() == 3, by_state);
  OptionalTensor share_c = shares(u, type, c.dim() == 3, by_state);
  OptionalTensor share_skip = shares(u, type, skip.has_value(), by_channel);
  OptionalTensor share_bias = shares(u, type, delta_bias.has_value(), by_channel);
  OptionalTensor grad_initial;
  if (initial_state.has_value()) grad_initial = torch::stable::clone(dlast);
  OptionalTensor grad_a, grad_b, grad_c, grad_skip, grad_bias;

  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Prepared<T> prepared(problem, type, u, delta, a, b, c, skip, z, delta_bias, initial_state,
                               seq_idx);
    SelectiveBackward<T> args{};
    args.problem = problem;
    args.in = prepared.inputs();
    args.grad_out = view<const T>(dout);
    args.grad_last_state = static_cast<const T*>(dlast.const_data_ptr());
    args.checkpoints = static_cast<const T*>(saved.const_data_ptr());
    args.grad_u = view<T>(grad_u);
    args.grad_delta = view<T>(grad_delta);
    if (grad_z.has_value()) args.grad_z = view<T>(*grad_z);
    args.grad_a = data_or_null<T>(share_a);
    args.grad_b = data_or_null<T>(share_b);
    args.grad_c = data_or_null<T>(share_c);
    args.grad_skip = data_or_null<T>(share_skip);
    args.grad_bias = data_or_null<T>(share_bias);
    args.grad_initial = data_or_null<T>(grad_initial);

    const bool variable = !args.in.b.constant || !args.in.c.constant;
    const Blocks blocks(problem, kernels<T>().lanes);
    const Shares sizes(problem, blocks, variable, kernels<T>().states, sizeof(T));
    AlignedScratch<T> partials(batch * problem.groups * sizes.ranges * sizes.size);
    run_backward<T>(args, blocks, sizes, partials.data());
    grad_a = sum_batch<T>(*share_a);
    const auto coefficient = [&](const Tensor& given, OptionalTensor& share, bool second) {
      if (share.has_value()) return sum_batch<T>(*share);
      Tensor grad = new_like(given, type);
      add_shares<T>(problem, sizes, partials.data(), second, grad);
      return grad;
    };
    grad_b = coefficient(b, share_b, false);
    grad_c = coefficient(c, share_c, true);
    grad_skip = sum_or_absent<T>(share_skip, u, result);
    grad_bias = sum_or_absent<T>(share_bias, u, result);
  });
  return {to_type(grad_u, result),
          to_type(grad_delta, result),
          *grad_a,
          to_type(*grad_b, b.scalar_type()),
          to_type(*grad_c, c.scalar_type()),
          *grad_skip,
          grad_z.has_value() ? to_type(*grad_z, result) : absent(u, result),
          *grad_bias,
          grad_initial.has_value() ? *grad_initial : absent(u, result)};
}

}  // namespace

}  // namespace saccade::scan

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("selective_scan_forward", TORCH_BOX(&saccade::scan::forward));
  m.impl("selective_scan_backward", TORCH_BOX(&saccade::scan::backward));
}
