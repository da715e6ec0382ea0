// Torch's side of the CPU kernels of entropic transport: checks, allocation, and problems on
// threads, or one problem after the other with its rows on threads.
#include <torch/csrc/stable/library.h>

#include <memory>
#include <tuple>
#include <vector>

#include "transport/bind_adjoint.h"

namespace saccade::transport {
namespace {

template <typename T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}
template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
const T* at(const T* first, int64_t offset) {
  return first == nullptr ? nullptr : first + offset;
}

template <typename F>
void for_compute_type(ScalarType type, const F& f) {
  if (type == ScalarType::Double) {
    f(double{});
  } else {
    f(float{});
  }
}

// Runs task(solver, b) for every problem: one to a thread where there are as many, else all threads
// on one. The bits are the same.
template <typename Solver, typename F>
void for_problems(const Sizes& sizes, bool points, const F& task) {
  if (sizes.batch == 0) return;
  if (sizes.batch >= torch::stable::get_num_threads()) {
    parallel_tasks(sizes.batch, [&] {
      // on the heap: arrays are not movable with what points to them
      return [&, solver = std::make_unique<Solver>(sizes.rows, sizes.columns, false, points)](
                 int64_t b) { task(*solver, b); };
    });
    return;
  }
  Solver solver(sizes.rows, sizes.columns, true, points);
  for (int64_t b = 0; b < sizes.batch; ++b) task(solver, b);
}

// A cost that is there; one without numbers has no address.
template <typename T>
Cost<T> matrix(const T* first, int64_t columns) {
  static const T kNothing{};
  Cost<T> cost{};
  cost.matrix = first == nullptr ? &kNothing : first;
  cost.stride = columns;
  return cost;
}

// The small outputs of a problem, in the type that is computed in.
struct Outputs {
  Tensor f, g, value, linear, n_iter, err, status;

  Outputs(const Tensor& a, const Tensor& b)
      : f(torch::stable::new_empty(a, a.sizes())),
        g(torch::stable::new_empty(b, b.sizes())),
        value(torch::stable::new_empty(a, std::vector{a.size(0)})),
        linear(torch::stable::new_empty(a, std::vector{a.size(0)})),
        n_iter(torch::stable::new_empty(a, std::vector{a.size(0)}, ScalarType::Int)),
        err(torch::stable::new_empty(a, std::vector{a.size(0)})),
        status(torch::stable::new_empty(a, std::vector{a.size(0)}, ScalarType::Int)) {}

  template <typename T>
  void set(int64_t b, const Result<T>& result) {
    data<T>(value)[b] = result.value;
    data<T>(linear)[b] = result.linear;
    data<T>(err)[b] = result.err;
    data<int32_t>(n_iter)[b] = result.n_iter;
    data<int32_t>(status)[b] = result.status;
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& cost, const Tensor& a, const Tensor& b, const OptionalTensor& init_f,
    const OptionalTensor& init_g, double eps, double rho_a, double rho_b, bool kl, int64_t max_iter,
    double tol, double eps_scaling) {
  const Sizes sizes = check_problem(cost, a, b);
  const Options options{eps, rho_a, rho_b, kl, max_iter, tol, eps_scaling};
  check_options(options);
  check_init(init_f, init_g, a, b);
  const ScalarType type = compute_type("cost", cost);
  const Tensor c = to_contiguous(cost, type), wa = to_contiguous(a, type),
               wb = to_contiguous(b, type);
  const OptionalTensor f0 = to_contiguous(init_f, type), g0 = to_contiguous(init_g, type);
  Tensor plan = torch::stable::new_empty(cost, cost.sizes(), type);
  Outputs out(wa, wb);
  const double tolerance = mass_tolerance(cost.scalar_type());
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = sizes.rows, m = sizes.columns;
    for_problems<Solver<T>>(sizes, false, [&](Solver<T>& solver, int64_t i) {
      const Cost<T> rows = matrix(data<T>(c) + i * n * m, m);
      out.set(i, solver.solve(rows, data<T>(wa) + i * n, data<T>(wb) + i * m,
                              at(data_or_null<T>(f0), i * n), at(data_or_null<T>(g0), i * m),
                              options, tolerance, data<T>(plan) + i * n * m, data<T>(out.f) + i * n,
                              data<T>(out.g) + i * m));
    });
  });
  return {to_type(plan, cost.scalar_type()),
          out.f,
          out.g,
          out.value,
          out.linear,
          out.n_iter,
          out.err,
          out.status};
}

// Two sets of points as the kernels read them: x in rows, y in padded columns. What squared
// distances are made of is centred, so that it has the size of the distances.
template <typename T>
class PointSet {
 public:
  PointSet(int64_t n, int64_t m, int64_t padded, int64_t dim, Metric metric)
      : n_(n),
        m_(m),
        padded_(padded),
        dim_(dim),
        metric_(metric),
        x_(n * dim),
        y_rows_(m * dim),
        y_(padded * dim),
        x_square_(n),
        y_square_(padded) {}

