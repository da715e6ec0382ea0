// The first state as a product over bits, and its gradient: every bit's factor meets the gradient
// contracted with all others.
#pragma once

#include "statevector/cpu_pair.inl"

namespace saccade::statevector::SACCADE_ISA_NAMESPACE {

// The two amplitudes of every bit in all lanes: |0> where no gate was.
template <typename T>
SACCADE_INLINE void bit_factors(const Circuit<T>& circuit, const T* u, Number<T> (*factors)[2]) {
  const int lanes = lanes_of(circuit);
  for (int b = 0; b < circuit.bits; ++b) {
    factors[b][0] = {broadcast(T(1)), Vec<T>{}};
    factors[b][1] = {Vec<T>{}, Vec<T>{}};
  }
  for (int64_t k = 0; k < circuit.n_product; ++k) {
    const Product& p = circuit.product[k];
    const T* const m = u + int64_t{p.chain} * 8 * lanes;
    for (int s = 0; s < 2; ++s) {
      const T* const e = m + ((s ^ p.flip) * 4 + p.flip * 2) * lanes;
      factors[p.bit][s] = {spread(e, lanes), spread(e + lanes, lanes)};
    }
  }
}

// The product over the bits of lanes.
template <typename T>
SACCADE_INLINE Number<T> lane_product(const Circuit<T>& circuit, const Number<T> (*factors)[2]) {
  Number<T> z{broadcast(T(1)), Vec<T>{}};
  for (int b = 0; b < circuit.lane_bits; ++b) {
    Mask<T> set{};
    for (int l = 0; l < kWidth<T>; ++l) set[l] = (l >> b & 1) ? -1 : 0;
    z = product(z, Number<T>{set ? factors[b][1].re : factors[b][0].re,
                             set ? factors[b][1].im : factors[b][0].im});
  }
  return z;
}

template <typename T>
void product_start(const Circuit<T>& circuit, const T* u, T* psi) {
  constexpr int B = kBlock<T>;
  Number<T> factors[kMaxBits][2];
  bit_factors(circuit, u, factors);
  put(psi, lane_product(circuit, factors));
  for (int b = circuit.lane_bits; b < circuit.bits; ++b) {
    const int64_t half = int64_t{1} << (b - circuit.lane_bits);
    for (int64_t i = 0; i < half; ++i) {
      const Number<T> z = get(psi + i * B);
      put(psi + (half + i) * B, product(z, factors[b][1]));
      put(psi + i * B, product(z, factors[b][0]));
    }
  }
}

// Adds the gradient of one bit's two amplitudes to its chain.
template <typename T>
SACCADE_INLINE void add_amplitudes(const Product& p, int lanes, const Number<T>* sums, T* K) {
  K += int64_t{p.chain} * 8 * lanes;
  for (int s = 0; s < 2; ++s) {
    T* const e = K + ((s ^ p.flip) * 4 + p.flip * 2) * lanes;
    if (lanes == 1) {
      e[0] += horizontal_sum<T>(sums[s].re);
      e[1] += horizontal_sum<T>(sums[s].im);
    } else {
      store<T>(e, load(e) + sums[s].re);
      store<T>(e + lanes, load(e + lanes) + sums[s].im);
    }
  }
}

template <typename T>
void product_backward(const Circuit<T>& circuit, const T* u, T* psi, T* gradient, T* K) {
  constexpr int B = kBlock<T>, W = kWidth<T>;
  if (circuit.n_product == 0) return;
  const int lanes = lanes_of(circuit), low = circuit.lane_bits;
  Number<T> factors[kMaxBits][2];
  bit_factors(circuit, u, factors);
  const Product* owners[kMaxBits] = {};
  for (int64_t k = 0; k < circuit.n_product; ++k) {
    owners[circuit.product[k].bit] = circuit.product + k;
  }
  // the product over all bits below b, at blocks 2^(b - low) and behind
  put(psi + B, lane_product(circuit, factors));
  for (int b = low; b + 1 < circuit.bits; ++b) {
    const int64_t half = int64_t{1} << (b - low);
    for (int64_t i = 0; i < half; ++i) {
      const Number<T> z = get(psi + (half + i) * B);
      put(psi + (2 * half + i) * B, product(z, factors[b][0]));
      put(psi + (3 * half + i) * B, product(z, factors[b][1]));
    }
  }
  for (int b = circuit.bits; b-- > low;) {
    const int64_t half = int64_t{1} << (b - low);
    Number<T> sums[2] = {};
    // the gradient is contracted with the conjugates, since it is conjugated itself
    const Number<T> zero{factors[b][0].re, -factors[b][0].im};
    const Number<T> one{factors[b][1].re, -factors[b][1].im};
    for (int64_t i = 0; i < half; ++i) {
      const Number<T> rest = get(psi + (half + i) * B);
      const Number<T> g = get(gradient + i * B), h = get(gradient + (half + i) * B);
      sums[0].re += g.re * rest.re + g.im * rest.im;
      sums[0].im += g.re * rest.im - g.im * rest.re;
      sums[1].re += h.re * rest.re + h.im * rest.im;
      sums[1].im += h.re * rest.im - h.im * rest.re;
      const Number<T> left = product(g, zero), right = product(h, one);
      put(gradient + i * B, Number<T>{left.re + right.re, left.im + right.im});
    }
    if (owners[b]) add_amplitudes(*owners[b], lanes, sums, K);
  }
  const Number<T> g = get(gradient);
  for (int b = 0; b < low; ++b) {
    if (!owners[b]) continue;
    Number<T> sums[2] = {};
    for (int l = 0; l < W; ++l) {
      T re = 1, im = 0;
      for (int other = 0; other < low; ++other) {
        if (other == b) continue;
        const Number<T>& f = factors[other][l >> other & 1];
        const T next = re * f.re[0] - im * f.im[0];
        im = re * f.im[0] + im * f.re[0];
        re = next;
      }
      Number<T>& sum = sums[l >> b & 1];
      sum.re[l] = g.re[l] * re + g.im[l] * im;
      sum.im[l] = g.re[l] * im - g.im[l] * re;
    }
    add_amplitudes(*owners[b], lanes, sums, K);
  }
}

}  // namespace saccade::statevector::SACCADE_ISA_NAMESPACE
