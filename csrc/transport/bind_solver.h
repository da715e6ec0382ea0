// Sinkhorn's iteration on one problem: which kernel runs when.
#pragma once

#include "transport/bind_workspace.h"

namespace saccade::transport {

template <typename T>
struct Result {
  T value, linear, err;
  int32_t n_iter, status;
};

enum Status : int32_t { kConverged, kMaxIter, kInfeasible, kNotFinite };

template <typename T>
double total_of(const T* x, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]);
  return sum;
}

// One side's weights and logarithms, with slack behind them.
template <typename T>
class Marginal {
 public:
  explicit Marginal(int64_t count) : count_(count), weight_(count + kSlack), log_(count + kSlack) {}

  void set(const T* weight, double rho, bool kl) {
    rho_ = rho;
    kl_ = kl;
    for (int64_t i = 0; i < count_; ++i) {
      // what no measure has is not a number
      weight_.data()[i] = weight[i] >= T(0) ? weight[i] : std::numeric_limits<T>::quiet_NaN();
      log_.data()[i] = std::log(weight_.data()[i]);
    }
    std::fill_n(weight_.data() + count_, kSlack, T(0));
    std::fill_n(log_.data() + count_, kSlack, T(0));
  }

  Side<T> at(double eps) const {
    const bool is_balanced = balanced();
    return {weight_.data(), kl_ ? log_.data() : nullptr,
            is_balanced ? T(1) : static_cast<T>(rho_ / (rho_ + eps)), is_balanced};
  }

  bool balanced() const { return std::isinf(rho_); }
  double rho() const { return rho_; }
  T weight(int64_t i) const { return weight_.data()[i]; }
  T log(int64_t i) const { return log_.data()[i]; }
  double total() const { return total_of(weight_.data(), count_); }

  // This side's part of the value: potentials against the marginal, and what a relaxed one costs.
  double value(const T* sum, const T* potential, double eps) const {
    double value = 0.0;
    for (int64_t i = 0; i < count_; ++i) {
      const double mass = sum[i], weight = weight_.data()[i], log = log_.data()[i];
      if (mass != 0.0) value += mass * (potential[i] - (kl_ ? eps * log : 0.0));
      if (balanced()) continue;
      const double entropy = mass > 0.0 ? mass * (std::log(mass) - log) : mass;
      value += rho_ * (entropy - mass + weight);
    }
    return value;
  }

  // Whether a balanced side has a number with weight and without a partner.
  bool stuck(const T* potential) const {
    bool any = false;
    for (int64_t i = 0; i < count_; ++i)
      any |= weight_.data()[i] > T(0) && potential[i] == -kInf<T>;
    return any && balanced();
  }

 private:
  const int64_t count_;
  double rho_ = 0.0;
  bool kl_ = false;
  // data() of scratch is not const
  mutable AlignedScratch<T> weight_, log_;
};

template <typename T>
class Solver {
 public:
  // points: K is never kept. parallel: blocks of rows on all threads.
  Solver(int64_t n, int64_t m, bool parallel, bool points)
      : space_(n, m, parallel, points),
        points_(points),
        rows_(n),
        columns_(space_.padded),
        shift_(n + kSlack),
        u_(n + kSlack),
        phi_(n + kSlack),
        row_sums_(n + kSlack),
        h_(space_.padded),
        v_(space_.padded),
        padded_b_(space_.padded),
        kernel_(!points && space_.pads() ? n * space_.padded : 1),
        largest_(1) {}

  int64_t padded() const { return space_.padded; }

  // plan: null for points. f, g: outputs; init_f, init_g: null, or potentials to start from.
  Result<T> solve(const Cost<T>& cost, const T* a, const T* b, const T* init_f, const T* init_g,
                  const Options& options, double tolerance, T* plan, T* f, T* g) {
    rows_.set(a, options.rho_a, options.kl);
    std::copy_n(b, space_.m, padded_b_.data());
    std::fill(padded_b_.data() + space_.m, padded_b_.data() + space_.padded, T(0));
    columns_.set(padded_b_.data(), options.rho_b, options.kl);
    block_ = {cost, 0, space_.n, space_.m, space_.padded, T(0), nullptr, 0, nullptr};
    if (!points_) {
      block_.kernel = space_.pads() ? kernel_.data() : plan;
      block_.kernel_stride = space_.padded;
    }
    set_eps(options.scaling > 0 ? std::max(options.eps, spread()) : options.eps);
    start(init_f, init_g);
    const int32_t n_iter = iterate(options);
    return finish(options, tolerance, n_iter, plan, f, g);
  }

