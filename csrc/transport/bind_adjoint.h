// Gradients of one problem by the implicit function theorem: conjugate gradients on the columns.
#pragma once

#include "transport/bind_solver.h"

namespace saccade::transport {

// Gradients of what a problem returned, each null where it is zero.
template <typename T>
struct Upstream {
  const T* plan;
  const T* f;
  const T* g;
  const T* value;
  const T* linear;

  // Whether only the value is asked for, whose gradient needs no system of equations.
  bool envelope() const {
    return plan == nullptr && f == nullptr && g == nullptr && linear == nullptr;
  }
};

// The solution of one problem's system, as its gradients need it.
template <typename T>
class AdjointSolver {
 public:
  AdjointSolver(int64_t n, int64_t m, bool parallel, bool points)
      : space_(n, m, parallel, points),
        points_(points),
        rows_(n),
        columns_(space_.padded),
        row_sums_(n + kSlack),
        inverse_(n + kSlack),
        p_(n + kSlack),
        x_(n + kSlack),
        phi_(n + kSlack),
        psi_(space_.padded),
        column_sums_(space_.padded),
        q_(space_.padded),
        y_(space_.padded),
        residual_(space_.padded),
        direction_(space_.padded),
        preconditioned_(space_.padded),
        step_(space_.padded),
        padded_b_(space_.padded),
        q_parts_(space_.blocks * space_.padded),
        plan_(!points && space_.pads() ? n * space_.padded : 1) {}

  int64_t padded() const { return space_.padded; }

  // plan is null for points.
  void solve(const Cost<T>& cost, const T* a, const T* b, const T* plan, const T* f, const T* g,
             const Upstream<T>& upstream, const Options& options) {
    rows_.set(a, options.rho_a, options.kl);
    std::copy_n(b, space_.m, padded_b_.data());
    std::fill(padded_b_.data() + space_.m, padded_b_.data() + space_.padded, T(0));
    columns_.set(padded_b_.data(), options.rho_b, options.kl);
    eps_ = options.eps;
    kl_ = options.kl;
    block_ = {cost,    0, space_.n, space_.m, space_.padded, static_cast<T>(1.0 / eps_),
              nullptr, 0, nullptr};
    if (!points_) hold(plan);
    const T inverse_eps = block_.inverse_eps;
    for (int64_t i = 0; i < space_.n; ++i) phi_.data()[i] = f[i] * inverse_eps;
    std::fill(psi_.data(), psi_.data() + space_.padded, -kInf<T>);
    for (int64_t j = 0; j < space_.m; ++j) psi_.data()[j] = g[j] * inverse_eps;

    std::fill_n(x_.data(), space_.n, T(0));
    std::fill_n(y_.data(), space_.padded, T(0));
    const T of_linear = upstream.linear == nullptr ? T(0) : *upstream.linear;
    const T of_value = upstream.value == nullptr ? T(0) : *upstream.value;
    adjoint_ = {upstream.plan, of_linear, of_linear + of_value, x_.data(), y_.data()};
    weigh();
    if (!upstream.envelope()) solve_system(upstream);
    of_value_ = of_value;
    f_ = f;
    g_ = g;
  }

  // Gradients of cost, or of the points of the rows.
  void cost_gradient(T* out) {
    space_.for_blocks(block_, [&](const Block<T>& block, int64_t) {
      kernels<T>().gradient(block, adjoint_, out);
    });
  }
  void point_gradient(const T* y_rows, T* out) {
    space_.for_blocks(block_, [&](const Block<T>& block, int64_t) {
      kernels<T>().point_gradient(block, phi_.data(), psi_.data(), adjoint_, y_rows, out);
    });
  }
  void weight_gradients(T* of_a, T* of_b) const {
    weight_gradient(rows_, columns_.total(), space_.n, x_.data(), f_, row_sums_.data(), of_a);
    weight_gradient(columns_, rows_.total(), space_.m, y_.data(), g_, column_sums_.data(), of_b);
  }

