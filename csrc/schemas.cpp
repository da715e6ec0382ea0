// Every operator's schema: the ABI at a glance. Forward and backward are operators of their own;
// kernels are registered in the binding files. Ints in is_causal are 0 or 1. An absent optional
// input has an empty gradient of shape [0].
#include <torch/csrc/stable/library.h>

#include <string>

#include "common/isa.h"

STABLE_TORCH_LIBRARY(saccade, m) {
  m.def("isa() -> str");

  // -1 where there is no partner; the total and the duals in float32, or float64 for float64.
  m.def(
      "assignment_forward(Tensor cost, Tensor? mask, bool maximize) "
      "-> (Tensor row_to_col, Tensor col_to_row, Tensor total, Tensor row_dual, Tensor col_dual)");

  m.def(
      "causal_conv1d_forward(Tensor x, Tensor weight, Tensor? bias, Tensor? initial_states, "
      "Tensor? seq_idx, bool silu) -> Tensor out");
  m.def(
      "causal_conv1d_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor? bias, Tensor? "
      "initial_states, Tensor? seq_idx, bool silu) "
      "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor grad_initial_states)");

  // Weights that are absent are uniform and sum to 1; masses are integers inside.
  m.def(
      "emd_forward(Tensor cost, Tensor? a, Tensor? b) "
      "-> (Tensor plan, Tensor f, Tensor g, Tensor value, Tensor err, Tensor pivots, Tensor "
      "status)");

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
      "lif_forward(Tensor x, Tensor? v0, Tensor? tau, Tensor? v_threshold, Tensor? weight, Tensor? "
      "bias, Tensor? residual, float tau_value, float v_threshold_value, float v_reset, float "
      "alpha, int charge, bool hard_reset, bool detach_reset, int surrogate, bool smooth, bool "
      "store_v, int spike_code, SymInt row) "
      "-> (Tensor spikes, Tensor v_last, Tensor v_seq)");
  m.def(
      "lif_backward(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, Tensor x, "
      "Tensor? v0, Tensor? tau, Tensor? v_threshold, Tensor? weight, Tensor? bias, Tensor? "
      "residual, float tau_value, float v_threshold_value, float v_reset, float alpha, int charge, "
      "bool hard_reset, bool detach_reset, int surrogate, bool smooth, int wanted) "
      "-> (Tensor grad_x, Tensor grad_v0, Tensor grad_tau, Tensor grad_v_threshold, Tensor "
      "grad_weight, Tensor grad_bias, Tensor grad_residual)");

  // a and b have the type that the plan is computed in; rho is inf where a side is balanced.
  m.def(
      "sinkhorn_forward(Tensor cost, Tensor a, Tensor b, Tensor? init_f, Tensor? init_g, float "
      "eps, "
      "float rho_a, float rho_b, bool kl, int max_iter, float tol, float eps_scaling) "
      "-> (Tensor plan, Tensor f, Tensor g, Tensor value, Tensor value_linear, Tensor n_iter, "
      "Tensor err, Tensor status)");
  m.def(
      "sinkhorn_backward(Tensor? grad_plan, Tensor? grad_f, Tensor? grad_g, Tensor? grad_value, "
      "Tensor? grad_value_linear, Tensor cost, Tensor a, Tensor b, Tensor plan, Tensor f, Tensor "
      "g, "
      "float eps, float rho_a, float rho_b, bool kl) "
      "-> (Tensor grad_cost, Tensor grad_a, Tensor grad_b)");
  m.def(
      "sinkhorn_points_forward(Tensor x, Tensor y, Tensor a, Tensor b, Tensor? init_f, Tensor? "
      "init_g, int metric, float eps, float rho_a, float rho_b, bool kl, int max_iter, float tol, "
      "float eps_scaling) "
      "-> (Tensor f, Tensor g, Tensor value, Tensor value_linear, Tensor n_iter, Tensor err, "
      "Tensor status)");
  m.def(
      "sinkhorn_points_backward(Tensor? grad_f, Tensor? grad_g, Tensor? grad_value, Tensor? "
      "grad_value_linear, Tensor x, Tensor y, Tensor a, Tensor b, Tensor f, Tensor g, int metric, "
      "float eps, float rho_a, float rho_b, bool kl) "
      "-> (Tensor grad_x, Tensor grad_y, Tensor grad_a, Tensor grad_b)");

  m.def("spike_linear(Tensor spikes, Tensor weight, Tensor? bias) -> Tensor");

  m.def(
      "logpolar_sample_forward(Tensor image, Tensor? pyramid, Tensor fixation, Tensor theta0, "
      "Tensor scale, Tensor radii, Tensor edges, SymInt rays, bool normalized, int padding, int "
      "antialias) -> Tensor");
  m.def(
      "logpolar_sample_backward(Tensor grad_out, Tensor image, Tensor? pyramid, Tensor fixation, "
      "Tensor theta0, Tensor scale, Tensor radii, Tensor edges, bool normalized, int padding, int "
      "antialias, bool image_grad, bool pose_grad) "
      "-> (Tensor grad_image, Tensor grad_pyramid, Tensor grad_fixation, Tensor grad_theta0, "
      "Tensor grad_scale)");
  m.def(
      "logpolar_inverse_forward(Tensor logpolar, Tensor fixation, Tensor theta0, Tensor scale, "
      "Tensor radii, SymInt height, SymInt width, bool normalized, int law, float offset, bool "
      "mean, float fill) -> (Tensor out, Tensor count)");
  m.def(
      "logpolar_inverse_backward(Tensor grad_out, Tensor count, Tensor logpolar, Tensor fixation, "
      "Tensor theta0, Tensor scale, Tensor radii, bool normalized, int law, float offset, bool "
      "mean, bool logpolar_grad, bool pose_grad) "
      "-> (Tensor grad_logpolar, Tensor grad_fixation, Tensor grad_theta0, Tensor grad_scale)");

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

  // A plan is the planner's: csrc/statevector/plan.h. States are [B, 2**bits, 2], real and
  // imaginary parts; what is kept between forward and backward is the kernels' own.
  m.def(
      "statevector_forward(Tensor params, Tensor inputs, Tensor? state, Tensor plan, Tensor "
      "constants, int bits) -> Tensor");
  m.def(
      "statevector_backward(Tensor grad_out, Tensor params, Tensor inputs, Tensor? state, Tensor "
      "out, Tensor plan, Tensor constants, int bits) "
      "-> (Tensor grad_params, Tensor grad_inputs, Tensor grad_state)");
  m.def(
      "statevector_expval_forward(Tensor params, Tensor inputs, Tensor? state, Tensor plan, Tensor "
      "constants, int bits, int observables, bool keep) -> (Tensor values, Tensor kept)");
  m.def(
      "statevector_expval_backward(Tensor grad_values, Tensor params, Tensor inputs, Tensor? "
      "state, Tensor kept, Tensor plan, Tensor constants, int bits) "
      "-> (Tensor grad_params, Tensor grad_inputs, Tensor grad_state)");
}

namespace {

std::string isa() { return saccade::name(saccade::chosen_isa()); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(saccade, CompositeExplicitAutograd, m) { m.impl("isa", TORCH_BOX(&isa)); }
