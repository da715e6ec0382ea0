// selective_scan on CUDA: torch's side.
#include "scan/bind_cuda.h"

namespace saccade::scan_device {
namespace {

Inputs scan_inputs(const Tensor& u, const Tensor& delta, const Tensor& a, const Tensor& b,
                   const Tensor& c, const OptionalTensor& d, const OptionalTensor& z,
                   const OptionalTensor& delta_bias, const OptionalTensor& initial_state,
                   const OptionalTensor& seq_idx, bool softplus, const Ints& directions,
                   int64_t height, int64_t chunk) {
  STD_TORCH_CHECK(u.dim() == 3, "u must be [B, D, L], got ", shape(u), ".");
  const int64_t batch = u.size(0), channels = u.size(1), length = u.size(2);
  const int64_t paths = static_cast<int64_t>(directions.size());
  STD_TORCH_CHECK(paths >= 1 && paths <= kMostPaths, "directions must have 1 to ", kMostPaths,
                  " entries on CUDA, got ", paths, ".");
  STD_TORCH_CHECK(height >= 1 && length % height == 0, "height must divide L = ", length, ", got ",
                  height, ".");
  STD_TORCH_CHECK(a.dim() == 3, "A must be [K, D, N], got ", shape(a), ".");
  STD_TORCH_CHECK(a.scalar_type() == ScalarType::Float, "A must be float32 on CUDA.");
  const int64_t states = a.size(2);
  STD_TORCH_CHECK(states >= 1 && states <= kMostStates, "A must have 1 to ", kMostStates,
                  " states on CUDA, got ", states, ".");
  check_shape("A", a, u, {paths, channels, states});
  check_like("delta", delta, u, {batch, paths, channels, length});
  if (z.has_value()) check_like("z", *z, u, {batch, channels, length});
  if (d.has_value()) check_shape("D", *d, u, {paths, channels});
  if (delta_bias.has_value()) check_shape("delta_bias", *delta_bias, u, {paths, channels});
  if (initial_state.has_value()) {
    check_shape("initial_state", *initial_state, u, {batch, paths, channels, states});
  }
  STD_TORCH_CHECK(!seq_idx.has_value() || paths == 1, "seq_idx goes with one path, got ", paths,
                  ".");

  Inputs in{};
  Problem& p = in.problem;
  p.groups = 1;
  const auto check_input = [&](const char* name, const Tensor& tensor) {
    if (tensor.dim() == 3) {
      check_shape(name, tensor, u, {paths, channels, states});
      return true;
    }
    STD_TORCH_CHECK(tensor.dim() == 5, name, " must be [B, K, G, N, L] or [K, D, N], got ",
                    shape(tensor), ".");
    p.groups = to_int("groups", tensor.size(2));
    STD_TORCH_CHECK(p.groups >= 1 && channels % p.groups == 0, name,
                    " must have groups that divide ", channels, ", got ", p.groups, ".");
    check_like(name, tensor, u, {batch, paths, p.groups, states, length});
    return false;
  };
  p.constant_b = check_input("B", b);
  const int groups = p.groups;
  p.constant_c = check_input("C", c);
  STD_TORCH_CHECK(p.constant_b || p.constant_c || groups == p.groups,
                  "B and C must have the same groups, got ", groups, " and ", p.groups, ".");
  in.u = u;
  in.a = to_contiguous(a, ScalarType::Float);
  in.b = p.constant_b ? to_contiguous(b, ScalarType::Float) : b;
  in.c = p.constant_c ? to_contiguous(c, ScalarType::Float) : c;
  in.d = to_floats(d);
  in.bias = to_floats(delta_bias);
  in.initial = to_floats(initial_state);
  in.state = {batch, paths, channels, states};
  p.batch = to_int("B", batch);
  p.paths = static_cast<int>(paths);
  p.channels = to_int("D", channels);
  p.states = static_cast<int>(states);
  p.length = to_int("L", length);
  p.height = to_int("height", height);
  p.share = 1;
  p.softplus = softplus;
  p.least = -INFINITY;
  p.most = INFINITY;
  for (int64_t k = 0; k < paths; ++k) {
    STD_TORCH_CHECK(directions[k] >= 0 && directions[k] <= 3, "directions must be 0 to 3, got ",
                    directions[k], ".");
    p.directions[k] = static_cast<int>(directions[k]);
  }
  p.interval = chunk > 0 ? to_int("chunk", chunk) : INT32_MAX;
  p.u = view(u, "bdl");
  p.delta = view(delta, "bkdl");
  if (z.has_value()) p.z = view(*z, "bdl");
  p.b = view(in.b, p.constant_b ? "kdn" : "bkgnl");
  p.c = view(in.c, p.constant_c ? "kdn" : "bkgnl");
  p.a = static_cast<const float*>(in.a.const_data_ptr());
  p.d = data_or_null<float>(in.d);
  p.bias = data_or_null<float>(in.bias);
  set_sequence(p, sequence(seq_idx, u, batch, length));
  return in;
}

// [B, K, T, N, D]
Checkpoints scan_checkpoints(const Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  return {static_cast<float*>(const_cast<void*>(tensor.const_data_ptr())),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          tensor.stride(4),
          tensor.stride(3)};
}

std::tuple<Tensor, Tensor, Tensor> scan_forward_op(
    const Tensor& u, const Tensor& delta, const Tensor& a, const Tensor& b, const Tensor& c,
    const OptionalTensor& d, const OptionalTensor& z, const OptionalTensor& delta_bias,
    const OptionalTensor& initial_state, const OptionalTensor& seq_idx, bool softplus,
    const Ints& directions, int64_t height, int64_t chunk) {
  const DeviceGuard guard(u.get_device_index());
  const Inputs in = scan_inputs(u, delta, a, b, c, d, z, delta_bias, initial_state, seq_idx,
                                softplus, directions, height, chunk);
  Tensor out = laid_out_like(u);
  if (in.empty()) {
    Tensor last = in.initial.has_value() ? torch::stable::clone(*in.initial)
                                         : torch::stable::new_zeros(u, in.state, ScalarType::Float);
    return {out, last, floats(u, {in.state[0], in.state[1], 0, in.state[3], in.state[2]})};
  }
  const int64_t times = scan::intervals(u.size(2), chunk);
  Tensor last = floats(u, in.state);
  Tensor saved = floats(u, {in.state[0], in.state[1], times, in.state[3], in.state[2]});
  return run_forward(in, out, view(out, "bdl"), last, saved, scan_checkpoints(saved));
}

Gradients scan_backward_op(const Tensor& grad_out, const Tensor& grad_last_state, const Tensor& u,
                           const Tensor& delta, const Tensor& a, const Tensor& b, const Tensor& c,
                           const OptionalTensor& d, const OptionalTensor& z,
                           const OptionalTensor& delta_bias, const OptionalTensor& initial_state,
                           const OptionalTensor& seq_idx, const Tensor& checkpoints, bool softplus,
                           const Ints& directions, int64_t height, int64_t chunk) {
  const DeviceGuard guard(u.get_device_index());
  const Inputs in = scan_inputs(u, delta, a, b, c, d, z, delta_bias, initial_state, seq_idx,
                                softplus, directions, height, chunk);
  const Problem& p = in.problem;
  const Ints& state = in.state;
  check_like("grad_out", grad_out, u, {u.size(0), u.size(1), u.size(2)});
  check_shape("grad_last_state", grad_last_state, u, state);
  STD_TORCH_CHECK(!in.empty(), "u must not be empty in a backward on CUDA, got ", shape(u), ".");
  check_checkpoints(checkpoints, u, chunk,
                    {state[0], state[1], scan::intervals(u.size(2), chunk), state[3], state[2]});
  const Tensor last = to_contiguous(grad_last_state, ScalarType::Float);
  const Tensor saved = to_contiguous(checkpoints, ScalarType::Float);
  const Ints none{0};
  const Ints parameters{state[1], state[2], state[3]}, channels{state[1], state[2]};
  Tensor grad_u = laid_out_like(u), grad_delta = laid_out_like(delta);
  Tensor grad_a = floats(u, parameters);
  Tensor grad_b = p.constant_b ? floats(u, parameters) : laid_out_like(b);
  Tensor grad_c = p.constant_c ? floats(u, parameters) : laid_out_like(c);
  Tensor grad_d = d.has_value() ? floats(u, channels) : torch::stable::new_empty(u, none);
  Tensor grad_z = z.has_value() ? laid_out_like(*z) : torch::stable::new_empty(u, none);
  Tensor grad_bias =
      delta_bias.has_value() ? floats(u, channels) : torch::stable::new_empty(u, none);
  Tensor grad_initial =
      initial_state.has_value() ? floats(u, state) : torch::stable::new_empty(u, none);
  Tensor scratch = scratch_for(u, backward_scratch(p));
  Backward back{};
  back.problem = p;
  back.grad_out = view(grad_out, "bdl");
  back.checkpoints = scan_checkpoints(saved);
  back.grad_last = static_cast<const float*>(last.const_data_ptr());
  back.grad_u = view(grad_u, "bdl");
  back.grad_delta = view(grad_delta, "bkdl");
  if (z.has_value()) back.grad_z = view(grad_z, "bdl");
  back.grad_b = view(grad_b, p.constant_b ? "kdn" : "bkgnl");
  back.grad_c = view(grad_c, p.constant_c ? "kdn" : "bkgnl");
  back.grad_a = data(grad_a);
  if (d.has_value()) back.grad_d = data(grad_d);
  if (delta_bias.has_value()) back.grad_bias = data(grad_bias);
  if (initial_state.has_value()) back.grad_initial = data(grad_initial);
  back.scratch = data(scratch);
  STD_CUDA_CHECK(backward(back, current_stream(u)));
  return {grad_u, grad_delta, grad_a, grad_b, grad_c, grad_d, grad_z, grad_bias, grad_initial};
}

}  // namespace
}  // namespace saccade::scan_device

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("selective_scan_forward", TORCH_BOX(&saccade::scan_device::scan_forward_op));
  m.impl("selective_scan_backward", TORCH_BOX(&saccade::scan_device::scan_backward_op));
}
