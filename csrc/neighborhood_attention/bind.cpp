#include "neighborhood_attention/bind.h"

#include <torch/csrc/stable/ops.h>

namespace saccade::neighborhood_attention {

namespace {

void check_like(const char* name, const Tensor& tensor, const Tensor& query) {
  STD_TORCH_CHECK(tensor.scalar_type() == query.scalar_type() && tensor.device() == query.device(),
                  name, " must have query's dtype and device.");
}

// key or value: [B, *dims, h_kv, D] where query is [B, *dims, h, D].
void check_tokens(const char* name, const Tensor& tensor, const Tensor& query) {
  check_like(name, tensor, query);
  bool same = tensor.dim() == query.dim();
  for (int64_t i = 0; same && i < query.dim(); ++i) {
    same = i == query.dim() - 2 || tensor.size(i) == query.size(i);
  }
  STD_TORCH_CHECK(same, name, " must have query's shape ", shape(query), " but for the heads, got ",
                  shape(tensor), ".");
}

void check_extra(const char* name, const Tensor& tensor, const Tensor& key) {
  check_like(name, tensor, key);
  const int64_t d = key.dim();
  STD_TORCH_CHECK(tensor.dim() == 4 && tensor.size(0) == key.size(0) &&
                      tensor.size(2) == key.size(d - 2) && tensor.size(3) == key.size(d - 1),
                  name, " must be [", key.size(0), ", S, ", key.size(d - 2), ", ", key.size(d - 1),
                  "], got ", shape(tensor), ".");
}

}  // namespace

Problem check_problem(const Tensor& query, const Tensor& key, const Tensor& value,
                      const std::optional<Tensor>& bias,
                      const std::optional<Tensor>& additional_keys,
                      const std::optional<Tensor>& additional_values,
                      const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                      const std::vector<int64_t>& dilation, const std::vector<int64_t>& is_causal,
                      double scale) {
  STD_TORCH_CHECK(query.dim() >= 4 && query.dim() <= 6,
                  "query must have 4, 5 or 6 dimensions, got ", query.dim(), ".");
  const size_t axes = static_cast<size_t>(query.dim() - 3);
  STD_TORCH_CHECK(kernel_size.size() == axes && stride.size() == axes && dilation.size() == axes &&
                      is_causal.size() == axes,
                  "kernel_size, stride, dilation and is_causal must have ", axes, " entries each.");
  check_tokens("key", key, query);
  check_tokens("value", value, query);

  Problem problem{};
  const int64_t last = query.dim() - 1;
  problem.batch = query.size(0);
  problem.heads = query.size(last - 1);
  problem.kv_heads = key.size(last - 1);
  problem.head_dim = query.size(last);
  problem.scale = scale;
  STD_TORCH_CHECK(problem.head_dim >= 1, "query's last dimension must be at least 1, got 0.");
  STD_TORCH_CHECK(problem.kv_heads >= 1 && problem.heads % problem.kv_heads == 0 &&
                      value.size(last - 1) == problem.kv_heads,
                  "the heads of key and value must be equal and divide query's ", problem.heads,
                  ", got ", problem.kv_heads, " and ", value.size(last - 1), ".");
  for (Axis& axis : problem.axis) axis = {1, 1, 1, 1, false};
  for (size_t a = 0; a < axes; ++a) {
    const Axis axis{query.size(static_cast<int64_t>(a) + 1), kernel_size[a], stride[a], dilation[a],
                    is_causal[a] != 0};
    STD_TORCH_CHECK(
        axis.kernel >= 1 && axis.dilation >= 1 && axis.kernel <= axis.length / axis.dilation,
        "kernel_size times dilation must be at most the length of its axis: axis ", a, " has ",
        axis.length, ", got ", axis.kernel, " * ", axis.dilation, ".");
    STD_TORCH_CHECK(axis.stride >= 1 && axis.stride <= axis.kernel,
                    "stride must be between 1 and kernel_size: axis ", a, " has ", axis.stride,
                    " and ", axis.kernel, ".");
    STD_TORCH_CHECK(axis.length <= INT32_MAX, "an axis may have at most 2147483647 positions, got ",
                    axis.length, ".");
    problem.axis[3 - axes + a] = axis;
  }
  if (bias.has_value()) {
    check_like("bias", *bias, query);
    bool fits = bias->dim() == static_cast<int64_t>(axes) + 1 && bias->size(0) == problem.heads;
    for (size_t a = 0; fits && a < axes; ++a)
      fits = bias->size(static_cast<int64_t>(a) + 1) == 2 * kernel_size[a] - 1;
    STD_TORCH_CHECK(fits, "bias must be [heads, 2 * kernel_size - 1, ...], got ", shape(*bias),
                    ".");
  }
  STD_TORCH_CHECK(additional_keys.has_value() == additional_values.has_value(),
                  "additional_keys and additional_values go together.");
  if (additional_keys.has_value()) {
    check_extra("additional_keys", *additional_keys, key);
    check_extra("additional_values", *additional_values, key);
    problem.extra = additional_keys->size(1);
    STD_TORCH_CHECK(additional_values->size(1) == problem.extra, "additional_keys has ",
                    problem.extra, " tokens, additional_values ", additional_values->size(1), ".");
  }
  return problem;
}

Tensor with_contiguous_dim(const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1;
  return tensor.stride(last) == 1 || tensor.size(last) == 1 ? tensor
                                                            : torch::stable::contiguous(tensor);
}

}  // namespace saccade::neighborhood_attention
