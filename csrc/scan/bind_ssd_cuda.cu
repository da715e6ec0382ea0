// ssd_scan on CUDA: torch's side.
#include "scan/bind_cuda.h"

namespace saccade::scan_device {
namespace {

Inputs ssd_inputs(const Tensor& x, const Tensor& dt, const Tensor& a, const Tensor& b,
                  const Tensor& c, const OptionalTensor& d, const OptionalTensor& z,
                  const OptionalTensor& dt_bias, const OptionalTensor& initial_states,
                  const OptionalTensor& seq_idx, bool softplus, double dt_min, double dt_max,
                  int64_t chunk) {
  STD_TORCH_CHECK(x.dim() == 4, "x must be [B, L, H, P], got ", shape(x), ".");
  STD_TORCH_CHECK(b.dim() == 4, "B must be [B, L, G, N], got ", shape(b), ".");
  const int64_t batch = x.size(0), length = x.size(1), heads = x.size(2), width = x.size(3);
  const int64_t groups = b.size(2), states = b.size(3);
  STD_TORCH_CHECK(groups >= 1 && heads % groups == 0, "B must have groups that divide ", heads,
                  " heads, got ", groups, ".");
  STD_TORCH_CHECK(states >= 1 && states <= kMostStates, "B must have 1 to ", kMostStates,
                  " states on CUDA, got ", states, ".");
  check_like("dt", dt, x, {batch, length, heads});
  check_shape("A", a, x, {heads});
  check_like("B", b, x, {batch, length, groups, states});
  check_like("C", c, x, {batch, length, groups, states});
  if (d.has_value()) check_shape("D", *d, x, {heads, width});
  if (z.has_value()) check_like("z", *z, x, {batch, length, heads, width});
  if (dt_bias.has_value()) check_shape("dt_bias", *dt_bias, x, {heads});
  Inputs in{};
  Problem& p = in.problem;
  in.state = {batch, heads, width, states};
  if (initial_states.has_value()) check_shape("initial_states", *initial_states, x, in.state);
  in.u = with_flat_heads(x);
  if (z.has_value()) {
    in.z_flat = with_flat_heads(*z);
    p.z = flat_view(in.z_flat);
  }
  in.a = to_contiguous(a, ScalarType::Float);
  in.b = b;
  in.c = c;
  in.d = to_floats(d);
  in.bias = to_floats(dt_bias);
  in.initial = to_floats(initial_states);
  p.batch = to_int("B", batch);
  p.paths = 1;
  p.channels = to_int("H * P", heads * width);
  p.groups = to_int("groups", groups);
  p.states = static_cast<int>(states);
  p.length = to_int("L", length);
  p.height = 1;
  p.share = to_int("P", width);
  p.scalar = true;
  p.softplus = softplus;
  p.least = static_cast<float>(dt_min);
  p.most = static_cast<float>(dt_max);
  p.interval = chunk > 0 ? to_int("chunk", chunk) : INT32_MAX;
  p.u = flat_view(in.u);
  p.delta = view(dt, "blh");
  p.b = view(b, "blgn");
  p.c = view(c, "blgn");
  p.a = static_cast<const float*>(in.a.const_data_ptr());
  p.d = data_or_null<float>(in.d);
  p.bias = data_or_null<float>(in.bias);
  set_sequence(p, sequence(seq_idx, x, batch, length));
  return in;
}

// [B, T, H, P, N]
Checkpoints ssd_checkpoints(const Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  return {static_cast<float*>(const_cast<void*>(tensor.const_data_ptr())),
          tensor.stride(0),
          0,
          tensor.stride(1),
          tensor.stride(3),
          tensor.stride(4)};
}

std::tuple<Tensor, Tensor, Tensor> ssd_forward_op(const Tensor& x, const Tensor& dt,
                                                  const Tensor& a, const Tensor& b, const Tensor& c,
                                                  const OptionalTensor& d, const OptionalTensor& z,
                                                  const OptionalTensor& dt_bias,
                                                  const OptionalTensor& initial_states,
                                                  const OptionalTensor& seq_idx, bool softplus,
                                                  double dt_min, double dt_max, int64_t chunk) {
  const DeviceGuard guard(x.get_device_index());
  const Inputs in = ssd_inputs(x, dt, a, b, c, d, z, dt_bias, initial_states, seq_idx, softplus,
                               dt_min, dt_max, chunk);
  const Ints& s = in.state;
  Tensor out = torch::stable::new_empty(x, x.sizes());
  if (in.empty()) {
    Tensor last = in.initial.has_value() ? torch::stable::clone(*in.initial)
                                         : torch::stable::new_zeros(x, s, ScalarType::Float);
    return {out, last, floats(x, {s[0], 0, s[1], s[2], s[3]})};
  }
  Tensor saved = floats(x, {s[0], scan::intervals(x.size(1), chunk), s[1], s[2], s[3]});
  return run_forward(in, out, flat_view(out), floats(x, s), saved, ssd_checkpoints(saved));
}

Gradients ssd_backward_op(const Tensor& grad_out, const Tensor& grad_final_states, const Tensor& x,
                          const Tensor& dt, const Tensor& a, const Tensor& b, const Tensor& c,
                          const OptionalTensor& d, const OptionalTensor& z,
                          const OptionalTensor& dt_bias, const OptionalTensor& initial_states,
                          const OptionalTensor& seq_idx, const Tensor& checkpoints, bool softplus,
                          double dt_min, double dt_max, int64_t chunk) {
  const DeviceGuard guard(x.get_device_index());
  const Inputs in = ssd_inputs(x, dt, a, b, c, d, z, dt_bias, initial_states, seq_idx, softplus,
                               dt_min, dt_max, chunk);
  const Problem& p = in.problem;
  const Ints& s = in.state;
  check_like("grad_out", grad_out, x, {x.size(0), x.size(1), x.size(2), x.size(3)});
  check_shape("grad_final_states", grad_final_states, x, s);
  STD_TORCH_CHECK(!in.empty(), "x must not be empty in a backward on CUDA, got ", shape(x), ".");
  check_checkpoints(checkpoints, x, chunk,
                    {s[0], scan::intervals(x.size(1), chunk), s[1], s[2], s[3]});
  const Tensor out = with_flat_heads(grad_out);
  const Tensor last = to_contiguous(grad_final_states, ScalarType::Float);
  const Tensor saved = to_contiguous(checkpoints, ScalarType::Float);
  const Ints none{0};
  const auto like = [&](const Tensor& tensor) {
    return torch::stable::new_empty(tensor, tensor.sizes());
  };
  Tensor grad_x = like(x), grad_dt = like(dt), grad_a = floats(x, {s[1]});
  Tensor grad_b = like(b), grad_c = like(c);
  Tensor grad_d = d.has_value() ? floats(x, {s[1], s[2]}) : torch::stable::new_empty(x, none);
  Tensor grad_z = z.has_value() ? like(x) : torch::stable::new_empty(x, none);
  Tensor grad_bias = dt_bias.has_value() ? floats(x, {s[1]}) : torch::stable::new_empty(x, none);
  Tensor grad_initial =
      initial_states.has_value() ? floats(x, s) : torch::stable::new_empty(x, none);
  Tensor scratch = scratch_for(x, backward_scratch(p));
  Backward back{};
  back.problem = p;
  back.grad_out = flat_view(out);
  back.checkpoints = ssd_checkpoints(saved);
  back.grad_last = static_cast<const float*>(last.const_data_ptr());
  back.grad_u = flat_view(grad_x);
  back.grad_delta = view(grad_dt, "blh");
  if (z.has_value()) back.grad_z = flat_view(grad_z);
  back.grad_b = view(grad_b, "blgn");
  back.grad_c = view(grad_c, "blgn");
  back.grad_a = data(grad_a);
  if (d.has_value()) back.grad_d = data(grad_d);
  if (dt_bias.has_value()) back.grad_bias = data(grad_bias);
  if (initial_states.has_value()) back.grad_initial = data(grad_initial);
  back.scratch = data(scratch);
  STD_CUDA_CHECK(backward(back, current_stream(x)));
  return {grad_x, grad_dt, grad_a, grad_b, grad_c, grad_d, grad_z, grad_bias, grad_initial};
}

}  // namespace
}  // namespace saccade::scan_device

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("ssd_scan_forward", TORCH_BOX(&saccade::scan_device::ssd_forward_op));
  m.impl("ssd_scan_backward", TORCH_BOX(&saccade::scan_device::ssd_backward_op));
}
