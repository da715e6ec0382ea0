// Every operator's schema: the ABI at a glance. Forward and backward are operators of their own;
// kernels are registered in the binding files. Ints in is_causal are 0 or 1. An absent optional
// input has an empty gradient of shape [0].
#include <torch/csrc/stable/library.h>

#include <string>

#include "common/isa.h"

STABLE_TORCH_LIBRARY(saccade, m) {
  m.def("isa() -> str");

  // weight [h, O, I, n]; points and scales by basis: see kan/bind.h. Unwanted gradients are empty.
  m.def(
      "kan_forward(Tensor x, Tensor weight, Tensor? base_weight, Tensor? bias, Tensor? points, "
      "Tensor? scales, int basis, int[] options) -> Tensor");
  m.def(
      "kan_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor? base_weight, Tensor? points, "
      "Tensor? scales, int basis, int[] options, int[] wanted) "
      "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_base_weight, Tensor grad_bias, Tensor "
      "grad_points, Tensor grad_scales)");
  m.def("kan_rational_forward(Tensor x, Tensor numerator, Tensor denominator) -> Tensor");
  m.def(
      "kan_rational_backward(Tensor grad_out, Tensor x, Tensor numerator, Tensor denominator) "
      "-> (Tensor grad_x, Tensor grad_numerator, Tensor grad_denominator)");

  m.def(
      "na_forward(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? additional_keys, "
      "Tensor? additional_values, int[] kernel_size, int[] stride, int[] dilation, int[] "
      "is_causal, float scale) "
      "-> (Tensor out, Tensor lse)");
  m.def(
      "na_backward(Tensor grad_out, Tensor grad_lse, Tensor query, Tensor key, Tensor value, "
      "Tensor out, Tensor lse, "
      "Tensor? bias, Tensor? additional_keys, Tensor? additional_values, int[] kernel_size, int[] "
      "stride, "
      "int[] dilation, int[] is_causal, float scale) "
      "-> (Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor grad_bias, Tensor "
      "grad_additional_keys, "
      "Tensor grad_additional_values)");
}

namespace {

std::string isa() { return saccade::name(saccade::chosen_isa()); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(saccade, CompositeExplicitAutograd, m) { m.impl("isa", TORCH_BOX(&isa)); }
