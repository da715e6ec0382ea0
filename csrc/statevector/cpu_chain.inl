// Matrices of merged gates, and the gradients of their angles, on vectors of samples or on one
// double.
#pragma once

#include "statevector/cpu_lanes.inl"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

// 2x2 complex, row after row, real and imaginary.
template <typename N>
struct Matrix {
  N e[8];
};

template <typename N>
SACCADE_INLINE void sin_and_cos(N x, N* s, N* c);
template <>
SACCADE_INLINE void sin_and_cos<double>(double x, double* s, double* c) {
  *s = ::sin(x);
  *c = ::cos(x);
}
template <>
SACCADE_INLINE void sin_and_cos<Vec<float>>(Vec<float> x, Vec<float>* s, Vec<float>* c) {
  saccade::SACCADE_ISA_NAMESPACE::sincos<float>(x, s, c);
}
template <>
SACCADE_INLINE void sin_and_cos<Vec<double>>(Vec<double> x, Vec<double>* s, Vec<double>* c) {
  saccade::SACCADE_ISA_NAMESPACE::sincos<double>(x, s, c);
}

// A number of the element type S for all lanes of N.
template <typename N, typename S>
SACCADE_INLINE N all(double x) {
  return static_cast<S>(x) - N{};
}

template <typename N, typename S>
inline Matrix<N> identity() {
  Matrix<N> m{};
  m.e[0] = m.e[6] = all<N, S>(1);
  return m;
}

template <typename N>
inline Matrix<N> times(const Matrix<N>& a, const Matrix<N>& b) {
  Matrix<N> c;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      const N *p = a.e + 4 * i, *q = b.e + 2 * j;
      c.e[4 * i + 2 * j] = p[0] * q[0] - p[1] * q[1] + (p[2] * q[4] - p[3] * q[5]);
      c.e[4 * i + 2 * j + 1] = p[0] * q[1] + p[1] * q[0] + (p[2] * q[5] + p[3] * q[4]);
    }
  }
  return c;
}

template <typename N>
inline Matrix<N> transposed(const Matrix<N>& a, bool conjugate) {
  Matrix<N> c;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      c.e[4 * i + 2 * j] = a.e[4 * j + 2 * i];
      c.e[4 * i + 2 * j + 1] = conjugate ? -a.e[4 * j + 2 * i + 1] : a.e[4 * j + 2 * i + 1];
    }
  }
  return c;
}

template <typename N, typename S>
inline Matrix<N> factor_matrix(const Factor& f, N angle, Matrix<N>* slope) {
  Matrix<N> m;
  if (f.rate == 0) {
    for (int i = 0; i < 8; ++i) m.e[i] = all<N, S>(f.fixed[i]);
    return m;
  }
  N s, c;
  sin_and_cos<N>(angle * all<N, S>(f.rate), &s, &c);
  for (int i = 0; i < 8; ++i) {
    const N even = all<N, S>(f.even[i]), odd = all<N, S>(f.odd[i]);
    m.e[i] = all<N, S>(f.fixed[i]) + c * even + s * odd;
    if (slope) slope->e[i] = all<N, S>(f.rate) * (c * odd - s * even);
  }
  return m;
}

// angle(factor) gives the numbers v that the angle depends on.
template <typename N, typename S, typename F>
SACCADE_INLINE N angle_of(const Factor& f, const F& value) {
  const N offset = all<N, S>(f.offset);
  return f.source == 0 ? offset : all<N, S>(f.coefficient) * value(f) + offset;
}

template <typename N, typename S, typename F>
inline Matrix<N> chain_matrix(const Factor* factors, const Chain& chain, const F& value) {
  Matrix<N> u{};
  for (int i = 0; i < chain.count; ++i) {
    const Factor& f = factors[chain.first + i];
    const Matrix<N> m = factor_matrix<N, S>(f, angle_of<N, S>(f, value), nullptr);
    u = i == 0 ? m : times(m, u);
  }
  return u;
}

// Calls use(factor, dL/dv) for every factor that depends on something, where dL = Re sum K dU:
// backwards, with the product P of the earlier factors and S of the later ones, dU = S dF P.
template <typename N, typename S, typename F, typename G>
inline void chain_gradient(const Factor* factors, const Chain& chain, const Matrix<N>& u,
                           const Matrix<N>& K, const F& value, const G& use) {
  Matrix<N> before = u, k = K;  // k = S^T K
  for (int i = chain.count; i-- > 0;) {
    const Factor& f = factors[chain.first + i];
    Matrix<N> slope{};
    const Matrix<N> m = factor_matrix<N, S>(f, angle_of<N, S>(f, value), &slope);
    // the 2x2 of a Pauli string is not unitary as such, but it is alone in its chain
    before = i == 0 ? identity<N, S>() : times(transposed(m, true), before);
    if (f.source != 0) {
      const Matrix<N> own = times(k, transposed(before, false));
      N sum{};
      for (int e = 0; e < 8; e += 2) {
        sum += own.e[e] * slope.e[e] - own.e[e + 1] * slope.e[e + 1];
      }
      use(f, all<N, S>(f.coefficient) * sum);
    }
    k = times(transposed(m, false), k);
  }
}

