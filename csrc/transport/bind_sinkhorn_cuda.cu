// Torch's side of the CUDA kernels of entropic transport: checks and allocation. Nothing waits for
// the device, so every call fits into a CUDA graph. Half types are computed in float32.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <tuple>
#include <vector>

#include "transport/bind.h"
#include "transport/cuda_sinkhorn.cuh"

namespace saccade::transport {
namespace {

constexpr ScalarType kFloat = ScalarType::Float;

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

template <typename T = float>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}
const float* data(const Tensor& tensor) {
  return static_cast<const float*>(tensor.const_data_ptr());
}

Tensor make(const Tensor& like, const std::vector<int64_t>& shape, ScalarType type = kFloat) {
  return torch::stable::new_empty(like, shape, type);
}

void check_type(const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(compute_type(name, tensor) == kFloat, name,
                  " must be float16, bfloat16 or float32 on CUDA.");
}

// Blocks of a launch are numbered in 31 bits.
void check_sizes(const Sizes& sizes) {
  constexpr int64_t kMost = INT32_MAX;
  STD_TORCH_CHECK(sizes.dim <= kMost, "points may have at most ", kMost,
                  " coordinates on CUDA, got ", sizes.dim, ".");
  const int64_t longest = (sizes.rows > sizes.columns ? sizes.rows : sizes.columns) / 8 + 1;
  const int64_t chunks = sizes.dim / 32 + 1;
  const bool fits =
      sizes.batch == 0 || (longest <= kMost / chunks && longest * chunks <= kMost / sizes.batch);
  STD_TORCH_CHECK(fits, "B = ", sizes.batch, " problems of ", sizes.rows, " rows and ",
                  sizes.columns, " columns are too many for one call on CUDA.");
}

DeviceOptions device_options(const Options& options, ScalarType type) {
  return {options.eps,      options.rho_a, options.rho_b,   options.kl,
          options.max_iter, options.tol,   options.scaling, mass_tolerance(type)};
}

// Inputs in the type that is computed in.
struct Inputs {
  Tensor first, second, a, b;  // first: the cost, or x with y as the second
  DeviceCost cost;

  Inputs(const Tensor& matrix, const Tensor& wa, const Tensor& wb)
      : first(to_contiguous(matrix, kFloat)),
        second(first),
        a(to_contiguous(wa, kFloat)),
        b(to_contiguous(wb, kFloat)),
        cost{data(first), nullptr, nullptr, 0, kSquared} {}
  Inputs(const Tensor& x, const Tensor& y, const Tensor& wa, const Tensor& wb, int64_t metric)
      : first(to_contiguous(x, kFloat)),
        second(to_contiguous(y, kFloat)),
        a(to_contiguous(wa, kFloat)),
        b(to_contiguous(wb, kFloat)),
        cost{nullptr, data(first), data(second), static_cast<int>(x.size(2)),
             static_cast<Metric>(metric)} {}
};

// The small outputs of a batch.
struct Outputs {
  Tensor f, g, value, linear, n_iter, err, status;

