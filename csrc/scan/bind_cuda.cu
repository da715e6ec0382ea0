// Torch's side of the CUDA kernels: checks, allocation, and a call's sizes and strides as the
// kernels want them.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <string_view>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "scan/cuda_kernel.cuh"
#include "scan/kernel.h"

namespace saccade::scan_device {
namespace {

using torch::stable::accelerator::DeviceGuard;
using Ints = std::vector<int64_t>;

Dtype dtype_of(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBfloat16;
    default:
      STD_TORCH_CHECK(false, name, " must be float16, bfloat16 or float32 on CUDA.");
  }
}

void check_shape(const char* name, const Tensor& tensor, const Tensor& first, const Ints& sizes) {
  bool same =
      tensor.dim() == static_cast<int64_t>(sizes.size()) && tensor.device() == first.device();
  for (size_t i = 0; same && i < sizes.size(); ++i) {
    same = tensor.size(static_cast<int64_t>(i)) == sizes[i];
  }
  std::ostringstream wanted;
  for (const int64_t size : sizes) wanted << (wanted.tellp() > 0 ? ", " : "") << size;
  STD_TORCH_CHECK(same, name, " must be [", wanted.str(),
                  "] on the device of the first tensor, got ", shape(tensor), ".");
}

void check_like(const char* name, const Tensor& tensor, const Tensor& first, const Ints& sizes) {
  check_shape(name, tensor, first, sizes);
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), name,
                  " must have the dtype of the first tensor.");
}

int to_int(const char* name, int64_t size, int64_t most = INT32_MAX) {
  STD_TORCH_CHECK(size <= most, name, " may be at most ", most, " on CUDA, got ", size, ".");
  return static_cast<int>(size);
}

// Axes by letters: b(atch), k (path), d, g or h (row), n (state), l (step).
View view(const Tensor& tensor, std::string_view axes) {
  View v{};
  v.data = const_cast<void*>(tensor.const_data_ptr());
  v.dtype = dtype_of("every tensor", tensor);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t stride = tensor.stride(static_cast<int64_t>(i));
    switch (axes[i]) {
      case 'b':
        v.batch = stride;
        break;
      case 'k':
        v.path = stride;
        break;
      case 'n':
        v.state = stride;
        break;
      case 'l':
        v.step = stride;
        break;
      default:
        v.row = stride;
    }
  }
  return v;
}

// [B, L, H, P] with channels h * P + p.
View flat_view(const Tensor& tensor) {
  View v = view(tensor, "blhd");
  v.row = tensor.stride(3);
  return v;
}

// A tensor whose last two axes are one axis in memory.
Tensor with_flat_heads(const Tensor& tensor) {
  const bool flat = tensor.size(2) <= 1 || tensor.stride(2) == tensor.size(3) * tensor.stride(3);
  return flat ? tensor : torch::stable::contiguous(tensor);
}

bool is_channels_last(const Tensor& tensor) {
  const int64_t d = tensor.dim();
  return tensor.stride(d - 2) == 1 && tensor.stride(d - 1) != 1;
}

// Uninitialised, with the shape and type of a tensor: contiguous, or channels-last where it is.
Tensor laid_out_like(const Tensor& tensor) {
  Ints sizes(tensor.sizes().begin(), tensor.sizes().end());
  if (!is_channels_last(tensor)) return torch::stable::new_empty(tensor, sizes);
  std::swap(sizes[sizes.size() - 1], sizes[sizes.size() - 2]);
  return torch::stable::transpose(torch::stable::new_empty(tensor, sizes), -1, -2);
}

Tensor floats(const Tensor& like, const Ints& sizes) {
  return torch::stable::new_empty(like, sizes, ScalarType::Float);
}

float* data(Tensor& tensor) {
  return tensor.numel() > 0 ? static_cast<float*>(tensor.mutable_data_ptr()) : nullptr;
}

