#include "gem/bind.h"

#include "gem/kernel.h"

namespace saccade::gem {

namespace {

void check_like(const char* name, const Tensor& tensor, const char* other_name,
                const Tensor& other) {
  STD_TORCH_CHECK(tensor.scalar_type() == other.scalar_type() && tensor.device() == other.device(),
                  name, " must have the type and the device of ", other_name, ".");
}

void check_device(const char* name, const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(tensor.device() == like.device(), name,
                  " must be on the device of the other tensors.");
}

}  // namespace

Sizes check_problem(const Tensor& memory, const Tensor& grad) {
  STD_TORCH_CHECK(grad.dim() == 2, "grad must have shape [B, P], got ", shape(grad), ".");
  STD_TORCH_CHECK(memory.dim() == 3, "memory must have shape [B, t, P], got ", shape(memory), ".");
  STD_TORCH_CHECK(memory.size(0) == grad.size(0) && memory.size(2) == grad.size(1),
                  "memory must have shape [B, t, P] with grad's [B, P] = ", shape(grad), ", got ",
                  shape(memory), ".");
  check_like("memory", memory, "grad", grad);
  return {grad.size(0), memory.size(1), grad.size(1)};
}

void check_slack(const OptionalTensor& slack, int64_t batch, int64_t rows, const Tensor& like) {
  if (!slack.has_value()) return;
  STD_TORCH_CHECK(slack->dim() == 2 && slack->size(0) == batch && slack->size(1) == rows,
                  "slack must have shape [B, t] = [", batch, ", ", rows, "], got ", shape(*slack),
                  ".");
  check_device("slack", *slack, like);
}

void check_bounds(double memory_strength, double ridge) {
  STD_TORCH_CHECK(memory_strength >= 0 && memory_strength - memory_strength == 0,
                  "memory_strength must be finite and at least 0, got ", memory_strength, ".");
  STD_TORCH_CHECK(ridge >= 0 && ridge - ridge == 0, "ridge must be finite and at least 0, got ",
                  ridge, ".");
}

void check_rows(const char* name, const Tensor& tensor, const Sizes& sizes, const Tensor& like) {
  check_device(name, tensor, like);
  STD_TORCH_CHECK(
      tensor.dim() == 2 && tensor.size(0) == sizes.batch && tensor.size(1) == sizes.rows, name,
      " must have shape [B, t] = [", sizes.batch, ", ", sizes.rows, "], got ", shape(tensor), ".");
}

Sizes check_quadratic(const Tensor& gram, const Tensor& linear) {
  STD_TORCH_CHECK(linear.dim() == 2, "linear must have shape [B, t], got ", shape(linear), ".");
  const int64_t batch = linear.size(0), rows = linear.size(1);
  STD_TORCH_CHECK(
      gram.dim() == 3 && gram.size(0) == batch && gram.size(1) == rows && gram.size(2) == rows,
      "gram must have shape [B, t, t] = [", batch, ", ", rows, ", ", rows, "], got ", shape(gram),
      ".");
  check_like("linear", linear, "gram", gram);
  STD_TORCH_CHECK(
      gram.scalar_type() == ScalarType::Float || gram.scalar_type() == ScalarType::Double,
      "gram must be float32 or float64.");
  return {batch, rows, 0};
}

Lists check_lists(const std::vector<Tensor>& grads, const std::vector<Tensor>& memory,
                  int64_t rows) {
  const auto count = static_cast<int64_t>(grads.size());
  const auto given = static_cast<int64_t>(memory.size());
  STD_TORCH_CHECK(count >= 1 && rows >= 1, "grads must hold a tensor and rows be at least 1, got ",
                  count, " and ", rows, ".");
  STD_TORCH_CHECK(given == count || given == rows * count, "memory must hold ", count,
                  " stacked tensors or ", rows, " times as many, got ", given, ".");
  // one row in a stack is a row
  const Lists lists{given == count && rows > 1, count, rows};
  for (int64_t k = 0; k < count; ++k) {
    const int64_t numbers = grads[k].numel();
    check_like("every tensor of grads", grads[k], "the first one", grads[0]);
    if (lists.stacked) {
      STD_TORCH_CHECK(
          memory[k].numel() == rows * numbers && memory[k].dim() >= 1 && memory[k].size(0) == rows,
          "memory ", k, " must have shape [t, n] = [", rows, ", ", numbers, "], got ",
          shape(memory[k]), ".");
      check_like("every tensor of memory", memory[k], "grads", grads[0]);
      continue;
    }
    for (int64_t i = 0; i < rows; ++i) {
      const Tensor& row = memory[i * count + k];
      STD_TORCH_CHECK(row.numel() == numbers || row.numel() == 0, "row ", i,
                      " of memory must have ", numbers, " numbers for gradient ", k, ", got ",
                      row.numel(), ".");
      check_like("every tensor of memory", row, "grads", grads[0]);
    }
  }
  return lists;
}

Tensor with_contiguous_columns(const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1;
  return tensor.stride(last) == 1 || tensor.size(last) <= 1 ? tensor
                                                            : torch::stable::contiguous(tensor);
}

bool is_contiguous(const Tensor& tensor, int64_t from) {
  int64_t expected = 1;
  for (int64_t i = tensor.dim() - 1; i >= from; --i) {
    if (tensor.size(i) != 1 && tensor.stride(i) != expected) return false;
    expected *= tensor.size(i);
  }
  return true;
}

double tolerance(ScalarType type) {
  return type == ScalarType::Double ? kToleranceDouble : kToleranceFloat;
}

}  // namespace saccade::gem
