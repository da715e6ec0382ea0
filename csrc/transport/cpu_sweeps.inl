// One update of both sides, with K made anew or with the K that is there, and the plan.
#pragma once

#include "transport/cpu_rows.inl"

namespace saccade::transport::SACCADE_ISA_NAMESPACE {

template <typename T>
SACCADE_INLINE Vec<T> exp_of(Vec<T> x) {
  return saccade::SACCADE_ISA_NAMESPACE::exp<T>(x);
}
template <typename T>
SACCADE_INLINE Vec<T> vector_log(Vec<T> x) {
  return saccade::SACCADE_ISA_NAMESPACE::log<T>(x);
}

// Scales of a vector of numbers of a side; a number without weight or without a partner gets 0.
template <typename T>
SACCADE_INLINE Vec<T> scales(const Side<T>& side, int64_t i, Vec<T> sum, Vec<T> offset) {
  const Vec<T> weight = load(side.weight + i);
  Vec<T> scale = weight / sum;
  if (!side.balanced) {
    Vec<T> base = offset;
    if (side.base != nullptr) base += load(side.base + i);
    scale = exp_of<T>(side.tau * vector_log<T>(scale) + (T(1) - side.tau) * base);
  }
  return (weight == T(0)) | (sum == T(0)) ? (sum == sum ? Vec<T>{} : sum) : scale;
}

// u of R rows from the sums of K v, and what they moved by.
template <typename T, int R>
SACCADE_INLINE void update_rows(const Rows<T>& rows, int64_t i, const T* sum, const T* before,
                                double* moved) {
  constexpr int W = kWidth<T>, kLanes = R > W ? R : W;
  T sums[kLanes] = {}, offset[kLanes] = {}, u[kLanes];
  for (int r = 0; r < R; ++r) sums[r] = sum[r];
  if (!rows.side.balanced) {
    for (int r = 0; r < R; ++r) offset[r] = rows.shift[i + r];
  }
  for (int r = 0; r < R; r += W) {
    store<T>(u + r, scales<T>(rows.side, i + r, load(sums + r), load(offset + r)));
  }
  T total = T(0);
  for (int r = 0; r < R; ++r) {
    const T d = before[r] - u[r];
    const T change = sum[r] * (d < T(0) ? -d : d);
    // a row that reaches nobody lacks all of its weight
    total += sum[r] == T(0) ? (rows.side.balanced ? rows.side.weight[i + r] : T(0)) : change;
    rows.u[i + r] = u[r];
  }
  *moved += static_cast<double>(total);
}

// columns += u K of R rows.
template <typename T, int R>
SACCADE_INLINE void accumulate(Panel<T> k, const T* u, int64_t padded, T* columns) {
  constexpr int W = kWidth<T>;
  Vec<T> factor[R];
  for (int r = 0; r < R; ++r) factor[r] = broadcast<T>(u[r]);
  for (int64_t j = 0; j < padded; j += W) {
    Vec<T> sum = load(columns + j);
    for (int r = 0; r < R; ++r) sum += factor[r] * load(k.rows + r * k.stride + j);
    store<T>(columns + j, sum);
  }
}

// out = K v of R rows.
template <typename T, int R>
SACCADE_INLINE void products(Panel<T> k, const T* v, int64_t padded, T* out) {
  constexpr int W = kWidth<T>, U = R >= 8 ? 1 : 2;
  Vec<T> sum[U][R] = {};
  int64_t j = 0;
  for (; j + U * W <= padded; j += U * W) {
    for (int u = 0; u < U; ++u) {
      const Vec<T> x = in_register(load(v + j + u * W));
      for (int r = 0; r < R; ++r) sum[u][r] += x * load(k.rows + r * k.stride + j + u * W);
    }
  }
  for (; j < padded; j += W) {
    const Vec<T> x = in_register(load(v + j));
    for (int r = 0; r < R; ++r) sum[0][r] += x * load(k.rows + r * k.stride + j);
  }
  if constexpr (U == 2) {
    for (int r = 0; r < R; ++r) sum[0][r] += sum[1][r];
  }
  sums_of<T, R>(sum[0], out);
}

template <typename T, int R>
SACCADE_INLINE Panel<T> make_kernel(const Block<T>& block, int64_t i, Panel<T> cost, const T* h,
                                    T* shift, T* sum) {
  const Panel<T> k = kernel_rows(block, i);
  for (int r = 0; r < R; ++r) {
    T* const to = const_cast<T*>(k.rows) + r * k.stride;
    shift[i + r] =
        exponentials(cost.rows + r * cost.stride, h, block.inverse_eps, block.padded, to, sum + r);
  }
  return k;
}

template <typename T>
void exact(const Block<T>& block, const Rows<T>& rows, const T* h, const T* phi, Sums<T>* sums) {
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    T sum[R], before[R];
    const Panel<T> k = make_kernel<T, R>(block, i, cost_rows<T, R>(block, i), h, rows.shift, sum);
    for (int r = 0; r < R; ++r) {
      before[r] = phi == nullptr ? kInfinity<T>
                                 : exp_of<T>(broadcast<T>(phi[i + r] + rows.shift[i + r]))[0];
    }
    update_rows<T, R>(rows, i, sum, before, &sums->moved);
    accumulate<T, R>(k, rows.u + i, block.padded, sums->columns);
  });
}

