#include "scan/bind.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>

#include "common/check.h"

namespace saccade::scan {

namespace {

constexpr int64_t kMostSteps = INT32_MAX;

std::string text(const Ints& sizes) {
  std::ostringstream out;
  out << "[";
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << "]";
  return out.str();
}

void check_optional(const char* name, const OptionalTensor& tensor, const Ints& expected) {
  if (tensor.has_value()) check_shape(name, *tensor, expected);
}

void check_sequence(const OptionalTensor& seq_idx, int64_t batch, int64_t length) {
  if (!seq_idx.has_value()) return;
  STD_TORCH_CHECK(seq_idx->scalar_type() == ScalarType::Int, "seq_idx must be int32.");
  check_shape("seq_idx", *seq_idx, {batch, length});
}

void check_length(int64_t length, int64_t chunk) {
  STD_TORCH_CHECK(length <= kMostSteps, "L may be at most 2147483647, got ", length, ".");
  STD_TORCH_CHECK(chunk >= 0, "chunk must be at least 0, got ", chunk, ".");
}

// The groups of a variable B or C, 0 for a constant one.
int64_t coefficient_groups(const char* name, const Tensor& tensor,
                           const SelectiveProblem& problem) {
  if (tensor.dim() == 3) {
    check_shape(name, tensor, {problem.paths, problem.channels, problem.state});
    return 0;
  }
  STD_TORCH_CHECK(tensor.dim() == 5, name, " must have 3 or 5 dimensions, got ", tensor.dim(), ".");
  const int64_t groups = tensor.size(2);
  STD_TORCH_CHECK(groups >= 1 && problem.channels % groups == 0, "the groups of ", name,
                  " must divide D = ", problem.channels, ", got ", groups, ".");
  check_shape(name, tensor, {problem.batch, problem.paths, groups, problem.state, problem.length});
  return groups;
}

}  // namespace

void check_shape(const char* name, const Tensor& tensor, const Ints& expected) {
  bool same = tensor.dim() == static_cast<int64_t>(expected.size());
  for (size_t i = 0; same && i < expected.size(); ++i) {
    same = tensor.size(static_cast<int64_t>(i)) == expected[i];
  }
  STD_TORCH_CHECK(same, name, " must have shape ", text(expected), ", got ", shape(tensor), ".");
}

SelectiveProblem check_selective(const Tensor& u, const Tensor& delta, const Tensor& a,
                                 const Tensor& b, const Tensor& c, const OptionalTensor& skip,
                                 const OptionalTensor& z, const OptionalTensor& delta_bias,
                                 const OptionalTensor& initial_state, const OptionalTensor& seq_idx,
                                 bool softplus, const Ints& directions, int64_t height,
                                 int64_t chunk) {
  STD_TORCH_CHECK(u.dim() == 3, "u must have 3 dimensions, got ", u.dim(), ".");
  STD_TORCH_CHECK(a.dim() == 3, "A must have 3 dimensions, got ", a.dim(), ".");
  SelectiveProblem problem{};
  problem.batch = u.size(0);
  problem.channels = u.size(1);
  problem.length = u.size(2);
  problem.paths = static_cast<int64_t>(directions.size());
  problem.state = a.size(2);
  problem.height = height;
  problem.chunk = chunk;
  problem.directions = directions.data();
  problem.softplus = softplus;
  const auto [batch, channels, length, state, paths] =
      std::tuple(problem.batch, problem.channels, problem.length, problem.state, problem.paths);
  STD_TORCH_CHECK(paths >= 1, "directions must have at least 1 entry, got 0.");
  for (const int64_t direction : directions) {
    STD_TORCH_CHECK(direction >= 0 && direction <= 3, "directions must be 0, 1, 2 or 3, got ",
                    direction, ".");
  }
  STD_TORCH_CHECK(height >= 1 && length % height == 0, "height must divide L = ", length, ", got ",
                  height, ".");
  check_length(length, chunk);
  STD_TORCH_CHECK(state >= 1, "A must have at least 1 state, got 0.");
  check_shape("delta", delta, {batch, paths, channels, length});
  check_shape("A", a, {paths, channels, state});
  const int64_t groups_b = coefficient_groups("B", b, problem);
  const int64_t groups_c = coefficient_groups("C", c, problem);
  STD_TORCH_CHECK(groups_b == 0 || groups_c == 0 || groups_b == groups_c,
                  "B and C must have equally many groups, got ", groups_b, " and ", groups_c, ".");
  problem.groups = std::max<int64_t>({groups_b, groups_c, 1});
  check_optional("D", skip, {paths, channels});
  check_optional("z", z, {batch, channels, length});
  check_optional("delta_bias", delta_bias, {paths, channels});
  check_optional("initial_state", initial_state, {batch, paths, channels, state});
  check_sequence(seq_idx, batch, length);
  STD_TORCH_CHECK(!seq_idx.has_value() || (paths == 1 && directions[0] <= 1),
                  "seq_idx is for one path along a sequence.");
  return problem;
}

SsdProblem check_ssd(const Tensor& x, const Tensor& dt, const Tensor& a, const Tensor& b,
                     const Tensor& c, const OptionalTensor& skip, const OptionalTensor& z,
                     const OptionalTensor& dt_bias, const OptionalTensor& initial_states,
                     const OptionalTensor& seq_idx, bool softplus, double dt_min, double dt_max,
                     int64_t chunk) {
  STD_TORCH_CHECK(x.dim() == 4, "x must have 4 dimensions, got ", x.dim(), ".");
  STD_TORCH_CHECK(b.dim() == 4, "B must have 4 dimensions, got ", b.dim(), ".");
  const int64_t batch = x.size(0), length = x.size(1), heads = x.size(2), width = x.size(3);
  const int64_t groups = b.size(2), state = b.size(3);
  check_length(length, chunk);
  STD_TORCH_CHECK(groups >= 1 && heads % groups == 0, "the groups of B must divide H = ", heads,
                  ", got ", groups, ".");
  STD_TORCH_CHECK(state >= 1, "B must have at least 1 state, got 0.");
  check_shape("dt", dt, {batch, length, heads});
  check_shape("A", a, {heads});
  check_shape("B", b, {batch, length, groups, state});
  check_shape("C", c, {batch, length, groups, state});
  check_optional("D", skip, {heads, width});
  check_optional("z", z, {batch, length, heads, width});
  check_optional("dt_bias", dt_bias, {heads});
  check_optional("initial_states", initial_states, {batch, heads, width, state});
  check_sequence(seq_idx, batch, length);
  return {batch, length, heads, width, state, groups, chunk, softplus, dt_min, dt_max};
}

ConvProblem check_conv(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                       const OptionalTensor& initial_states, const OptionalTensor& seq_idx,
                       bool silu) {
  STD_TORCH_CHECK(x.dim() == 3, "x must have 3 dimensions, got ", x.dim(), ".");
  STD_TORCH_CHECK(weight.dim() == 2, "weight must have 2 dimensions, got ", weight.dim(), ".");
  const int64_t batch = x.size(0), channels = x.size(1), length = x.size(2);
  const int64_t width = weight.size(1);
  STD_TORCH_CHECK(width >= 1 && width <= 16, "weight must have 1 to 16 columns, got ", width, ".");
  check_length(length, 0);
  check_shape("weight", weight, {channels, width});
  check_optional("bias", bias, {channels});
  check_optional("initial_states", initial_states, {batch, channels, width - 1});
  check_sequence(seq_idx, batch, length);
  STD_TORCH_CHECK(!seq_idx.has_value() || !initial_states.has_value(),
                  "seq_idx and initial_states cannot be given together.");
  return {batch, channels, length, width, silu};
}

Tensor new_like(const Tensor& like, ScalarType type) {
  const int64_t rank = like.dim();
  Ints sizes(like.sizes().begin(), like.sizes().end());
  if (like.stride(rank - 2) != 1 || like.stride(rank - 1) == 1) {
    return torch::stable::new_empty(like, sizes, type);
  }
  std::swap(sizes[rank - 2], sizes[rank - 1]);
  return torch::stable::transpose(torch::stable::new_empty(like, sizes, type), rank - 2, rank - 1);
}

Tensor new_checkpoints(const Tensor& like, const Ints& sizes, int64_t axis, ScalarType type) {
  Tensor checkpoints = torch::stable::new_empty(like, sizes, type);
  const int64_t count = sizes[static_cast<size_t>(axis)];
  if (count > 0) {
    Tensor unused = torch::stable::narrow(checkpoints, axis, count - 1, 1);
    torch::stable::zero_(unused);
  }
  return checkpoints;
}

}  // namespace saccade::scan