  Cost<T> set(const T* x, const T* y) {
    for (int64_t k = 0; k < dim_; ++k) {
      double mean = 0.0;
      if (metric_ == kSquared && m_ > 0) {
        for (int64_t j = 0; j < m_; ++j) mean += static_cast<double>(y[j * dim_ + k]);
        mean /= static_cast<double>(m_);
      }
      const T centre = static_cast<T>(mean);
      for (int64_t i = 0; i < n_; ++i) x_[i * dim_ + k] = x[i * dim_ + k] - centre;
      for (int64_t j = 0; j < m_; ++j) {
        y_[k * padded_ + j] = y_rows_[j * dim_ + k] = y[j * dim_ + k] - centre;
      }
    }
    for (int64_t i = 0; i < n_; ++i) x_square_[i] = square(&x_[i * dim_]);
    for (int64_t j = 0; j < m_; ++j) y_square_[j] = square(&y_rows_[j * dim_]);
    return {nullptr, 0, x_.data(), y_.data(), x_square_.data(), y_square_.data(), dim_, metric_};
  }

  const T* y_rows() const { return y_rows_.data(); }

 private:
  T square(const T* x) const {
    T sum = T(0);
    for (int64_t k = 0; k < dim_; ++k) sum += x[k] * x[k];
    return sum;
  }

  const int64_t n_, m_, padded_, dim_;
  const Metric metric_;
  std::vector<T> x_, y_rows_, y_, x_square_, y_square_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> points_forward(
    const Tensor& x, const Tensor& y, const Tensor& a, const Tensor& b,
    const OptionalTensor& init_f, const OptionalTensor& init_g, int64_t metric, double eps,
    double rho_a, double rho_b, bool kl, int64_t max_iter, double tol, double eps_scaling) {
  const Sizes sizes = check_points(x, y, a, b, metric);
  const Options options{eps, rho_a, rho_b, kl, max_iter, tol, eps_scaling};
  check_options(options);
  check_init(init_f, init_g, a, b);
  const ScalarType type = compute_type("x", x);
  const Tensor px = to_contiguous(x, type), py = to_contiguous(y, type),
               wa = to_contiguous(a, type), wb = to_contiguous(b, type);
  const OptionalTensor f0 = to_contiguous(init_f, type), g0 = to_contiguous(init_g, type);
  Outputs out(wa, wb);
  const double tolerance = mass_tolerance(x.scalar_type());
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = sizes.rows, m = sizes.columns, dim = sizes.dim;
    for_problems<Solver<T>>(sizes, true, [&](Solver<T>& solver, int64_t i) {
      PointSet<T> points(n, m, solver.padded(), dim, static_cast<Metric>(metric));
      const Cost<T> cost = points.set(data<T>(px) + i * n * dim, data<T>(py) + i * m * dim);
      out.set(i,
              solver.solve(cost, data<T>(wa) + i * n, data<T>(wb) + i * m,
                           at(data_or_null<T>(f0), i * n), at(data_or_null<T>(g0), i * m), options,
                           tolerance, nullptr, data<T>(out.f) + i * n, data<T>(out.g) + i * m));
    });
  });
  return {out.f, out.g, out.value, out.linear, out.n_iter, out.err, out.status};
}

// What came from above, in the type that is computed in.
struct Grads {
  OptionalTensor plan, f, g, value, linear;

  template <typename T>
  Upstream<T> at(int64_t b, int64_t n, int64_t m) const {
    return {transport::at(data_or_null<T>(plan), b * n * m),
            transport::at(data_or_null<T>(f), b * n), transport::at(data_or_null<T>(g), b * m),
            transport::at(data_or_null<T>(value), b), transport::at(data_or_null<T>(linear), b)};
  }
};

