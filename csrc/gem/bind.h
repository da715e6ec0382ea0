// What the bindings of the gradient projection share between CPU and CUDA.
#pragma once

#include <cstdint>
#include <vector>

#include "common/bind.h"

namespace saccade::gem {

// B problems of t memories of P numbers.
struct Sizes {
  int64_t batch, rows, columns;
};

// memory [B, t, P] and grad [B, P] of one type.
Sizes check_problem(const Tensor& memory, const Tensor& grad);

// slack [B, t] on the device of `like`, or absent.
void check_slack(const OptionalTensor& slack, int64_t batch, int64_t rows, const Tensor& like);

void check_bounds(double memory_strength, double ridge);

// `name` has shape [B, t] of `sizes`, on the device of `like`.
void check_rows(const char* name, const Tensor& tensor, const Sizes& sizes, const Tensor& like);

// gram [B, t, t] and linear [B, t], float32 or float64.
Sizes check_quadratic(const Tensor& gram, const Tensor& linear);

// The list form: a stacked [t, n] memory for every gradient of n numbers, or `rows` lists of
// tensors of n numbers, where one of no numbers is zeros.
struct Lists {
  bool stacked;
  int64_t count, rows;
};
Lists check_lists(const std::vector<Tensor>& grads, const std::vector<Tensor>& memory,
                  int64_t rows);

// The tensor with its last dimension contiguous.
Tensor with_contiguous_columns(const Tensor& tensor);

// Whether dimensions `from` and later are dense in their order.
bool is_contiguous(const Tensor& tensor, int64_t from = 0);

// The part of a difference that is rounding, for inputs of a type.
double tolerance(ScalarType type);

}  // namespace saccade::gem