template <typename T>
void sweep(const Block<T>& block, const Rows<T>& rows, const T* v, Sums<T>* sums) {
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    T sum[R], before[R];
    const Panel<T> k = kernel_rows(block, i);
    products<T, R>(k, v, block.padded, sum);
    for (int r = 0; r < R; ++r) before[r] = rows.u[i + r];
    update_rows<T, R>(rows, i, sum, before, &sums->moved);
    accumulate<T, R>(k, rows.u + i, block.padded, sums->columns);
  });
}

// A row of the plan from a row of K: its sum, its cost, its share of the columns' sums.
template <typename T>
SACCADE_INLINE T finish_row(const T* k, const T* c, T u, const T* v, int64_t count, int64_t padded,
                            T* plan, T* columns, double* linear) {
  constexpr int W = kWidth<T>;
  Vec<T> sum{}, cost{};
  for (int64_t j = 0; j < padded; j += W) {
    Vec<T> p = load(k + j) * u;
    if (v != nullptr) p *= load(v + j);
    sum += p;
    // a forbidden pair costs nothing where nothing goes
    const Vec<T> product = p * load(c + j);
    cost += p == T(0) ? Vec<T>{} : product;
    store<T>(columns + j, load(columns + j) + p);
    if (plan != nullptr) store_partial<T>(plan + j, p, count - j);
  }
  *linear += static_cast<double>(horizontal_sum<T>(cost));
  return horizontal_sum<T>(sum);
}

template <typename T>
void finish(const Block<T>& block, const Rows<T>& rows, const T* h, const T* phi, const T* v,
            T* plan, T* row_sums, Sums<T>* sums) {
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    T sum[R], before[R];
    const Panel<T> cost = cost_rows<T, R>(block, i), k = kernel_rows(block, i);
    if (phi != nullptr) {
      make_kernel<T, R>(block, i, cost, h, rows.shift, sum);
      for (int r = 0; r < R; ++r) {
        rows.u[i + r] = exp_of<T>(broadcast<T>(phi[i + r] + rows.shift[i + r]))[0];
      }
    } else {
      products<T, R>(k, v, block.padded, sum);
    }
    for (int r = 0; r < R; ++r) before[r] = rows.u[i + r];
    for (int r = 0; r < R; ++r) {
      T* const to = plan == nullptr ? nullptr : plan + (i + r) * block.columns;
      row_sums[i + r] = finish_row(k.rows + r * k.stride, cost.rows + r * cost.stride, before[r],
                                   phi == nullptr ? v : nullptr, block.columns, block.padded, to,
                                   sums->columns, &sums->linear);
    }
    update_rows<T, R>(rows, i, sum, before, &sums->moved);
    for (int r = 0; r < R; ++r) rows.u[i + r] = before[r];
  });
}

template <typename T>
void columns(const Block<T>& block, const T* phi, T* largest, T* sum) {
  constexpr int W = kWidth<T>;
  const Vec<T> factor = broadcast<T>(block.inverse_eps);
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    const Panel<T> cost = cost_rows<T, R>(block, i);
    for (int64_t j = 0; j < block.padded; j += W) {
      Vec<T> x[R], top = load(largest + j);
      for (int r = 0; r < R; ++r) {
        x[r] = phi[i + r] - load(cost.rows + r * cost.stride + j) * factor;
        top = max<T>(x[r], top);
      }
      // nothing yet: exponents of -inf, not of NaN
      const Vec<T> safe = top == -kInfinity<T> ? Vec<T>{} : top;
      Vec<T> total = load(sum + j) * exp_of<T>(load(largest + j) - safe);
      for (int r = 0; r < R; ++r) total += exp_bounded(x[r] - safe);
      store<T>(largest + j, top);
      store<T>(sum + j, total);
    }
  });
}

// K is made anew once a scale of the columns has left this window, whose smallest numbers are far
// from the smallest of the type.
template <typename T>
struct Window {
  static constexpr bool kSingle = sizeof(T) == 4;
  static constexpr T kLargest = kSingle ? T(8192.0) : T(1.0e18);
  static constexpr T kLeastSum = kSingle ? T(1e-30) : T(1e-290);
};

template <typename T>
int32_t scale(const Side<T>& side, int64_t padded, const T* sum, const T* h, T* v) {
  constexpr int W = kWidth<T>;
  Mask<T> drifted{}, vanished{};
  for (int64_t j = 0; j < padded; j += W) {
    const Vec<T> s = load(sum + j), scaled = scales<T>(side, j, s, -load(h + j));
    // a column that the rows do not reach stays out
    const Mask<T> counts = (load(side.weight + j) > T(0)) & (load(h + j) > -kInfinity<T>);
    store<T>(v + j, scaled);
    drifted |= counts & ((scaled > Window<T>::kLargest) | (scaled < T(1) / Window<T>::kLargest));
    vanished |= counts & (s < Window<T>::kLeastSum);
  }
  int32_t flags = 0;
  for (int i = 0; i < W; ++i) {
    flags |= (drifted[i] ? kDrifted : 0) | (vanished[i] ? kVanished : 0);
  }
  return flags;
}

template <typename T>
void range(const Block<T>& block, T* least, T* largest) {
  for_groups(block, [&]<int R>(int64_t i) __attribute__((always_inline)) {
    const Panel<T> cost = cost_rows<T, R>(block, i);
    for (int r = 0; r < R; ++r) {
      for (int64_t j = 0; j < block.columns; ++j) {
        const T c = cost.rows[r * cost.stride + j];
        if (!(c < kInfinity<T> && c > -kInfinity<T>)) continue;
        *least = c < *least ? c : *least;
        *largest = c > *largest ? c : *largest;
      }
    }
  });
}

}  // namespace saccade::transport::SACCADE_ISA_NAMESPACE