 private:
  void set_eps(double eps) {
    eps_ = eps;
    block_.inverse_eps = static_cast<T>(1.0 / eps);
    side_a_ = rows_.at(eps);
    side_b_ = columns_.at(eps);
  }

  // With tol 0 all sweeps are made, whatever rounding says.
  bool converged(const Options& options) const {
    return options.tol > 0 && space_.moved <= options.tol;
  }

  Rows<T> rows() { return {side_a_, shift_.data(), u_.data()}; }
  const T* phi_or_null() { return has_phi_ ? phi_.data() : nullptr; }

  double spread() {
    std::vector<T> least(space_.blocks, kInf<T>), largest(space_.blocks, -kInf<T>);
    space_.for_blocks(block_, [&](const Block<T>& block, int64_t i) {
      kernels<T>().range(block, &least[i], &largest[i]);
    });
    const T low = *std::min_element(least.begin(), least.end());
    const T high = *std::max_element(largest.begin(), largest.end());
    return high > low ? static_cast<double>(high) - static_cast<double>(low) : 0.0;
  }

  void start(const T* init_f, const T* init_g) {
    const T inverse = block_.inverse_eps;
    for (int64_t j = 0; j < space_.padded; ++j) {
      const bool counts = j < space_.m && padded_b_.data()[j] != T(0);
      const bool given = counts && init_g != nullptr && init_g[j] != -kInf<T>;
      h_.data()[j] = given ? init_g[j] * inverse : counts ? T(0) : -kInf<T>;
    }
    has_phi_ = init_f != nullptr;
    for (int64_t i = 0; has_phi_ && i < space_.n; ++i) phi_.data()[i] = init_f[i] * inverse;
    stale_ = true;
  }

  int32_t iterate(const Options& options) {
    int32_t n_iter = 0;
    while (true) {
      update();
      if (eps_ > options.eps) {
        if (!stale_) absorb();
        descend(std::max(options.eps, eps_ * options.scaling));
        continue;
      }
      if (++n_iter >= options.max_iter || converged(options)) return n_iter;
    }
  }

  // One sweep: u, then v. K is stale where the next one has to make it anew.
  void update() {
    const Rows<T> rows = this->rows();
    const T* const sums = space_.add_columns(block_, [&](const Block<T>& block, Sums<T>* sums) {
      if (stale_) {
        kernels<T>().exact(block, rows, h_.data(), phi_or_null(), sums);
      } else {
        kernels<T>().sweep(block, rows, v_.data(), sums);
      }
    });
    const int32_t flags = kernels<T>().scale(side_b_, space_.padded, sums, h_.data(), v_.data());
    stale_ = false;
    if (flags & kVanished) {
      exact_columns();
    } else if (flags != 0 || points_) {
      absorb();
    }
  }

  void set_phi() {
    for (int64_t i = 0; i < space_.n; ++i) {
      phi_.data()[i] = std::log(u_.data()[i]) - shift_.data()[i];
    }
    has_phi_ = true;
  }

  // The scales become potentials.
  void absorb() {
    set_phi();
    for (int64_t j = 0; j < space_.m; ++j) h_.data()[j] += std::log(v_.data()[j]);
    stale_ = true;
  }

  void descend(double eps) {
    const T ratio = static_cast<T>(eps_ / eps);
    for (int64_t j = 0; j < space_.m; ++j) h_.data()[j] *= ratio;
    for (int64_t i = 0; i < space_.n; ++i) phi_.data()[i] *= ratio;
    set_eps(eps);
  }

