// Expectation values of Pauli sums and the gradients that they send back. All strings of I and Z
// come from one Walsh-Hadamard transform of the probabilities, and go back by another.
#pragma once

#include "statevector/cpu_pair.inl"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

template <typename T, int bit = 1>
SACCADE_INLINE Vec<T> transform_lanes(Vec<T> v) {
  if constexpr (bit < kWidth<T>) {
    return transform_lanes<T, 2 * bit>(swap_halves<T, bit>(v, Lanes<T>{}) + v * lane_signs<T>(bit));
  } else {
    return v;
  }
}

// H[z] = sum over p of (-1)^parity(p & z) data[p], in place.
template <typename T>
void transform(const Circuit<T>& circuit, T* data) {
  constexpr int W = kWidth<T>;
  const int64_t blocks = blocks_of(circuit);
  if (circuit.lane_bits) {
    for (int64_t i = 0; i < blocks; ++i)
      store<T>(data + i * W, transform_lanes<T>(load(data + i * W)));
  }
  for (int64_t half = 1; half < blocks; half *= 2) {
    for (int64_t base = 0; base < blocks; base += 2 * half) {
      T *const low = data + base * W, *const high = low + half * W;
      for (int64_t i = 0; i < half * W; i += W) {
        const Vec<T> a = load(low + i), b = load(high + i);
        store<T>(low + i, a + b);
        store<T>(high + i, a - b);
      }
    }
  }
}

// Where H[z] is: a number in its lane, or all samples' lanes.
template <typename T>
SACCADE_INLINE T* place(const Circuit<T>& circuit, T* data, int64_t z) {
  return circuit.lane_bits ? data + z : data + z * kWidth<T>;
}

template <typename T>
SACCADE_INLINE bool any_diagonal(const Term* terms, int64_t count) {
  for (int64_t t = 0; t < count; ++t) {
    if (terms[t].x == 0) return true;
  }
  return false;
}

// visit(i, sign, q) for all blocks: q = psi(p ^ x), and sign = (-1)^parity(p & z) in every lane.
template <typename T, typename F>
SACCADE_INLINE void for_word(const Circuit<T>& circuit, const Term& term, const T* psi,
                             const F& visit) {
  constexpr int B = kBlock<T>;
  const int in_lanes = (1 << circuit.lane_bits) - 1;
  const int64_t x = term.x >> circuit.lane_bits, z = term.z >> circuit.lane_bits;
  const int x_low = term.x & in_lanes;
  const Vec<T> plus = lane_signs<T>(term.z & in_lanes), minus = -plus;
  for (int64_t i = 0; i < blocks_of(circuit); ++i) {
    const Number<T> q = get(psi + (i ^ x) * B);
    visit(i, parity(i & z) ? minus : plus,
          Number<T>{flip_lanes<T>(q.re, x_low), flip_lanes<T>(q.im, x_low)});
  }
}

template <typename T>
void observe(const Circuit<T>& circuit, const Term* terms, int64_t count, const T* psi, T* work,
             T* values) {
  constexpr int B = kBlock<T>, W = kWidth<T>;
  const int lanes = lanes_of(circuit);
  if (any_diagonal<T>(terms, count)) {
    for (int64_t i = 0; i < blocks_of(circuit); ++i) {
      const Number<T> p = get(psi + i * B);
      store<T>(work + i * W, p.re * p.re + p.im * p.im);
    }
    transform(circuit, work);
  }
  for (int64_t t = 0; t < count; ++t) {
    const Term& term = terms[t];
    T* const value = values + int64_t{term.owner} * lanes;
    if (term.x == 0) {
      const T scale = static_cast<T>(term.phase == 2 ? -term.coefficient : term.coefficient);
      const T* const h = place(circuit, work, term.z);
      for (int l = 0; l < lanes; ++l) value[l] += scale * h[l];
      continue;
    }
    // Re of i^phase conj(psi(p ^ x)) sign psi(p)
    Vec<T> sum{};
    for_word(circuit, term, psi, [&](int64_t i, Vec<T> sign, Number<T> q) {
      const Number<T> p = get(psi + i * B);
      sum += sign * (term.phase & 1 ? q.im * p.re - q.re * p.im : q.re * p.re + q.im * p.im);
    });
    const T scale = static_cast<T>(term.phase & 2 ? -term.coefficient : term.coefficient);
    if (lanes == 1) {
      *value += scale * horizontal_sum<T>(sum);
    } else {
      store<T>(value, load(value) + scale * sum);
    }
  }
}

template <typename T>
void observe_backward(const Circuit<T>& circuit, const Term* terms, int64_t count, const T* psi,
                      const T* weights, T* work, T* gradient) {
  constexpr int B = kBlock<T>, W = kWidth<T>;
  const int lanes = lanes_of(circuit);
  const int64_t blocks = blocks_of(circuit);
  if (any_diagonal<T>(terms, count)) {
    fill_zero(work, blocks * W);
    for (int64_t t = 0; t < count; ++t) {
      const Term& term = terms[t];
      if (term.x != 0) continue;
      const T scale = static_cast<T>(2 * (term.phase == 2 ? -term.coefficient : term.coefficient));
      T* const h = place(circuit, work, term.z);
      for (int l = 0; l < lanes; ++l) h[l] += scale * weights[int64_t{term.owner} * lanes + l];
    }
    transform(circuit, work);
    for (int64_t i = 0; i < blocks; ++i) {
      const Number<T> p = get(psi + i * B);
      const Vec<T> w = load(work + i * W);
      put(gradient + i * B, Number<T>{w * p.re, w * p.im});
    }
  } else {
    fill_zero(gradient, blocks * B);
  }
  for (int64_t t = 0; t < count; ++t) {
    const Term& term = terms[t];
    if (term.x == 0) continue;
    // (P psi)(p) = i^phase (-1)^parity((p ^ x) & z) psi(p ^ x)
    const int turn = (term.phase + (parity(term.x & term.z) ? 2 : 0)) & 3;
    const T scale = static_cast<T>(2 * (turn & 2 ? -term.coefficient : term.coefficient));
    const Vec<T> g = scale * spread(weights + int64_t{term.owner} * lanes, lanes);
    for_word(circuit, term, psi, [&](int64_t i, Vec<T> sign, Number<T> q) {
      const Vec<T> w = g * sign;
      Number<T> sum = get(gradient + i * B);
      if (turn & 1) {
        sum.re -= w * q.im;
        sum.im += w * q.re;
      } else {
        sum.re += w * q.re;
        sum.im += w * q.im;
      }
      put(gradient + i * B, sum);
    });
  }
}

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
