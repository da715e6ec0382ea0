// Torch's side of the CUDA kernels: checks, allocation, and a call's sizes and strides as the
// kernels want them.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "neighborhood_attention/bind.h"
#include "neighborhood_attention/cuda_kernel.cuh"

namespace saccade::na {
namespace {

using neighborhood_attention::with_contiguous_dim;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

constexpr int64_t kMostDim = 256;

Dtype dtype_of(const Tensor& query) {
  switch (query.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBfloat16;
    default:
      STD_TORCH_CHECK(false, "query must be float16, bfloat16 or float32 on CUDA.");
  }
}

View view(const Tensor& tensor) {
  const auto v = neighborhood_attention::view<const char>(tensor);
  return {v.data, v.batch, {v.token[0], v.token[1], v.token[2]}, v.head};
}

bool is_aligned(const Tensor& tensor) {
  constexpr uintptr_t piece = 16;
  const auto size = static_cast<int64_t>(tensor.element_size());
  const int64_t last = tensor.dim() - 1;
  bool aligned = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % piece == 0;
  aligned = aligned && tensor.size(last) * size % static_cast<int64_t>(piece) == 0;
  for (int64_t i = 0; aligned && i < last; ++i) {
    aligned = tensor.size(i) <= 1 || tensor.stride(i) * size % static_cast<int64_t>(piece) == 0;
  }
  return aligned;
}

OptionalTensor prepare(const OptionalTensor& tensor) {
  return tensor.has_value() ? OptionalTensor(with_contiguous_dim(*tensor)) : std::nullopt;
}

// The inputs as the kernels read them, kept alive while the kernels are launched.
struct Inputs {
  Problem problem{};
  Tensor query, key, value;
  OptionalTensor bias, extra_key, extra_value;

  Inputs(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& b,
         const OptionalTensor& ak, const OptionalTensor& av, const Ints& kernel_size,
         const Ints& stride, const Ints& dilation, const Ints& is_causal, double scale)
      : query(with_contiguous_dim(q)),
        key(with_contiguous_dim(k)),
        value(with_contiguous_dim(v)),
        bias(b.has_value() ? OptionalTensor(torch::stable::contiguous(*b)) : std::nullopt),
        extra_key(prepare(ak)),
        extra_value(prepare(av)) {
    const auto checked = neighborhood_attention::check_problem(q, k, v, b, ak, av, kernel_size,
                                                               stride, dilation, is_causal, scale);
    STD_TORCH_CHECK(checked.head_dim <= kMostDim, "query's last dimension must be at most ",
                    kMostDim, " on CUDA, got ", checked.head_dim, ".");
    for (const int64_t size : {checked.batch, checked.heads, checked.extra}) {
      STD_TORCH_CHECK(size <= INT32_MAX,
                      "batch, heads and additional keys may be at most 2147483647, got ", size,
                      ".");
    }
    problem.dtype = dtype_of(q);
    problem.batch = static_cast<int>(checked.batch);
    problem.heads = static_cast<int>(checked.heads);
    problem.kv_heads = static_cast<int>(checked.kv_heads);
    problem.dim = static_cast<int>(checked.head_dim);
    problem.extra = static_cast<int>(checked.extra);
    problem.scale = static_cast<float>(scale);
    for (int a = 0; a < 3; ++a) {
      const auto& axis = checked.axis[a];
      problem.axis[a] = {static_cast<int>(axis.length), static_cast<int>(axis.kernel),
                         static_cast<int>(axis.stride), static_cast<int>(axis.dilation),
                         axis.causal ? 1 : 0};
    }
    problem.query = view(query);
    problem.key = view(key);
    problem.value = view(value);
    problem.aligned = is_aligned(query) && is_aligned(key) && is_aligned(value);
    if (bias.has_value()) problem.bias = bias->const_data_ptr();
    if (problem.extra > 0) {
      problem.extra_key = view(*extra_key);
      problem.extra_value = view(*extra_value);
      problem.aligned = problem.aligned && is_aligned(*extra_key) && is_aligned(*extra_value);
    }
  }