  // The columns' potentials without the rows of K: the sums of some are too small for their digits.
  void exact_columns() {
    set_phi();
    const int64_t size = space_.blocks * space_.padded;
    if (largest_size_ < size) {
      largest_ = AlignedScratch<T>(size);
      sum_ = AlignedScratch<T>(size);
      largest_size_ = size;
    }
    T* const largest = largest_.data();
    T* const sum = sum_.data();
    space_.for_blocks(block_, [&](const Block<T>& block, int64_t i) {
      std::fill_n(largest + i * space_.padded, space_.padded, -kInf<T>);
      std::fill_n(sum + i * space_.padded, space_.padded, T(0));
      kernels<T>().columns(block, phi_.data(), largest + i * space_.padded,
                           sum + i * space_.padded);
    });
    const T tau = side_b_.tau;
    for (int64_t j = 0; j < space_.m; ++j) {
      T top = -kInf<T>, total = T(0);
      for (int64_t i = 0; i < space_.blocks; ++i)
        top = std::max(top, largest[i * space_.padded + j]);
      if (top == -kInf<T> || padded_b_.data()[j] == T(0)) {
        h_.data()[j] = -kInf<T>;
        continue;
      }
      for (int64_t i = 0; i < space_.blocks; ++i) {
        total += sum[i * space_.padded + j] * std::exp(largest[i * space_.padded + j] - top);
      }
      const T log_b = columns_.log(j), base = side_b_.base != nullptr ? log_b : T(0);
      const T lse = top + std::log(total);
      h_.data()[j] = side_b_.balanced ? log_b - lse : tau * (log_b - lse) + (T(1) - tau) * base;
    }
    stale_ = true;
  }

  Result<T> finish(const Options& options, double tolerance, int32_t n_iter, T* plan, T* f, T* g) {
    const Rows<T> rows = this->rows();
    const T* const phi = stale_ ? phi_.data() : nullptr;
    const T* const sums = space_.add_columns(block_, [&](const Block<T>& block, Sums<T>* sums) {
      kernels<T>().finish(block, rows, h_.data(), phi, v_.data(), plan, row_sums_.data(), sums);
    });
    const T eps = static_cast<T>(options.eps);
    if (!stale_) {
      set_phi();
      for (int64_t j = 0; j < space_.m; ++j) h_.data()[j] += std::log(v_.data()[j]);
    }
    for (int64_t i = 0; i < space_.n; ++i) f[i] = eps * phi_.data()[i];
    for (int64_t j = 0; j < space_.m; ++j) g[j] = eps * h_.data()[j];
    std::copy(g, g + space_.m, padded_b_.data());
    std::fill(padded_b_.data() + space_.m, padded_b_.data() + space_.padded, T(0));

    const double total_a = rows_.total(), total_b = columns_.total();
    const double mass = total_of(row_sums_.data(), space_.n);
    const double value = rows_.value(row_sums_.data(), f, options.eps) +
                         columns_.value(sums, padded_b_.data(), options.eps) +
                         options.eps * ((options.kl ? total_a * total_b : 1.0) - mass);
    Result<T> result{static_cast<T>(value), static_cast<T>(space_.linear),
                     static_cast<T>(space_.moved), n_iter, kMaxIter};
    if (converged(options)) result.status = kConverged;
    const bool balanced = rows_.balanced() && columns_.balanced();
    if (rows_.stuck(f) || columns_.stuck(padded_b_.data()) ||
        (balanced && std::abs(total_a - total_b) > tolerance * total_a)) {
      result.status = kInfeasible;
    }
    if (!std::isfinite(value + space_.linear + space_.moved)) result.status = kNotFinite;
    return result;
  }

  Workspace<T> space_;
  const bool points_;
  Marginal<T> rows_, columns_;
  AlignedScratch<T> shift_, u_, phi_, row_sums_, h_, v_, padded_b_, kernel_, largest_;
  AlignedScratch<T> sum_{1};
  int64_t largest_size_ = 0;
  Block<T> block_{};
  Side<T> side_a_{}, side_b_{};
  double eps_ = 0.0;
  bool has_phi_ = false, stale_ = true;
};

}  // namespace saccade::transport