  Outputs(const Tensor& like, const Sizes& s)
      : f(make(like, {s.batch, s.rows})),
        g(make(like, {s.batch, s.columns})),
        value(make(like, {s.batch})),
        linear(make(like, {s.batch})),
        n_iter(make(like, {s.batch}, ScalarType::Int)),
        err(make(like, {s.batch})),
        status(make(like, {s.batch}, ScalarType::Int)) {}
};

void run_forward(const Sizes& s, const Inputs& in, const OptionalTensor& init_f,
                 const OptionalTensor& init_g, const DeviceOptions& options, float* plan,
                 Outputs& out) {
  const OptionalTensor f0 = to_contiguous(init_f, kFloat), g0 = to_contiguous(init_g, kFloat);
  Tensor of_rows = make(in.a, {3, s.batch, s.rows}), of_columns = make(in.a, {s.batch, s.columns});
  Tensor progress = make(in.a, {s.batch, sizeof(Progress) / sizeof(double)}, ScalarType::Double);
  const int64_t rows = s.batch * s.rows;
  Entropic p{};
  p.batch = s.batch, p.n = s.rows, p.m = s.columns;
  p.cost = in.cost;
  p.a = data(in.a), p.b = data(in.b);
  p.init_f = data_or_null<float>(f0), p.init_g = data_or_null<float>(g0);
  p.options = options;
  p.plan = plan;
  p.f = data(out.f), p.g = data(out.g);
  p.value = data(out.value), p.linear = data(out.linear), p.err = data(out.err);
  p.n_iter = data<int32_t>(out.n_iter), p.status = data<int32_t>(out.status);
  p.lse_a = data(of_rows), p.first_a = p.lse_a + rows, p.second_a = p.lse_a + 2 * rows;
  p.lse_b = data(of_columns);
  p.progress = data<Progress>(progress);
  STD_CUDA_CHECK(solve(p, current_stream(in.a)));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& cost, const Tensor& a, const Tensor& b, const OptionalTensor& init_f,
    const OptionalTensor& init_g, double eps, double rho_a, double rho_b, bool kl, int64_t max_iter,
    double tol, double eps_scaling) {
  const torch::stable::accelerator::DeviceGuard guard(cost.get_device_index());
  check_type("cost", cost);
  const Sizes sizes = check_problem(cost, a, b);
  const Options options{eps, rho_a, rho_b, kl, max_iter, tol, eps_scaling};
  check_options(options);
  check_init(init_f, init_g, a, b);
  check_sizes(sizes);
  const Inputs in(cost, a, b);
  Tensor plan = make(cost, {sizes.batch, sizes.rows, sizes.columns});
  Outputs out(in.a, sizes);
  run_forward(sizes, in, init_f, init_g, device_options(options, cost.scalar_type()), data(plan),
              out);
  return {to_type(plan, cost.scalar_type()),
          out.f,
          out.g,
          out.value,
          out.linear,
          out.n_iter,
          out.err,
          out.status};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> points_forward(
    const Tensor& x, const Tensor& y, const Tensor& a, const Tensor& b,
    const OptionalTensor& init_f, const OptionalTensor& init_g, int64_t metric, double eps,
    double rho_a, double rho_b, bool kl, int64_t max_iter, double tol, double eps_scaling) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  check_type("x", x);
  const Sizes sizes = check_points(x, y, a, b, metric);
  const Options options{eps, rho_a, rho_b, kl, max_iter, tol, eps_scaling};
  check_options(options);
  check_init(init_f, init_g, a, b);
  check_sizes(sizes);
  const Inputs in(x, y, a, b, metric);
  Outputs out(in.a, sizes);
  run_forward(sizes, in, init_f, init_g, device_options(options, x.scalar_type()), nullptr, out);
  return {out.f, out.g, out.value, out.linear, out.n_iter, out.err, out.status};
}

// What came from above.
struct Grads {
  OptionalTensor plan, f, g, value, linear;