  bool empty() const { return problem.batch == 0 || problem.heads == 0; }
};

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_shape(const char* name, const Tensor& tensor, const Tensor& query, int64_t dims) {
  bool same = tensor.dim() == dims && tensor.device() == query.device();
  for (int64_t i = 0; same && i < dims; ++i) same = tensor.size(i) == query.size(i);
  STD_TORCH_CHECK(same, name, " must have query's device, and the first ", dims,
                  " sizes of its shape ", shape(query), ", got ", shape(tensor), ".");
}

std::tuple<Tensor, Tensor> forward_op(const Tensor& query, const Tensor& key, const Tensor& value,
                                      const OptionalTensor& bias,
                                      const OptionalTensor& additional_keys,
                                      const OptionalTensor& additional_values,
                                      const Ints& kernel_size, const Ints& stride,
                                      const Ints& dilation, const Ints& is_causal, double scale) {
  const torch::stable::accelerator::DeviceGuard guard(query.get_device_index());
  const Inputs inputs(query, key, value, bias, additional_keys, additional_values, kernel_size,
                      stride, dilation, is_causal, scale);
  Tensor out = torch::stable::new_empty(query, query.sizes());
  Tensor lse =
      torch::stable::new_empty(query, query.sizes().slice(0, query.dim() - 1), ScalarType::Float);
  if (!inputs.empty()) {
    const Forward arguments{inputs.problem, out.mutable_data_ptr(),
                            static_cast<float*>(lse.mutable_data_ptr())};
    STD_CUDA_CHECK(forward(arguments, current_stream(query)));
  }
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward_op(
    const Tensor& grad_out, const Tensor& grad_lse, const Tensor& query, const Tensor& key,
    const Tensor& value, const Tensor& out, const Tensor& lse, const OptionalTensor& bias,
    const OptionalTensor& additional_keys, const OptionalTensor& additional_values,
    const Ints& kernel_size, const Ints& stride, const Ints& dilation, const Ints& is_causal,
    double scale) {
  const torch::stable::accelerator::DeviceGuard guard(query.get_device_index());
  Inputs inputs(query, key, value, bias, additional_keys, additional_values, kernel_size, stride,
                dilation, is_causal, scale);
  check_shape("grad_out", grad_out, query, query.dim());
  check_shape("out", out, query, query.dim());
  check_shape("grad_lse", grad_lse, query, query.dim() - 1);
  check_shape("lse", lse, query, query.dim() - 1);
  STD_TORCH_CHECK(
      grad_out.scalar_type() == query.scalar_type() && out.scalar_type() == query.scalar_type() &&
          lse.scalar_type() == ScalarType::Float && grad_lse.scalar_type() == ScalarType::Float,
      "grad_out and out must have query's dtype; lse and grad_lse must be float32.");
  const Tensor go = with_contiguous_dim(grad_out);
  const Tensor o = with_contiguous_dim(out);
  const Tensor l = torch::stable::contiguous(lse);
  const Tensor gl = torch::stable::contiguous(grad_lse);
  inputs.problem.aligned = inputs.problem.aligned && is_aligned(go) && is_aligned(o);
  const Problem& p = inputs.problem;

  const auto like = [&](const Tensor& tensor) {
    return inputs.empty() ? torch::stable::new_zeros(query, tensor.sizes())
                          : torch::stable::new_empty(query, tensor.sizes());
  };
  const auto like_or_none = [&](const OptionalTensor& tensor) {
    return tensor.has_value() ? like(*tensor) : torch::stable::new_empty(query, Ints{0});
  };
  const auto scratch = [&](int64_t count) {
    return torch::stable::new_empty(query, Ints{count}, ScalarType::Float);
  };
  const auto floats = [](Tensor& tensor) {
    return tensor.numel() > 0 ? static_cast<float*>(tensor.mutable_data_ptr()) : nullptr;
  };
  const auto data = [](Tensor& tensor, bool present) {
    return present ? tensor.mutable_data_ptr() : nullptr;
  };
  Tensor grad_query = like(query), grad_key = like(key), grad_value = like(value);
  Tensor grad_bias = like_or_none(bias);
  Tensor grad_extra_key = like_or_none(additional_keys);
  Tensor grad_extra_value = like_or_none(additional_values);

  if (!inputs.empty()) {
    const int64_t extra_rows = int64_t{p.batch} * p.extra * p.kv_heads;
    Tensor delta = scratch(p.batch * p.tokens() * p.heads);
    Tensor of_bias = scratch(p.bias == nullptr ? 0 : bias_slots(p) * p.heads * p.bias_entries());
    Tensor of_extra = scratch(p.extra == 0 ? 0 : 2 * extra_slots(p) * extra_rows * p.dim);
    Backward arguments{};
    arguments.problem = p;
    arguments.grad_out = view(go);
    arguments.out = view(o);
    arguments.lse = static_cast<const float*>(l.const_data_ptr());
    arguments.grad_lse = static_cast<const float*>(gl.const_data_ptr());
    arguments.delta = floats(delta);
    arguments.bias_slots = floats(of_bias);
    arguments.extra_slots = floats(of_extra);
    arguments.grad_query = grad_query.mutable_data_ptr();
    arguments.grad_key = grad_key.mutable_data_ptr();
    arguments.grad_value = grad_value.mutable_data_ptr();
    arguments.grad_bias = data(grad_bias, p.bias != nullptr);
    arguments.grad_extra_key = data(grad_extra_key, p.extra > 0);
    arguments.grad_extra_value = data(grad_extra_value, p.extra > 0);
    STD_CUDA_CHECK(backward(arguments, current_stream(query)));
  }
  return {grad_query, grad_key, grad_value, grad_bias, grad_extra_key, grad_extra_value};
}

}  // namespace
}  // namespace saccade::na

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("na_forward", TORCH_BOX(&saccade::na::forward_op));
  m.impl("na_backward", TORCH_BOX(&saccade::na::backward_op));
}