  // The same problem with x and y in each other's place, for the gradient of y; the system is
  // solved.
  void solve_as_mirror_of(const AdjointSolver& other, const Cost<T>& cost) {
    eps_ = other.eps_;
    block_ = {cost,    0, space_.n, space_.m, space_.padded, static_cast<T>(1.0 / eps_),
              nullptr, 0, nullptr};
    std::copy_n(other.psi_.data(), space_.n, phi_.data());
    std::fill(psi_.data(), psi_.data() + space_.padded, -kInf<T>);
    std::copy_n(other.phi_.data(), space_.m, psi_.data());
    std::copy_n(other.y_.data(), space_.n, x_.data());
    std::fill_n(y_.data(), space_.padded, T(0));
    std::copy_n(other.x_.data(), space_.m, y_.data());
    adjoint_ = other.adjoint_;
    adjoint_.x = x_.data();
    adjoint_.y = y_.data();
  }

 private:
  // The plan in whole vectors: where it lies, or copied.
  void hold(const T* plan) {
    block_.kernel_stride = space_.padded;
    // kernels of the backward pass only read it
    block_.kernel = space_.pads() ? plan_.data() : const_cast<T*>(plan);
    if (!space_.pads()) return;
    space_.for_blocks(block_, [&](const Block<T>& block, int64_t) {
      for (int64_t i = block.begin; i < block.end; ++i) {
        T* const to = plan_.data() + i * space_.padded;
        std::copy_n(plan + i * space_.m, space_.m, to);
        std::fill(to + space_.m, to + space_.padded, T(0));
      }
    });
  }

  void weigh() {
    const T* const sums = space_.add_columns(block_, [&](const Block<T>& block, Sums<T>* sums) {
      T* const q = q_parts_.data() + block.begin / space_.height * space_.padded;
      std::fill_n(q, space_.padded, T(0));
      kernels<T>().weigh(block, phi_.data(), psi_.data(), adjoint_, row_sums_.data(), p_.data(),
                         sums->columns, q);
    });
    std::copy_n(sums, space_.padded, column_sums_.data());
    std::copy_n(space_.add(q_parts_.data()), space_.padded, q_.data());
  }

  // P' (inverse * (P y)), or P' factor where y is null.
  const T* apply(const T* factor, const T* y) {
    return space_.add_columns(block_, [&](const Block<T>& block, Sums<T>* sums) {
      kernels<T>().apply(block, phi_.data(), psi_.data(), factor, y, sums->columns);
    });
  }

  // Where both sides are balanced the system determines y up to a constant, and what has a mean is
  // not in its range.
  void remove_mean(T* x) const {
    if (!rows_.balanced() || !columns_.balanced()) return;
    const double total = total_of(column_sums_.data(), space_.m);
    if (total == 0.0) return;
    const T mean = static_cast<T>(total_of(x, space_.m) / total);
    for (int64_t j = 0; j < space_.m; ++j) x[j] -= mean * column_sums_.data()[j];
  }

  double dot(const T* a, const T* b) const {
    return static_cast<double>(kernels<T>().dot(a, b, space_.padded));
  }

