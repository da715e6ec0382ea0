// The wall between torch and the CUDA kernels of entropic transport: raw pointers, sizes and a
// stream. All numbers are float32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "transport/kernel.h"

namespace saccade::transport {

// Where the costs of a batch come from.
struct DeviceCost {
  const float* matrix;  // [B, n, m]; null: points
  const float* x;       // [B, n, dim]
  const float* y;       // [B, m, dim]
  int dim;
  Metric metric;
};

struct DeviceOptions {
  double eps, rho_a, rho_b;  // rho is +inf where the side is balanced
  bool kl;
  int64_t max_iter;
  double tol, scaling;    // scaling 0: none
  double mass_tolerance;  // relative difference of totals that counts as rounding
};

// What a problem's loop knows; on the device, so that the host never waits.
struct Progress {
  double eps;
  int32_t n_iter, done;
};

struct Entropic {
  int64_t batch, n, m;
  DeviceCost cost;
  const float *a, *b;            // [B, n] and [B, m]
  const float *init_f, *init_g;  // or null
  DeviceOptions options;
  float* plan;  // [B, n, m]; null: points
  float *f, *g;
  float *value, *linear, *err;
  int32_t *n_iter, *status;
  // Scratch: logarithms of the sums of both sides, a number and another one of every row.
  float *lse_a, *lse_b, *first_a, *second_a;
  Progress* progress;  // [B]
};
cudaError_t solve(const Entropic& problem, cudaStream_t stream);

// What a system's loop knows.
struct Descent {
  double size, target;
  int32_t done;
};

// Numbers of scratch a row and a column of the backward pass take.
constexpr int kRowScratch = 5, kColumnScratch = 6;

struct AdjointProblem {
  int64_t batch, n, m;
  DeviceCost cost;
  const float *a, *b, *f, *g;
  const float* plan;  // [B, n, m]; null: points
  // Gradients of what the forward pass returned, null where they are zero.
  const float *of_plan, *of_f, *of_g, *of_value, *of_linear;
  DeviceOptions options;
  float* grad_cost;        // [B, n, m]; null: points
  float *grad_x, *grad_y;  // [B, n, dim] and [B, m, dim]
  float *grad_a, *grad_b;  // [B, n] and [B, m]
  float *rows, *columns;   // [kRowScratch, B, n] and [kColumnScratch, B, m]
  Descent* descent;        // [B]
};
cudaError_t solve_adjoint(const AdjointProblem& problem, cudaStream_t stream);

}  // namespace saccade::transport