OptionalTensor to_floats(const OptionalTensor& tensor) {
  return to_contiguous(tensor, ScalarType::Float);
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

struct Sequence {
  const int* ids = nullptr;
  int64_t batch = 0, step = 0;
};

Sequence sequence(const OptionalTensor& ids, const Tensor& first, int64_t batch, int64_t length) {
  if (!ids.has_value()) return {};
  check_shape("seq_idx", *ids, first, {batch, length});
  STD_TORCH_CHECK(ids->scalar_type() == ScalarType::Int, "seq_idx must be int32.");
  return {static_cast<const int*>(ids->const_data_ptr()), ids->stride(0), ids->stride(1)};
}

Tensor scratch_for(const Tensor& like, int64_t count) { return floats(like, {count}); }

// The inputs of selective_scan or ssd_scan as the kernels read them, kept alive while the kernels
// are launched.
struct Inputs {
  Problem problem{};
  Tensor u, z_flat, a, b, c;
  OptionalTensor d, bias, initial;
  Ints state;  // shape of a state, batch included

  bool empty() const { return problem.batch == 0 || problem.channels == 0 || problem.length == 0; }
};

void set_sequence(Problem& p, const Sequence& s) {
  p.sequence = s.ids;
  p.sequence_batch = s.batch;
  p.sequence_step = s.step;
}

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

void check_checkpoints(const Tensor& checkpoints, const Tensor& first, int64_t chunk,
                       const Ints& sizes) {
  STD_TORCH_CHECK(chunk >= 1, "chunk must be at least 1 in a backward, got ", chunk, ".");
  check_shape("checkpoints", checkpoints, first, sizes);
}

std::tuple<Tensor, Tensor, Tensor> run_forward(const Inputs& in, Tensor out, const View& out_view,
                                               Tensor last, Tensor saved,
                                               const Checkpoints& checkpoints) {
  Tensor scratch = scratch_for(in.u, forward_scratch(in.problem));
  Forward f{};
  f.problem = in.problem;
  f.initial = data_or_null<float>(in.initial);
  f.out = out_view;
  f.checkpoints = checkpoints;
  f.last = data(last);
  f.scratch = data(scratch);
  STD_CUDA_CHECK(forward(f, current_stream(in.u)));
  return {out, last, saved};
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

using Gradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

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

struct ConvolutionInputs {
  Convolution problem{};
  Tensor weight;
  OptionalTensor bias;

  ConvolutionInputs(const Tensor& x, const Tensor& w, const OptionalTensor& b,
                    const OptionalTensor& initial_states, const OptionalTensor& seq_idx, bool silu)
      : weight(to_contiguous(w, ScalarType::Float)), bias(to_floats(b)) {
    STD_TORCH_CHECK(x.dim() == 3, "x must be [B, D, L], got ", shape(x), ".");
    STD_TORCH_CHECK(w.dim() == 2 && w.size(1) >= 1 && w.size(1) <= kMostWidth,
                    "weight must be [D, W] with W from 1 to ", kMostWidth, " on CUDA, got ",
                    shape(w), ".");
    check_shape("weight", w, x, {x.size(1), w.size(1)});
    if (b.has_value()) check_shape("bias", *b, x, {x.size(1)});
    Convolution& p = problem;
    p.batch = to_int("B", x.size(0));
    p.channels = to_int("D", x.size(1));
    p.length = to_int("L", x.size(2));
    p.width = static_cast<int>(w.size(1));
    p.silu = silu;
    p.x = view(x, "bdl");
    p.weight = static_cast<const float*>(weight.const_data_ptr());
    p.bias = data_or_null<float>(bias);
    if (initial_states.has_value()) {
      check_like("initial_states", *initial_states, x, {x.size(0), x.size(1), w.size(1) - 1});
      if (p.width > 1) p.initial = view(*initial_states, "bdl");
    }
    const Sequence s = sequence(seq_idx, x, x.size(0), x.size(2));
    STD_TORCH_CHECK(s.ids == nullptr || !initial_states.has_value(),
                    "seq_idx and initial_states do not go together.");
    p.sequence = s.ids;
    p.sequence_batch = s.batch;
    p.sequence_step = s.step;
  }
};

Tensor convolution_forward_op(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                              const OptionalTensor& initial_states, const OptionalTensor& seq_idx,
                              bool silu) {
  const DeviceGuard guard(x.get_device_index());
  const ConvolutionInputs in(x, weight, bias, initial_states, seq_idx, silu);
  Tensor out = laid_out_like(x);
  if (x.numel() > 0) {
    const ConvolutionForward f{in.problem, view(out, "bdl")};
    STD_CUDA_CHECK(convolve_forward(f, current_stream(x)));
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> convolution_backward_op(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
    const OptionalTensor& initial_states, const OptionalTensor& seq_idx, bool silu) {
  const DeviceGuard guard(x.get_device_index());
  const ConvolutionInputs in(x, weight, bias, initial_states, seq_idx, silu);
  check_like("grad_out", grad_out, x, {x.size(0), x.size(1), x.size(2)});
  STD_TORCH_CHECK(x.numel() > 0, "x must not be empty in a backward on CUDA, got ", shape(x), ".");
  const Ints none{0};
  Tensor grad_x = laid_out_like(x), grad_weight = floats(x, {weight.size(0), weight.size(1)});
  Tensor grad_bias = bias.has_value() ? floats(x, {x.size(1)}) : torch::stable::new_empty(x, none);
  Tensor grad_initial = initial_states.has_value()
                            ? torch::stable::new_empty(x, initial_states->sizes())
                            : torch::stable::new_empty(x, none);
  Tensor scratch = scratch_for(x, convolution_scratch(in.problem));
  ConvolutionBackward back{};
  back.problem = in.problem;
  back.grad_out = view(grad_out, "bdl");
  back.grad_x = view(grad_x, "bdl");
  if (in.problem.initial.data != nullptr) back.grad_initial = view(grad_initial, "bdl");
  back.grad_weight = data(grad_weight);
  if (bias.has_value()) back.grad_bias = data(grad_bias);
  back.scratch = data(scratch);
  STD_CUDA_CHECK(convolve_backward(back, current_stream(x)));
  return {grad_x, grad_weight, grad_bias, grad_initial};
}

}  // namespace
}  // namespace saccade::scan_device

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("selective_scan_forward", TORCH_BOX(&saccade::scan_device::scan_forward_op));
  m.impl("selective_scan_backward", TORCH_BOX(&saccade::scan_device::scan_backward_op));
  m.impl("ssd_scan_forward", TORCH_BOX(&saccade::scan_device::ssd_forward_op));
  m.impl("ssd_scan_backward", TORCH_BOX(&saccade::scan_device::ssd_backward_op));
  m.impl("causal_conv1d_forward", TORCH_BOX(&saccade::scan_device::convolution_forward_op));
  m.impl("causal_conv1d_backward", TORCH_BOX(&saccade::scan_device::convolution_backward_op));
}
