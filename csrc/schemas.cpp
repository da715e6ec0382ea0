// Every operator's schema: the ABI at a glance. Forward and backward are operators of their own;
// kernels are registered in the binding files. Ints in is_causal are 0 or 1. An absent optional
// input has an empty gradient of shape [0].
#include <torch/csrc/stable/library.h>

#include <string>

#include "common/isa.h"

STABLE_TORCH_LIBRARY(saccade, m) {
  m.def("isa() -> str");

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

  m.def("spike_linear(Tensor spikes, Tensor weight, Tensor? bias) -> Tensor");
}

namespace {

std::string isa() { return saccade::name(saccade::chosen_isa()); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(saccade, CompositeExplicitAutograd, m) { m.impl("isa", TORCH_BOX(&isa)); }
