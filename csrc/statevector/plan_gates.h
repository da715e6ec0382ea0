// Gates as the planner takes them: decoded, and as factors of 2x2 matrices.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "statevector/plan.h"

namespace saccade::statevector::planner {

constexpr double kPi = 3.14159265358979323846;

// The numbers of GATES in _statevector_program.py.
enum Code : int32_t {
  kId,
  kH,
  kX,
  kY,
  kZ,
  kS,
  kSdg,
  kT,
  kTdg,
  kSx,
  kSxdg,
  kRx,
  kRy,
  kRz,
  kP,
  kU3,
  kRot,
  kSwap,
  kIswap,
  kEcr,
  kPauliRot,
  kUnitary,
  kGphase,
  kCodes
};

struct Value {
  int32_t source = 0, index = 0;
  double coefficient = 0, offset = 0;
};

struct Gate {
  int32_t code;
  std::vector<int> wires, controls;
  std::vector<Value> values;
  std::vector<int32_t> letters;
  std::vector<double> matrix;
};

// Raises where the streams of a source end too early or name what is not there.
std::vector<Gate> decode(const Source& source);

// Only gates that touch a wire which an observable depends on, going back in time.
std::vector<Gate> light_cone(std::vector<Gate> gates, std::vector<bool>& active);

using Matrix = std::array<double, 8>;  // 2x2 complex, row after row

// F(t) = fixed + cos(h t) even + sin(h t) odd.
struct Factor {
  Matrix fixed{}, even{}, odd{};
  double rate = 0;
  Value value;
  bool diagonal = false;
};

Factor constant_factor(const Matrix& m);

// cos(t/2) + sin(t/2) odd.
Factor rotation(const Matrix& odd, const Value& value, bool diagonal);
Factor rx(const Value& v);
Factor ry(const Value& v);
Factor rz(const Value& v);

// diag(1, e^it)
Factor phase(const Value& v);
Factor fixed_phase(double re, double im);
Value fixed_angle(double angle);

// The factors of a gate on one wire, first in time first.
std::vector<Factor> factors_of(const Gate& gate);

bool all_diagonal(const std::vector<Factor>& factors);

}  // namespace saccade::statevector::planner
