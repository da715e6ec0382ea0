// Every operator's schema: the ABI at a glance. Forward and backward are operators of their own;
// kernels are registered in the binding files. Ints in is_causal are 0 or 1. An absent optional
// input has an empty gradient of shape [0].
#include <torch/csrc/stable/library.h>

#include <string>

#include "common/isa.h"

STABLE_TORCH_LIBRARY(saccade, m) {
  m.def("isa() -> str");

  m.def(
      "causal_conv1d_forward(Tensor x, Tensor weight, Tensor? bias, Tensor? initial_states, "
      "Tensor? seq_idx, bool silu) -> Tensor out");
  m.def(
      "causal_conv1d_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor? bias, Tensor? "
      "initial_states, Tensor? seq_idx, bool silu) "
      "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor grad_initial_states)");

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

  m.def(
      "selective_scan_forward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, "
      "Tensor? z, Tensor? delta_bias, Tensor? initial_state, Tensor? seq_idx, bool delta_softplus, "
      "int[] directions, SymInt height, int chunk) "
      "-> (Tensor out, Tensor last_state, Tensor checkpoints)");
  m.def(
      "selective_scan_backward(Tensor grad_out, Tensor grad_last_state, Tensor u, Tensor delta, "
      "Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? "
      "initial_state, Tensor? seq_idx, Tensor checkpoints, bool delta_softplus, int[] directions, "
      "SymInt height, int chunk) "
      "-> (Tensor grad_u, Tensor grad_delta, Tensor grad_A, Tensor grad_B, Tensor grad_C, Tensor "
      "grad_D, Tensor grad_z, Tensor grad_delta_bias, Tensor grad_initial_state)");

  m.def(
      "ssd_scan_forward(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
      "Tensor? dt_bias, Tensor? initial_states, Tensor? seq_idx, bool dt_softplus, float dt_min, "
      "float dt_max, int chunk) "
      "-> (Tensor out, Tensor final_states, Tensor checkpoints)");
  m.def(
      "ssd_scan_backward(Tensor grad_out, Tensor grad_final_states, Tensor x, Tensor dt, Tensor A, "
      "Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? dt_bias, Tensor? initial_states, Tensor? "
      "seq_idx, Tensor checkpoints, bool dt_softplus, float dt_min, float dt_max, int chunk) "
      "-> (Tensor grad_x, Tensor grad_dt, Tensor grad_A, Tensor grad_B, Tensor grad_C, Tensor "
      "grad_D, Tensor grad_z, Tensor grad_dt_bias, Tensor grad_initial_states)");
}

namespace {

std::string isa() { return saccade::name(saccade::chosen_isa()); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(saccade, CompositeExplicitAutograd, m) { m.impl("isa", TORCH_BOX(&isa)); }