  Grads(const OptionalTensor& of_plan, const OptionalTensor& of_f, const OptionalTensor& of_g,
        const OptionalTensor& of_value, const OptionalTensor& of_linear, const Tensor& like,
        const Tensor& a, const Tensor& b) {
    check_shape("grad_plan", of_plan, like);
    check_shape("grad_f", of_f, a);
    check_shape("grad_g", of_g, b);
    check_length("grad_value", of_value, a.size(0));
    check_length("grad_value_linear", of_linear, a.size(0));
    plan = to_contiguous(of_plan, kFloat);
    f = to_contiguous(of_f, kFloat);
    g = to_contiguous(of_g, kFloat);
    value = to_contiguous(of_value, kFloat);
    linear = to_contiguous(of_linear, kFloat);
  }
};

// Runs the backward pass with what `set` adds to the problem.
template <typename F>
void run_backward(const Sizes& s, const Inputs& in, const Tensor& f, const Tensor& g,
                  const Grads& grads, const DeviceOptions& options, Tensor& of_a, Tensor& of_b,
                  const F& set) {
  const Tensor cf = to_contiguous(f, kFloat), cg = to_contiguous(g, kFloat);
  Tensor rows = make(in.a, {kRowScratch, s.batch, s.rows});
  Tensor columns = make(in.a, {kColumnScratch, s.batch, s.columns});
  Tensor descent = make(in.a, {s.batch, sizeof(Descent) / sizeof(double)}, ScalarType::Double);
  AdjointProblem p{};
  p.batch = s.batch, p.n = s.rows, p.m = s.columns;
  p.cost = in.cost;
  p.a = data(in.a), p.b = data(in.b);
  p.f = data(cf), p.g = data(cg);
  p.of_plan = data_or_null<float>(grads.plan);
  p.of_f = data_or_null<float>(grads.f), p.of_g = data_or_null<float>(grads.g);
  p.of_value = data_or_null<float>(grads.value), p.of_linear = data_or_null<float>(grads.linear);
  p.options = options;
  p.grad_a = data(of_a), p.grad_b = data(of_b);
  p.rows = data(rows), p.columns = data(columns);
  p.descent = data<Descent>(descent);
  set(p);
  STD_CUDA_CHECK(solve_adjoint(p, current_stream(in.a)));
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const OptionalTensor& grad_plan, const OptionalTensor& grad_f, const OptionalTensor& grad_g,
    const OptionalTensor& grad_value, const OptionalTensor& grad_value_linear, const Tensor& cost,
    const Tensor& a, const Tensor& b, const Tensor& plan, const Tensor& f, const Tensor& g,
    double eps, double rho_a, double rho_b, bool kl) {
  const torch::stable::accelerator::DeviceGuard guard(cost.get_device_index());
  check_type("cost", cost);
  const Sizes sizes = check_problem(cost, a, b);
  const Options options{eps, rho_a, rho_b, kl, 1, 0.0, 0.0};
  check_options(options);
  check_shape("plan", plan, cost);
  check_init(f, g, a, b);
  check_sizes(sizes);
  const Grads grads(grad_plan, grad_f, grad_g, grad_value, grad_value_linear, cost, a, b);
  const Inputs in(cost, a, b);
  const Tensor given = to_contiguous(plan, kFloat);
  Tensor of_cost = make(in.a, {sizes.batch, sizes.rows, sizes.columns});
  Tensor of_a = make(in.a, {sizes.batch, sizes.rows}),
         of_b = make(in.a, {sizes.batch, sizes.columns});
  run_backward(sizes, in, f, g, grads, device_options(options, cost.scalar_type()), of_a, of_b,
               [&](AdjointProblem& p) {
                 p.plan = data(given);
                 p.grad_cost = data(of_cost);
               });
  return {to_type(of_cost, cost.scalar_type()), of_a, of_b};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> points_backward(
    const OptionalTensor& grad_f, const OptionalTensor& grad_g, const OptionalTensor& grad_value,
    const OptionalTensor& grad_value_linear, const Tensor& x, const Tensor& y, const Tensor& a,
    const Tensor& b, const Tensor& f, const Tensor& g, int64_t metric, double eps, double rho_a,
    double rho_b, bool kl) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  check_type("x", x);
  const Sizes sizes = check_points(x, y, a, b, metric);
  const Options options{eps, rho_a, rho_b, kl, 1, 0.0, 0.0};
  check_options(options);
  check_init(f, g, a, b);
  check_sizes(sizes);
  const Grads grads(std::nullopt, grad_f, grad_g, grad_value, grad_value_linear, x, a, b);
  const Inputs in(x, y, a, b, metric);
  Tensor of_x = make(in.a, {sizes.batch, sizes.rows, sizes.dim});
  Tensor of_y = make(in.a, {sizes.batch, sizes.columns, sizes.dim});
  Tensor of_a = make(in.a, {sizes.batch, sizes.rows}),
         of_b = make(in.a, {sizes.batch, sizes.columns});
  run_backward(sizes, in, f, g, grads, device_options(options, x.scalar_type()), of_a, of_b,
               [&](AdjointProblem& p) {
                 p.grad_x = data(of_x);
                 p.grad_y = data(of_y);
               });
  return {to_type(of_x, x.scalar_type()), to_type(of_y, x.scalar_type()), of_a, of_b};
}

}  // namespace
}  // namespace saccade::transport

STABLE_TORCH_LIBRARY_IMPL(saccade, CUDA, m) {
  m.impl("sinkhorn_backward", TORCH_BOX(&saccade::transport::backward));
  m.impl("sinkhorn_forward", TORCH_BOX(&saccade::transport::forward));
  m.impl("sinkhorn_points_backward", TORCH_BOX(&saccade::transport::points_backward));
  m.impl("sinkhorn_points_forward", TORCH_BOX(&saccade::transport::points_forward));
}
