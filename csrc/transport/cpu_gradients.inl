// The backward pass: sums of a plan and of what is upstream, products with it, gradients.
#pragma once

#include "transport/cpu_sweeps.inl"

namespace saccade::transport::SACCADE_ISA_NAMESPACE {

// P of R rows: in its place, or from the costs of points. Potentials bound the exponents.
template <typename T, int R>
SACCADE_INLINE Panel<T> plan_rows(const Block<T>& block, int64_t i, const T* phi, const T* psi,
                                  Panel<T>* cost) {
  constexpr int W = kWidth<T>;
  if (block.kernel != nullptr) return kernel_rows(block, i);
  *cost = cost_rows<T, R>(block, i);
  const Panel<T> p = kernel_rows(block, i);
  for (int r = 0; r < R; ++r) {
    T* const to = const_cast<T*>(p.rows) + r * p.stride;
    for (int64_t j = 0; j < block.padded; j += W) {
      const Vec<T> c = load(cost->rows + r * cost->stride + j);
      store<T>(to + j, exp_of<T>((load(psi + j) - c * block.inverse_eps) + phi[i + r]));
    }
  }
  return p;
}

// Whatever a matrix of `columns` holds from column j on.
template <typename T>
SACCADE_INLINE Vec<T> given(const T* row, int64_t j, int64_t columns) {
  return row == nullptr ? Vec<T>{} : load_partial(row + j, columns - j);
}

// W + of_linear C of a row.
template <typename T>
SACCADE_INLINE Vec<T> upstream_of(const Block<T>& block, const Adjoint<T>& adjoint, int64_t i,
                                  const T* cost, int64_t j) {
  Vec<T> w{};
  if (adjoint.upstream != nullptr) {
    w = given(adjoint.upstream + i * block.columns, j, block.columns);
  }
  if (adjoint.of_linear != T(0)) w += adjoint.of_linear * given(cost, j, block.columns);
  return w;
}

template <typename T>
SACCADE_INLINE const T* cost_of(const Block<T>& block, const Panel<T>& panel, int64_t i, int r) {
  return block.cost.matrix != nullptr ? block.cost.matrix + (i + r) * block.cost.stride
                                      : panel.rows + r * panel.stride;
}

template <typename T>
void weigh(const Block<T>& block, const T* phi, const T* psi, const Adjoint<T>& adjoint, T* rows,
           T* p, T* columns, T* q) {
  constexpr int W = kWidth<T>;
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    Panel<T> cost{};
    const Panel<T> plan = plan_rows<T, R>(block, i, phi, psi, &cost);
    for (int r = 0; r < R; ++r) {
      const T* const c = cost_of(block, cost, i, r);
      Vec<T> sum{}, weighted{};
      for (int64_t j = 0; j < block.padded; j += W) {
        const Vec<T> x = load(plan.rows + r * plan.stride + j);
        const Vec<T> product = x * upstream_of(block, adjoint, i + r, c, j);
        const Vec<T> y = x == T(0) ? Vec<T>{} : product;
        sum += x;
        weighted += y;
        store<T>(columns + j, load(columns + j) + x);
        store<T>(q + j, load(q + j) + y);
      }
      rows[i + r] = horizontal_sum<T>(sum);
      p[i + r] = horizontal_sum<T>(weighted);
    }
  });
}

template <typename T>
void apply(const Block<T>& block, const T* phi, const T* psi, const T* inverse, const T* y,
           T* columns) {
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    Panel<T> cost{};
    const Panel<T> plan = plan_rows<T, R>(block, i, phi, psi, &cost);
    T factor[R];
    if (y == nullptr) {
      for (int r = 0; r < R; ++r) factor[r] = inverse[i + r];
    } else {
      products<T, R>(plan, y, block.padded, factor);
      for (int r = 0; r < R; ++r) factor[r] *= inverse[i + r];
    }
    accumulate<T, R>(plan, factor, block.padded, columns);
  });
}

template <typename T>
void product(const Block<T>& block, const T* phi, const T* psi, const T* y, T* out) {
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    Panel<T> cost{};
    const Panel<T> plan = plan_rows<T, R>(block, i, phi, psi, &cost);
    products<T, R>(plan, y, block.padded, out + i);
  });
}

// G of row i from column j on.
template <typename T>
SACCADE_INLINE Vec<T> gradient_of(const Block<T>& block, const Adjoint<T>& adjoint, int64_t i,
                                  Vec<T> p, const T* cost, int64_t j) {
  const Vec<T> w = upstream_of(block, adjoint, i, cost, j);
  const Vec<T> moved = (adjoint.x[i] + load(adjoint.y + j)) - w;
  const Vec<T> g = p * (moved * block.inverse_eps + adjoint.constant);
  return p == T(0) ? Vec<T>{} : g;
}

template <typename T>
void gradient(const Block<T>& block, const Adjoint<T>& adjoint, T* out) {
  constexpr int W = kWidth<T>;
  for (int64_t i = block.begin; i < block.end; ++i) {
    const T* const c = block.cost.matrix + i * block.cost.stride;
    for (int64_t j = 0; j < block.padded; j += W) {
      const Vec<T> p = load(block.kernel + i * block.kernel_stride + j);
      store_partial<T>(out + i * block.columns + j, gradient_of(block, adjoint, i, p, c, j),
                       block.columns - j);
    }
  }
}

template <typename T>
void point_gradient(const Block<T>& block, const T* phi, const T* psi, const Adjoint<T>& adjoint,
                    const T* y_rows, T* out) {
  constexpr int W = kWidth<T>;
  const int64_t dim = block.cost.dim;
  const Metric metric = block.cost.metric;
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    Panel<T> cost{};
    const Panel<T> plan = plan_rows<T, R>(block, i, phi, psi, &cost);
    T total[R];
    for (int r = 0; r < R; ++r) {
      T* const to = const_cast<T*>(plan.rows) + r * plan.stride;
      const T* const c = cost.rows + r * cost.stride;
      Vec<T> sum{};
      for (int64_t j = 0; j < block.padded; j += W) {
        Vec<T> g = gradient_of(block, adjoint, i + r, load(to + j), c, j);
        // the derivative of |x - y| has the distance below; where it is 0 it is taken as 0
        if (metric == kDistance) g = load(c + j) == T(0) ? Vec<T>{} : g / load(c + j);
        sum += g;
        store<T>(to + j, g);
      }
      total[r] = horizontal_sum<T>(sum);
    }
    const T factor = metric == kSquared ? T(2) : T(1);
    for (int64_t k = 0; k < dim; k += W) {
      Vec<T> sum[R] = {};
      for (int64_t j = 0; j < block.columns; ++j) {
        const Vec<T> y = load_partial(y_rows + j * dim + k, dim - k);
        for (int r = 0; r < R; ++r) sum[r] += plan.rows[r * plan.stride + j] * y;
      }
      for (int r = 0; r < R; ++r) {
        const Vec<T> x = load_partial(block.cost.x + (i + r) * dim + k, dim - k);
        const Vec<T> moved = metric == kOneMinusDot ? -sum[r] : factor * (total[r] * x - sum[r]);
        store_partial<T>(out + (i + r) * dim + k, moved, dim - k);
      }
    }
  });
}

}  // namespace saccade::transport::SACCADE_ISA_NAMESPACE