Grads check_grads(const OptionalTensor& plan, const OptionalTensor& f, const OptionalTensor& g,
                  const OptionalTensor& value, const OptionalTensor& linear, const Tensor& like,
                  const Tensor& a, const Tensor& b, ScalarType type) {
  check_shape("grad_plan", plan, like);
  check_shape("grad_f", f, a);
  check_shape("grad_g", g, b);
  check_length("grad_value", value, a.size(0));
  check_length("grad_value_linear", linear, a.size(0));
  return {to_contiguous(plan, type), to_contiguous(f, type), to_contiguous(g, type),
          to_contiguous(value, type), to_contiguous(linear, type)};
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const OptionalTensor& grad_plan, const OptionalTensor& grad_f, const OptionalTensor& grad_g,
    const OptionalTensor& grad_value, const OptionalTensor& grad_value_linear, const Tensor& cost,
    const Tensor& a, const Tensor& b, const Tensor& plan, const Tensor& f, const Tensor& g,
    double eps, double rho_a, double rho_b, bool kl) {
  const Sizes sizes = check_problem(cost, a, b);
  const Options options{eps, rho_a, rho_b, kl, 1, 0.0, 0.0};
  check_options(options);
  check_shape("plan", plan, cost);
  check_init(f, g, a, b);
  const ScalarType type = compute_type("cost", cost);
  const Grads grads =
      check_grads(grad_plan, grad_f, grad_g, grad_value, grad_value_linear, cost, a, b, type);
  const Tensor c = to_contiguous(cost, type), p = to_contiguous(plan, type),
               wa = to_contiguous(a, type), wb = to_contiguous(b, type),
               cf = to_contiguous(f, type), cg = to_contiguous(g, type);
  Tensor of_cost = torch::stable::new_empty(cost, cost.sizes(), type);
  Tensor of_a = torch::stable::new_empty(wa, a.sizes());
  Tensor of_b = torch::stable::new_empty(wb, b.sizes());
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = sizes.rows, m = sizes.columns;
    for_problems<AdjointSolver<T>>(sizes, false, [&](AdjointSolver<T>& solver, int64_t i) {
      const Cost<T> rows = matrix(data<T>(c) + i * n * m, m);
      solver.solve(rows, data<T>(wa) + i * n, data<T>(wb) + i * m, data<T>(p) + i * n * m,
                   data<T>(cf) + i * n, data<T>(cg) + i * m, grads.at<T>(i, n, m), options);
      solver.cost_gradient(data<T>(of_cost) + i * n * m);
      solver.weight_gradients(data<T>(of_a) + i * n, data<T>(of_b) + i * m);
    });
  });
  return {to_type(of_cost, cost.scalar_type()), of_a, of_b};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> points_backward(
    const OptionalTensor& grad_f, const OptionalTensor& grad_g, const OptionalTensor& grad_value,
    const OptionalTensor& grad_value_linear, const Tensor& x, const Tensor& y, const Tensor& a,
    const Tensor& b, const Tensor& f, const Tensor& g, int64_t metric, double eps, double rho_a,
    double rho_b, bool kl) {
  const Sizes sizes = check_points(x, y, a, b, metric);
  const Options options{eps, rho_a, rho_b, kl, 1, 0.0, 0.0};
  check_options(options);
  check_init(f, g, a, b);
  const ScalarType type = compute_type("x", x);
  const Grads grads =
      check_grads(std::nullopt, grad_f, grad_g, grad_value, grad_value_linear, x, a, b, type);
  const Tensor px = to_contiguous(x, type), py = to_contiguous(y, type),
               wa = to_contiguous(a, type), wb = to_contiguous(b, type),
               cf = to_contiguous(f, type), cg = to_contiguous(g, type);
  Tensor of_x = torch::stable::new_empty(x, x.sizes(), type);
  Tensor of_y = torch::stable::new_empty(y, y.sizes(), type);
  Tensor of_a = torch::stable::new_empty(wa, a.sizes());
  Tensor of_b = torch::stable::new_empty(wb, b.sizes());
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = sizes.rows, m = sizes.columns, dim = sizes.dim;
    // the gradient of y is that of x with the two sides in each other's place
    struct Both {
      AdjointSolver<T> solver, mirror;
      Both(int64_t rows, int64_t columns, bool parallel, bool points)
          : solver(rows, columns, parallel, points), mirror(columns, rows, parallel, points) {}
    };
    for_problems<Both>(sizes, true, [&](Both& both, int64_t i) {
      const auto kind = static_cast<Metric>(metric);
      PointSet<T> points(n, m, both.solver.padded(), dim, kind);
      const T *x_of = data<T>(px) + i * n * dim, *y_of = data<T>(py) + i * m * dim;
      both.solver.solve(points.set(x_of, y_of), data<T>(wa) + i * n, data<T>(wb) + i * m, nullptr,
                        data<T>(cf) + i * n, data<T>(cg) + i * m, grads.at<T>(i, n, m), options);
      both.solver.point_gradient(points.y_rows(), data<T>(of_x) + i * n * dim);
      both.solver.weight_gradients(data<T>(of_a) + i * n, data<T>(of_b) + i * m);
      PointSet<T> turned(m, n, both.mirror.padded(), dim, kind);
      both.mirror.solve_as_mirror_of(both.solver, turned.set(y_of, x_of));
      both.mirror.point_gradient(turned.y_rows(), data<T>(of_y) + i * m * dim);
    });
  });
  return {to_type(of_x, x.scalar_type()), to_type(of_y, x.scalar_type()), of_a, of_b};
}

}  // namespace
}  // namespace saccade::transport

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("sinkhorn_backward", TORCH_BOX(&saccade::transport::backward));
  m.impl("sinkhorn_forward", TORCH_BOX(&saccade::transport::forward));
  m.impl("sinkhorn_points_backward", TORCH_BOX(&saccade::transport::points_backward));
  m.impl("sinkhorn_points_forward", TORCH_BOX(&saccade::transport::points_forward));
}
