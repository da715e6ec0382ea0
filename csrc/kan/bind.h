// What the bindings of every device share: the schema's codes, and checks.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/check.h"
#include "kan/kernel.h"

namespace saccade::kan {

using torch::stable::Tensor;

// Raises where sizes, types or options do not fit together; the sentences for users are the Python
// front's. points and scales, by basis (in float64 for float64, else in float32):
//   bspline    options [order, beyond]     points knots [1 | I, n + order + 1]
//   gaussian   options []                  points centres [n], scales widths [1 | n]
//   rswaf      options [published]         points centres [n], scales inverse widths [1 | n]
//   chebyshev  options []
//   fourier    options [constant]
//   wavelet    options [kind]              points shifts [h, O, I], scales [h, O, I]
Problem check_problem(const Tensor& x, const Tensor& weight,
                      const std::optional<Tensor>& base_weight, const std::optional<Tensor>& bias,
                      const std::optional<Tensor>& points, const std::optional<Tensor>& scales,
                      int64_t basis, const std::vector<int64_t>& options);

// Of the gradients' switches, one an input, each present in the call that wants it.
void check_wanted(const std::vector<int64_t>& wanted, const Tensor& grad_out,
                  const Problem& problem);

// x [N, G, L], numerator [1 | G, 1..9], denominator [1 | G, 0..8], of one type.
void check_rational(const Tensor& x, const Tensor& numerator, const Tensor& denominator);

}  // namespace saccade::kan