  void solve_system(const Upstream<T>& upstream) {
    const int64_t n = space_.n, m = space_.m, padded = space_.padded;
    const T eps = static_cast<T>(eps_);
    const T alpha_a = rows_.balanced() ? T(1) : static_cast<T>(1.0 + eps_ / rows_.rho());
    const T alpha_b = columns_.balanced() ? T(1) : static_cast<T>(1.0 + eps_ / columns_.rho());
    T *p = p_.data(), *q = q_.data(), *inverse = inverse_.data(), *c = column_sums_.data();
    for (int64_t i = 0; i < n; ++i) {
      const T r = row_sums_.data()[i];
      inverse[i] = r == T(0) ? T(0) : T(1) / (alpha_a * r);
      if (upstream.f != nullptr && r != T(0)) p[i] += eps * upstream.f[i];
      x_.data()[i] = inverse[i] * p[i];
    }
    for (int64_t j = 0; j < m; ++j) {
      if (upstream.g != nullptr && c[j] != T(0)) q[j] += eps * upstream.g[j];
    }
    T *r = residual_.data(), *d = direction_.data(), *z = preconditioned_.data(), *y = y_.data();
    const T* const first = apply(x_.data(), nullptr);
    for (int64_t j = 0; j < padded; ++j) r[j] = j < m && c[j] != T(0) ? q[j] - first[j] : T(0);
    remove_mean(r);

    const auto precondition = [&] {
      for (int64_t j = 0; j < padded; ++j) z[j] = r[j] == T(0) ? T(0) : r[j] / (alpha_b * c[j]);
    };
    precondition();
    std::copy_n(z, padded, d);
    double size = dot(r, z);
    constexpr double kTolerance = sizeof(T) == 4 ? 1e-6 : 1e-13;
    const double target = kTolerance * kTolerance * size;
    // in exact arithmetic m steps are enough
    const int64_t most = std::min<int64_t>(2 * m + 20, kMostSteps);
    for (int64_t step = 0; step < most && size > target; ++step) {
      const T* const applied = apply(inverse, d);
      T* const s = step_.data();
      for (int64_t j = 0; j < padded; ++j) s[j] = alpha_b * c[j] * d[j] - applied[j];
      const double curvature = dot(d, s);
      if (!(curvature > 0.0)) break;
      const T length = static_cast<T>(size / curvature);
      for (int64_t j = 0; j < padded; ++j) {
        y[j] += length * d[j];
        r[j] -= length * s[j];
      }
      remove_mean(r);
      precondition();
      const double next = dot(r, z);
      const T turn = static_cast<T>(next / size);
      for (int64_t j = 0; j < padded; ++j) d[j] = z[j] + turn * d[j];
      size = next;
    }
    T* const x = x_.data();
    space_.for_blocks(block_, [&](const Block<T>& block, int64_t) {
      kernels<T>().product(block, phi_.data(), psi_.data(), y, x);
      for (int64_t i = block.begin; i < block.end; ++i) x[i] = inverse[i] * (p[i] - x[i]);
    });
  }

  void weight_gradient(const Marginal<T>& side, double other_total, int64_t count, const T* x,
                       const T* potential, const T* sums, T* out) const {
    for (int64_t i = 0; i < count; ++i) {
      const double weight = side.weight(i), f = potential[i];
      if (weight == 0.0 || f == -std::numeric_limits<double>::infinity()) {
        out[i] = T(0);
        continue;
      }
      const double base = kl_ ? eps_ * side.log(i) : 0.0, share = sums[i] / weight;
      double of_solution = x[i], of_value = f - base;
      if (!side.balanced()) {
        of_solution *= std::exp(-(f - base) / side.rho()) * (kl_ ? 1.0 + eps_ / side.rho() : 1.0);
        of_value = side.rho() * (1.0 - share);
      }
      if (kl_) of_value += eps_ * (other_total - share);
      out[i] = static_cast<T>(of_solution + static_cast<double>(of_value_) * of_value);
    }
  }

  static constexpr int64_t kMostSteps = 500;
  Workspace<T> space_;
  const bool points_;
  Marginal<T> rows_, columns_;
  mutable AlignedScratch<T> row_sums_, inverse_, p_, x_, phi_, psi_, column_sums_, q_, y_,
      residual_, direction_, preconditioned_, step_, padded_b_, q_parts_, plan_;
  Block<T> block_{};
  Adjoint<T> adjoint_{};
  double eps_ = 0.0;
  T of_value_ = T(0);
  bool kl_ = false;
  const T* f_ = nullptr;
  const T* g_ = nullptr;
};

}  // namespace saccade::transport
