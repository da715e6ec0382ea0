#include "transport/bind.h"

namespace saccade::transport {

namespace {

void check_weights(const Tensor& main, const Tensor& a, const Tensor& b, int64_t batch, int64_t n,
                   int64_t m) {
  STD_TORCH_CHECK(a.dim() == 2 && a.size(0) == batch && a.size(1) == n,
                  "a must have shape [B, n] = [", batch, ", ", n, "], got ", shape(a), ".");
  STD_TORCH_CHECK(b.dim() == 2 && b.size(0) == batch && b.size(1) == m,
                  "b must have shape [B, m] = [", batch, ", ", m, "], got ", shape(b), ".");
  const ScalarType type = compute_type("the cost", main);
  STD_TORCH_CHECK(a.scalar_type() == type && b.scalar_type() == type,
                  "a and b must have the type that the plan is computed in, float64 for float64 "
                  "and float32 for the rest.");
  STD_TORCH_CHECK(a.device() == main.device() && b.device() == main.device(),
                  "a and b must be on the device of the cost.");
}

}  // namespace

Sizes check_problem(const Tensor& cost, const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(cost.dim() == 3, "cost must have shape [B, n, m], got ", shape(cost), ".");
  check_weights(cost, a, b, cost.size(0), cost.size(1), cost.size(2));
  return {cost.size(0), cost.size(1), cost.size(2), 0};
}

Sizes check_points(const Tensor& x, const Tensor& y, const Tensor& a, const Tensor& b,
                   int64_t metric) {
  STD_TORCH_CHECK(x.dim() == 3, "x must have shape [B, n, D], got ", shape(x), ".");
  STD_TORCH_CHECK(y.dim() == 3 && y.size(0) == x.size(0) && y.size(2) == x.size(2),
                  "y must have shape [B, m, D] with x's [B, n, D] = ", shape(x), ", got ", shape(y),
                  ".");
  STD_TORCH_CHECK(x.scalar_type() == y.scalar_type() && x.device() == y.device(),
                  "y must have the type and the device of x.");
  STD_TORCH_CHECK(metric >= kSquared && metric <= kOneMinusDot, "metric must be 0, 1 or 2, got ",
                  metric, ".");
  check_weights(x, a, b, x.size(0), x.size(1), y.size(1));
  return {x.size(0), x.size(1), y.size(1), x.size(2)};
}

void check_options(const Options& options) {
  STD_TORCH_CHECK(options.eps > 0 && options.eps - options.eps == 0,
                  "eps must be finite and above 0, got ", options.eps, ".");
  STD_TORCH_CHECK(options.rho_a > 0 && options.rho_b > 0, "rho must be above 0, got ",
                  options.rho_a, " and ", options.rho_b, ".");
  STD_TORCH_CHECK(options.max_iter >= 1, "max_iter must be at least 1, got ", options.max_iter,
                  ".");
  STD_TORCH_CHECK(options.tol >= 0, "tol must be at least 0, got ", options.tol, ".");
  STD_TORCH_CHECK(options.scaling >= 0 && options.scaling < 1,
                  "eps_scaling must be at least 0 and below 1, got ", options.scaling, ".");
}

void check_init(const OptionalTensor& f, const OptionalTensor& g, const Tensor& a,
                const Tensor& b) {
  STD_TORCH_CHECK(f.has_value() == g.has_value(), "init must have both potentials or none.");
  check_shape("init f", f, a);
  check_shape("init g", g, b);
}

void check_shape(const char* name, const OptionalTensor& tensor, const Tensor& like) {
  if (!tensor.has_value()) return;
  bool same = tensor->dim() == like.dim() && tensor->device() == like.device();
  for (int64_t i = 0; same && i < like.dim(); ++i) same = tensor->size(i) == like.size(i);
  STD_TORCH_CHECK(same, name, " must have shape ", shape(like), " on its device, got ",
                  shape(*tensor), ".");
}

void check_length(const char* name, const OptionalTensor& tensor, int64_t length) {
  if (!tensor.has_value()) return;
  STD_TORCH_CHECK(tensor->dim() == 1 && tensor->size(0) == length, name, " must have shape [B] = [",
                  length, "], got ", shape(*tensor), ".");
}

double mass_tolerance(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double ? 1e-5 : 1e-2;
}

}  // namespace saccade::transport