template <typename T>
void shared_matrix(const Circuit<T>& circuit, int64_t chain, double* u) {
  const auto value = [&](const Factor& f) { return static_cast<double>(circuit.params[f.index]); };
  const auto m = chain_matrix<double, double>(circuit.factors, circuit.chains[chain], value);
  for (int i = 0; i < 8; ++i) u[i] = m.e[i];
}

template <typename T>
void shared_gradient(const Circuit<T>& circuit, int64_t chain, const double* K, double* params) {
  const auto value = [&](const Factor& f) { return static_cast<double>(circuit.params[f.index]); };
  Matrix<double> u, k;
  for (int i = 0; i < 8; ++i) {
    u.e[i] = circuit.shared[8 * chain + i];
    k.e[i] = K[i];
  }
  chain_gradient<double, double>(circuit.factors, circuit.chains[chain], u, k, value,
                                 [&](const Factor& f, double d) { params[f.index] += d; });
}

// The numbers of a tile's samples, zeros in lanes without one.
template <typename T>
SACCADE_INLINE Vec<T> values_of(const Circuit<T>& circuit, const Factor& f, int64_t first,
                                int64_t count) {
  if (f.source == 1) return broadcast(circuit.params[f.index]);
  Vec<T> v{};
  for (int64_t l = 0; l < count; ++l)
    v[l] = circuit.inputs[(first + l) * circuit.n_inputs + f.index];
  return v;
}

template <typename T>
void matrices(const Circuit<T>& circuit, int64_t tile, T* u) {
  const int lanes = lanes_of(circuit);
  int64_t first;
  const int64_t count = samples_of(circuit, tile, &first);
  for (int64_t c = 0; c < circuit.n_chains; ++c, u += 8 * lanes) {
    const Chain& chain = circuit.chains[c];
    if (!chain.own) {
      for (int i = 0; i < 8; ++i) {
        const T number = static_cast<T>(circuit.shared[8 * c + i]);
        if (lanes == 1) {
          u[i] = number;
        } else {
          store<T>(u + i * lanes, broadcast(number));
        }
      }
    } else if (lanes == 1) {
      const auto value = [&](const Factor& f) {
        return static_cast<double>(f.source == 1
                                       ? circuit.params[f.index]
                                       : circuit.inputs[first * circuit.n_inputs + f.index]);
      };
      const auto m = chain_matrix<double, double>(circuit.factors, chain, value);
      for (int i = 0; i < 8; ++i) u[i] = static_cast<T>(m.e[i]);
    } else {
      const auto value = [&](const Factor& f) { return values_of(circuit, f, first, count); };
      const auto m = chain_matrix<Vec<T>, T>(circuit.factors, chain, value);
      for (int i = 0; i < 8; ++i) store<T>(u + i * lanes, m.e[i]);
    }
  }
}

template <typename T>
void chain_gradients(const Circuit<T>& circuit, int64_t tile, const T* u, const T* K,
                     double* params, T* inputs) {
  const int lanes = lanes_of(circuit);
  int64_t first;
  const int64_t count = samples_of(circuit, tile, &first);
  for (int64_t c = 0; c < circuit.n_chains; ++c, u += 8 * lanes, K += 8 * lanes) {
    const Chain& chain = circuit.chains[c];
    if (!chain.own) continue;
    if (lanes == 1) {
      const T* const row = circuit.inputs + first * circuit.n_inputs;
      const auto value = [&](const Factor& f) {
        return static_cast<double>(f.source == 1 ? circuit.params[f.index] : row[f.index]);
      };
      Matrix<double> m = chain_matrix<double, double>(circuit.factors, chain, value), k;
      for (int i = 0; i < 8; ++i) k.e[i] = K[i];
      chain_gradient<double, double>(
          circuit.factors, chain, m, k, value, [&](const Factor& f, double d) {
            if (f.source == 1) {
              params[f.index] += d;
            } else {
              inputs[first * circuit.n_inputs + f.index] += static_cast<T>(d);
            }
          });
      continue;
    }
    const auto value = [&](const Factor& f) { return values_of(circuit, f, first, count); };
    Matrix<Vec<T>> m, k;
    for (int i = 0; i < 8; ++i) {
      m.e[i] = load(u + i * lanes);
      k.e[i] = load(K + i * lanes);
    }
    chain_gradient<Vec<T>, T>(circuit.factors, chain, m, k, value, [&](const Factor& f, Vec<T> d) {
      for (int64_t l = 0; l < count; ++l) {
        if (f.source == 1) {
          params[f.index] += d[l];
        } else {
          inputs[(first + l) * circuit.n_inputs + f.index] += d[l];
        }
      }
    });
  }
}

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
