// What the bindings of entropic transport share between CPU and CUDA.
#pragma once

#include <cstdint>

#include "common/bind.h"
#include "transport/kernel.h"

namespace saccade::transport {

// B problems of n rows and m columns; points have `dim` coordinates.
struct Sizes {
  int64_t batch, rows, columns, dim;
};

struct Options {
  double eps, rho_a, rho_b;  // rho is +inf where the side is balanced
  bool kl;
  int64_t max_iter;
  double tol, scaling;  // scaling 0: none
};

// cost [B, n, m], a [B, n] and b [B, m]; the weights have the type that cost is computed in.
Sizes check_problem(const Tensor& cost, const Tensor& a, const Tensor& b);
// x [B, n, D] and y [B, m, D].
Sizes check_points(const Tensor& x, const Tensor& y, const Tensor& a, const Tensor& b,
                   int64_t metric);
void check_options(const Options& options);
// Potentials to start from, both or none: [B, n] and [B, m] like the weights.
void check_init(const OptionalTensor& f, const OptionalTensor& g, const Tensor& a, const Tensor& b);
// `name` has the shape of `like`, unless it is absent.
void check_shape(const char* name, const OptionalTensor& tensor, const Tensor& like);
void check_length(const char* name, const OptionalTensor& tensor, int64_t length);

// Relative difference of the two totals that counts as rounding.
double mass_tolerance(ScalarType type);

}  // namespace saccade::transport
