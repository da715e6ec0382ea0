#include "statevector/plan_gates.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace saccade::statevector::planner {

std::vector<Gate> decode(const Source& source) {
  std::vector<Gate> gates;
  size_t i = 0, f = 0;
  const auto next = [&] {
    if (i >= source.ints.size()) throw std::invalid_argument("the program's ints end too early");
    return source.ints[i++];
  };
  const auto number = [&] {
    if (f >= source.floats.size())
      throw std::invalid_argument("the program's floats end too early");
    return source.floats[f++];
  };
  const auto wire = [&] {
    const int32_t w = next();
    if (w < 0 || w >= source.wires) throw std::invalid_argument("a wire is out of range");
    return static_cast<int>(w);
  };
  while (i < source.ints.size()) {
    Gate gate;
    gate.code = next();
    if (gate.code < 0 || gate.code >= kCodes) throw std::invalid_argument("an unknown gate");
    const int32_t wires = next(), controls = next(), values = next();
    for (int32_t k = 0; k < wires; ++k) gate.wires.push_back(wire());
    for (int32_t k = 0; k < controls; ++k) gate.controls.push_back(wire());
    for (int32_t k = 0; k < values; ++k) {
      Value value;
      value.source = next();
      value.index = next();
      value.coefficient = number();
      value.offset = number();
      gate.values.push_back(value);
    }
    if (gate.code == kPauliRot) {
      for (int32_t k = 0; k < wires; ++k) gate.letters.push_back(next());
    }
    if (gate.code == kUnitary) {
      const int64_t size = int64_t{1} << (2 * wires + 1);
      for (int64_t k = 0; k < size; ++k) gate.matrix.push_back(number());
    }
    gates.push_back(std::move(gate));
  }
  return gates;
}

std::vector<Gate> light_cone(std::vector<Gate> gates, std::vector<bool>& active) {
  std::vector<Gate> kept;
  for (auto gate = gates.rbegin(); gate != gates.rend(); ++gate) {
    std::vector<int> all = gate->wires;
    all.insert(all.end(), gate->controls.begin(), gate->controls.end());
    if (std::none_of(all.begin(), all.end(), [&](int w) { return active[w]; })) continue;
    for (const int w : all) active[w] = true;
    kept.push_back(std::move(*gate));
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

namespace {

constexpr Matrix kIdentity{1, 0, 0, 0, 0, 0, 1, 0};

}  // namespace

Factor constant_factor(const Matrix& m) {
  Factor factor;
  factor.fixed = m;
  factor.diagonal = m[2] == 0 && m[3] == 0 && m[4] == 0 && m[5] == 0;
  return factor;
}

Factor rotation(const Matrix& odd, const Value& value, bool diagonal) {
  Factor factor;
  factor.even = kIdentity;
  factor.odd = odd;
  factor.rate = 0.5;
  factor.value = value;
  factor.diagonal = diagonal;
  return factor;
}

Factor rx(const Value& v) { return rotation({0, 0, 0, -1, 0, -1, 0, 0}, v, false); }
Factor ry(const Value& v) { return rotation({0, 0, -1, 0, 1, 0, 0, 0}, v, false); }
Factor rz(const Value& v) { return rotation({0, -1, 0, 0, 0, 0, 0, 1}, v, true); }

Factor phase(const Value& v) {
  Factor factor;
  factor.fixed = {1, 0, 0, 0, 0, 0, 0, 0};
  factor.even = {0, 0, 0, 0, 0, 0, 1, 0};
  factor.odd = {0, 0, 0, 0, 0, 0, 0, 1};
  factor.rate = 1;
  factor.value = v;
  factor.diagonal = true;
  return factor;
}

Value fixed_angle(double angle) { return {0, 0, 0, angle}; }

Factor fixed_phase(double re, double im) { return constant_factor({1, 0, 0, 0, 0, 0, re, im}); }

std::vector<Factor> factors_of(const Gate& gate) {
  const double r = std::sqrt(0.5);
  const auto& v = gate.values;
  switch (gate.code) {
    case kId:
      return {};
    case kH:
      return {constant_factor({r, 0, r, 0, r, 0, -r, 0})};
    case kX:
      return {constant_factor({0, 0, 1, 0, 1, 0, 0, 0})};
    case kY:
      return {constant_factor({0, 0, 0, -1, 0, 1, 0, 0})};
    case kZ:
      return {fixed_phase(-1, 0)};
    case kS:
      return {fixed_phase(0, 1)};
    case kSdg:
      return {fixed_phase(0, -1)};
    case kT:
      return {fixed_phase(r, r)};
    case kTdg:
      return {fixed_phase(r, -r)};
    case kSx:
      return {constant_factor({.5, .5, .5, -.5, .5, -.5, .5, .5})};
    case kSxdg:
      return {constant_factor({.5, -.5, .5, .5, .5, .5, .5, -.5})};
    case kRx:
      return {rx(v.at(0))};
    case kRy:
      return {ry(v.at(0))};
    case kRz:
      return {rz(v.at(0))};
    case kP:
      return {phase(v.at(0))};
    case kU3:
      return {phase(v.at(2)), ry(v.at(0)), phase(v.at(1))};
    case kRot:
      return {rz(v.at(0)), ry(v.at(1)), rz(v.at(2))};
    case kUnitary: {
      Matrix m;
      std::copy(gate.matrix.begin(), gate.matrix.end(), m.begin());
      return {constant_factor(m)};
    }
    default:
      throw std::invalid_argument("not a gate on one wire");
  }
}

bool all_diagonal(const std::vector<Factor>& factors) {
  return std::all_of(factors.begin(), factors.end(), [](const Factor& f) { return f.diagonal; });
}

}  // namespace saccade::statevector::planner
