// Every operator's schema: the ABI at a glance. Forward and backward are operators of their own;
// kernels are registered in the binding files. Ints in is_causal are 0 or 1. An absent optional
// input has an empty gradient of shape [0].
#include <torch/csrc/stable/library.h>

#include <string>

#include "common/isa.h"

STABLE_TORCH_LIBRARY(saccade, m) {
  m.def("isa() -> str");

  // Sums in float64 whatever the inputs; a row whose slack is +inf takes no part. The list form has
  // one stacked [t, n] memory a gradient, or rows times as many tensors, row after row.
  m.def(
      "gem_backward(Tensor grad_out, Tensor memory, Tensor out, Tensor dual, Tensor gram, float "
      "memory_strength, float ridge) "
      "-> (Tensor grad_grad, Tensor grad_memory, Tensor grad_slack)");
  m.def("gem_combine(Tensor grad, Tensor memory, Tensor dual) -> Tensor");
  m.def(
      "gem_forward(Tensor grad, Tensor memory, Tensor? slack, float memory_strength, float ridge, "
      "bool always) "
      "-> (Tensor out, Tensor dual, Tensor status, Tensor gram)");
  m.def("gem_gram(Tensor memory, Tensor grad) -> (Tensor gram, Tensor dot)");
  m.def(
      "gem_nnqp(Tensor gram, Tensor linear, float lower, float ridge) "
      "-> (Tensor dual, Tensor status)");
  m.def(
      "gem_project_(Tensor(a!)[] grads, Tensor[] memory, int rows, Tensor? slack, float "
      "memory_strength, float ridge, bool always) "
      "-> (Tensor dual, Tensor status)");

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
