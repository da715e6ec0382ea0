// What the bindings of every device share: checks, and a call's arguments as a problem.
#pragma once

#include <cstdint>

#include "common/bind.h"
#include "spiking/kernel.h"

namespace saccade::spiking {

// The options that both operators take, in the order of the schemas.
struct Options {
  double tau, threshold, reset, alpha;
  int64_t charge;
  bool hard_reset, detach_reset;
  int64_t surrogate;
  bool smooth;
};

// Raises where sizes or types do not fit together; the sentences for users are the Python front's.
Problem check_problem(const Tensor& x, const OptionalTensor& v0, const OptionalTensor& tau,
                      const OptionalTensor& v_threshold, const OptionalTensor& weight,
                      const OptionalTensor& bias, const OptionalTensor& residual,
                      const Options& options);

// Raises unless the last axis of `row` neurons divides them; bits alone need it.
void check_row(const Problem& problem, int64_t spike_code, int64_t row);

// Raises unless a gradient, where there is one, has these sizes.
void check_gradient(const char* name, const OptionalTensor& gradient, const Tensor& x, bool steps);

// The tensor itself where [A, C, I] is contiguous in it, else a contiguous copy; [T, ...] may have
// any stride on T.
Tensor with_contiguous_neurons(const Tensor& tensor);

}  // namespace saccade::spiking
