// The index frame: what every gate means for physical indices.
#include "statevector/planner.h"

#include <utility>

#include "statevector/span.h"

namespace saccade::statevector::planner {
namespace {

std::vector<int> with(std::vector<int> wires, int one) {
  wires.push_back(one);
  return wires;
}

}  // namespace

void Planner::add(const Gate& gate) {
  const auto& w = gate.wires;
  const auto& c = gate.controls;
  switch (gate.code) {
    case kSwap:
      return swap(w[0], w[1], c);
    case kIswap:
      phase_term({fixed_phase(0, 1)}, with(c, w[0]));
      phase_term({fixed_phase(0, 1)}, with(c, w[1]));
      phase_term({fixed_phase(-1, 0)}, with(with(c, w[0]), w[1]));
      return swap(w[0], w[1], c);
    case kEcr:  // (X I)(1 - i Z X) / sqrt 2
      pauli_rotation(w, {3, 1}, fixed_angle(kPi / 2), c);
      return one(kX, {constant_factor({0, 0, 1, 0, 1, 0, 0, 0})}, w[0], c);
    case kPauliRot:
      return pauli_rotation(w, gate.letters, gate.values.at(0), c);
    case kGphase:
      return collect({{phase(gate.values.at(0))}}, {0}, 1);
    case kUnitary:
      if (w.size() > 1) return dense(gate);
      [[fallthrough]];
    default:
      return one(gate.code, factors_of(gate), w[0], c);
  }
}

void Planner::one(int32_t code, const std::vector<Factor>& factors, int q,
                  const std::vector<int>& c) {
  if (factors.empty()) return;
  if (c.empty() && code == kX && wires_[q].pending.empty()) {
    wires_[q].flip = !wires_[q].flip;
  } else if (c.empty()) {
    auto& pending = wires_[q].pending;
    pending.insert(pending.end(), factors.begin(), factors.end());
  } else if (code == kX && c.size() == 1) {
    cnot(c[0], q);
  } else if (all_diagonal(factors)) {
    phase_term(factors, with(c, q));
  } else {
    for (const int w : c) flush(w);
    flush(q);
    Entry entry = controlled(wires_[q].row, wires_[q].flip, c);
    emit_pair(wires_[q].column, factors, entry);
  }
}

void Planner::cnot(int control, int target) {
  flush(control);
  flush(target);
  Wire &c = wires_[control], &t = wires_[target];
  t.row ^= c.row;
  t.flip ^= c.flip;
  c.column ^= t.column;
}

void Planner::swap(int a, int b, const std::vector<int>& controls) {
  if (controls.empty()) return std::swap(wires_[a], wires_[b]);
  cnot(b, a);
  one(kX, {constant_factor({0, 0, 1, 0, 1, 0, 0, 0})}, b, with(controls, a));
  cnot(b, a);
}

Entry Planner::controlled(int32_t row, bool flip, const std::vector<int>& controls) const {
  Entry entry{0, {row}, flip};
  for (size_t k = 0; k < controls.size(); ++k) {
    entry.masks.push_back(wires_[controls[k]].row);
    entry.flips |= (wires_[controls[k]].flip ? 1 : 0) << (k + 1);
  }
  return entry;
}

void Planner::phase_term(const std::vector<Factor>& factors, std::vector<int> wires) {
  const int q = wires.back();
  wires.pop_back();
  if (wires.empty()) return one(kP, factors, q, {});
  for (const int w : wires) flush(w);
  flush(q);
  const Entry entry = controlled(wires_[q].row, wires_[q].flip, wires);
  collect(factors, entry.masks, entry.flips);
}

void Planner::collect(const std::vector<Factor>& factors, std::vector<int32_t> masks,
                      int32_t flips) {
  // one phase after another under the same masks is one phase
  for (Term& term : phases_) {
    if (term.masks == masks && term.flips == flips) {
      term.factors.insert(term.factors.end(), factors.begin(), factors.end());
      return;
    }
  }
  phases_.push_back({factors, std::move(masks), flips});
}

void Planner::pauli_rotation(const std::vector<int>& wires, const std::vector<int32_t>& letters,
                             const Value& value, const std::vector<int>& controls) {
  if (wires.size() == 1) {
    const Factor factor = letters[0] == 1 ? rx(value) : letters[0] == 2 ? ry(value) : rz(value);
    return one(kRx, {factor}, wires[0], controls);
  }
  for (const int w : wires) flush(w);
  for (const int w : controls) flush(w);
  const Word p = word(wires, letters);
  Entry entry = controlled(p.z, false, controls);
  if (p.x == 0) {
    entry.flips |= p.phase >> 1;
    return collect({rz(value)}, entry.masks, entry.flips);
  }
  // (P psi)(p) = i^phase (-1)^parity((p ^ x) & z) psi(p ^ x)
  const int32_t turn = (p.phase + (odd_parity(p.x & p.z) ? 2 : 0)) & 3;
  constexpr double kRe[] = {1, 0, -1, 0}, kIm[] = {0, 1, 0, -1};
  // -i i^turn in row 0, its opposite in row 1
  const double re = kIm[turn], im = -kRe[turn];
  emit_pair(p.x, {rotation({0, 0, re, im, -re, -im, 0, 0}, value, false)}, entry);
}

void Planner::dense(const Gate& gate) {
  for (const int w : gate.wires) flush(w);
  for (const int w : gate.controls) flush(w);
  Pass pass{kDense, {}, {{size(dense_), {}, 0}}};
  Entry& entry = pass.entries[0];
  const auto add = [&](int w) {
    entry.flips |= (wires_[w].flip ? 1 : 0) << entry.masks.size();
    entry.masks.push_back(wires_[w].row);
  };
  // bit k of a row of the matrix is the bit of wire k, counted from the last one
  for (size_t k = gate.wires.size(); k-- > 0;) {
    pass.x.push_back(wires_[gate.wires[k]].column);
    add(gate.wires[k]);
  }
  for (const int w : gate.controls) add(w);
  dense_.insert(dense_.end(), gate.matrix.begin(), gate.matrix.end());
  emit(std::move(pass));
}

Planner::Word Planner::word(const std::vector<int>& wires,
                            const std::vector<int32_t>& letters) const {
  Word out;
  for (size_t k = 0; k < wires.size(); ++k) {
    const Wire& wire = wires_[wires[k]];
    const bool flips = letters[k] == 1 || letters[k] == 2, signs = letters[k] >= 2;
    if (flips) out.x ^= wire.column;
    if (signs) out.z ^= wire.row;
    out.phase += (letters[k] == 2 ? 1 : 0) + (signs && wire.flip ? 2 : 0);
  }
  out.phase &= 3;
  return out;
}

}  // namespace saccade::statevector::planner
