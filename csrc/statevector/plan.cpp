#include "statevector/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

namespace saccade::statevector {
namespace {

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

// Only gates that touch a wire which an observable depends on, going back in time.
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

using Matrix = std::array<double, 8>;  // 2x2 complex, row after row

// F(t) = fixed + cos(h t) even + sin(h t) odd.
struct Factor {
  Matrix fixed{}, even{}, odd{};
  double rate = 0;
  Value value;
  bool diagonal = false;
};

constexpr Matrix kIdentity{1, 0, 0, 0, 0, 0, 1, 0};

Factor constant_factor(const Matrix& m) {
  Factor factor;
  factor.fixed = m;
  factor.diagonal = m[2] == 0 && m[3] == 0 && m[4] == 0 && m[5] == 0;
  return factor;
}

// cos(t/2) + sin(t/2) odd.
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

// The factors of a gate on one wire, first in time first.
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

bool odd_parity(int32_t mask) { return __builtin_parity(static_cast<unsigned>(mask)); }

// A 2x2 matrix that acts where every control is 1: mask 0 tells its row, the others the controls;
// bit k of `flips` turns the parity under mask k.
struct Entry {
  int32_t chain;
  std::vector<int32_t> masks;
  int32_t flips = 0;
};

enum Kind : int32_t { kPair, kPhase, kDense };

struct Pass {
  Kind kind;
  std::vector<int32_t> x;  // a flip of each wire
  std::vector<Entry> entries;
};

class Planner {
 public:
  Planner(int bits, bool zero) : bits_(bits), zero_(zero), wires_(bits), written_(bits) {
    for (int b = 0; b < bits; ++b) wires_[b] = {1 << b, 1 << b, false, {}};
  }

  // Wires are bits of the physical index here.
  void add(const Gate& gate) {
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

  void finish() {
    for (int q = 0; q < bits_; ++q) flush(q);
    emit_phases();
  }

  // A Pauli string as P|p> = i^phase (-1)^parity(p & z) |p ^ x>.
  struct Word {
    int32_t x = 0, z = 0, phase = 0;
  };
  Word word(const std::vector<int>& wires, const std::vector<int32_t>& letters) const {
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

  void write(Plan& plan, int observables, const std::vector<int32_t>& terms,
             const std::vector<double>& coefficients) const {
    auto& ints = plan.ints;
    auto& floats = plan.floats;
    ints = {bits_,          zero_,         size(factors_), size(chains_),
            size(product_), size(passes_), observables,    size(coefficients)};
    for (const Factor& f : factors_) {
      ints.insert(ints.end(), {f.value.source, f.value.index});
      for (const Matrix* m : {&f.fixed, &f.even, &f.odd}) {
        floats.insert(floats.end(), m->begin(), m->end());
      }
      floats.insert(floats.end(), {f.rate, f.value.coefficient, f.value.offset});
    }
    for (const auto& [first, count] : chains_) ints.insert(ints.end(), {first, count});
    for (const auto& p : product_) ints.insert(ints.end(), {p[0], p[1], p[2]});
    for (const Pass& pass : passes_) {
      ints.insert(ints.end(), {pass.kind, size(pass.x), size(pass.entries)});
      ints.insert(ints.end(), pass.x.begin(), pass.x.end());
      for (const Entry& e : pass.entries) {
        ints.insert(ints.end(), {e.chain, size(e.masks), e.flips});
        ints.insert(ints.end(), e.masks.begin(), e.masks.end());
      }
    }
    // the logical index of physical 0, and what every physical bit adds to it
    int32_t origin = 0;
    for (int q = 0; q < bits_; ++q) origin |= (wires_[q].flip ? 1 : 0) << q;
    ints.push_back(origin);
    for (int b = 0; b < bits_; ++b) {
      int32_t image = 0;
      for (int q = 0; q < bits_; ++q) image |= (wires_[q].row >> b & 1) << q;
      ints.push_back(image);
    }
    ints.insert(ints.end(), terms.begin(), terms.end());
    floats.insert(floats.end(), coefficients.begin(), coefficients.end());
    floats.insert(floats.end(), dense_.begin(), dense_.end());
  }

 private:
  struct Wire {
    int32_t row, column;
    bool flip;
    std::vector<Factor> pending;  // gates on this wire alone that were not yet applied
  };
  struct Term {
    std::vector<Factor> factors;
    std::vector<int32_t> masks;
    int32_t flips;
  };

  int bits_;
  bool zero_;
  std::vector<Wire> wires_;
  std::vector<bool> written_;  // bits that the product state has already
  std::vector<Term> phases_;   // diagonal gates that were not yet applied
  std::vector<Factor> factors_;
  std::vector<std::array<int32_t, 2>> chains_;
  std::vector<std::array<int32_t, 3>> product_;
  std::vector<Pass> passes_;
  std::vector<double> dense_;

  template <typename T>
  static int32_t size(const std::vector<T>& v) {
    return static_cast<int32_t>(v.size());
  }

  static std::vector<int> with(std::vector<int> wires, int one) {
    wires.push_back(one);
    return wires;
  }

  int32_t chain(const std::vector<Factor>& factors) {
    chains_.push_back({size(factors_), size(factors)});
    factors_.insert(factors_.end(), factors.begin(), factors.end());
    return size(chains_) - 1;
  }

  void one(int32_t code, const std::vector<Factor>& factors, int q, const std::vector<int>& c) {
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

  void cnot(int control, int target) {
    flush(control);
    flush(target);
    Wire &c = wires_[control], &t = wires_[target];
    t.row ^= c.row;
    t.flip ^= c.flip;
    c.column ^= t.column;
  }

  void swap(int a, int b, const std::vector<int>& controls) {
    if (controls.empty()) return std::swap(wires_[a], wires_[b]);
    cnot(b, a);
    one(kX, {constant_factor({0, 0, 1, 0, 1, 0, 0, 0})}, b, with(controls, a));
    cnot(b, a);
  }

  Entry controlled(int32_t row, bool flip, const std::vector<int>& controls) const {
    Entry entry{0, {row}, flip};
    for (size_t k = 0; k < controls.size(); ++k) {
      entry.masks.push_back(wires_[controls[k]].row);
      entry.flips |= (wires_[controls[k]].flip ? 1 : 0) << (k + 1);
    }
    return entry;
  }

  // A diagonal matrix on the last wire where the others are 1.
  void phase_term(const std::vector<Factor>& factors, std::vector<int> wires) {
    const int q = wires.back();
    wires.pop_back();
    if (wires.empty()) return one(kP, factors, q, {});
    for (const int w : wires) flush(w);
    flush(q);
    const Entry entry = controlled(wires_[q].row, wires_[q].flip, wires);
    collect(factors, entry.masks, entry.flips);
  }

  void collect(const std::vector<Factor>& factors, std::vector<int32_t> masks, int32_t flips) {
    // one phase after another under the same masks is one phase
    for (Term& term : phases_) {
      if (term.masks == masks && term.flips == flips) {
        term.factors.insert(term.factors.end(), factors.begin(), factors.end());
        return;
      }
    }
    phases_.push_back({factors, std::move(masks), flips});
  }

  void pauli_rotation(const std::vector<int>& wires, const std::vector<int32_t>& letters,
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

  void dense(const Gate& gate) {
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

  // Applies what is pending on a wire.
  void flush(int q) {
    Wire& wire = wires_[q];
    if (wire.pending.empty()) return;
    const std::vector<Factor> factors = std::move(wire.pending);
    wire.pending.clear();
    const int32_t unit = 1 << bit_of(wire);
    if (zero_ && passes_.empty() && wire.row == unit && wire.column == unit &&
        !written_[bit_of(wire)] && commutes(unit)) {
      written_[bit_of(wire)] = true;
      product_.push_back({bit_of(wire), wire.flip, chain(factors)});
    } else if (all_diagonal(factors)) {
      collect(factors, {wire.row}, wire.flip);
    } else {
      emit_pair(wire.column, factors, {0, {wire.row}, wire.flip});
    }
  }

  static int bit_of(const Wire& wire) { return __builtin_ctz(static_cast<unsigned>(wire.column)); }

  void emit_pair(int32_t x, const std::vector<Factor>& factors, Entry entry) {
    entry.chain = chain(factors);
    emit({kPair, {x}, {std::move(entry)}});
  }

  // Whether the phases that wait can be applied after a flip by x as well.
  bool commutes(int32_t x) const {
    for (const Term& term : phases_) {
      for (const int32_t mask : term.masks) {
        if (odd_parity(mask & x)) return false;
      }
    }
    return true;
  }

  void emit(Pass pass) {
    if (!std::all_of(pass.x.begin(), pass.x.end(), [&](int32_t x) { return commutes(x); })) {
      emit_phases();
    }
    passes_.push_back(std::move(pass));
  }

  void emit_phases() {
    if (phases_.empty()) return;
    Pass pass{kPhase, {}, {}};
    for (const Term& term : phases_) {
      pass.entries.push_back({chain(term.factors), term.masks, term.flips});
    }
    phases_.clear();
    passes_.push_back(std::move(pass));
  }
};

}  // namespace

Plan make_plan(const Source& source, const Request& request) {
  if (source.wires < 1 || source.wires > 30) throw std::invalid_argument("1 to 30 wires");
  const auto terms = request.owners.size();
  if (request.letters.size() != terms * source.wires || request.coefficients.size() != terms) {
    throw std::invalid_argument("a term must have a letter a wire and a coefficient");
  }
  std::vector<Gate> gates = decode(source);
  std::vector<bool> active(source.wires, !request.observed);
  for (size_t k = 0; k < request.letters.size(); ++k) {
    if (request.letters[k] != 0) active[k % source.wires] = true;
  }
  if (request.observed) gates = light_cone(std::move(gates), active);
  if (!request.zero || std::none_of(active.begin(), active.end(), [](bool a) { return a; })) {
    active.assign(source.wires, true);
  }
  const int bits = static_cast<int>(std::count(active.begin(), active.end(), true));
  std::vector<int> bit(source.wires, -1);
  for (int w = 0, k = 0; w < source.wires; ++w) {
    if (active[w]) bit[w] = request.little ? k : bits - 1 - k;
    k += active[w];
  }

  Planner planner(bits, request.zero);
  for (Gate& gate : gates) {
    for (int& w : gate.wires) w = bit[w];
    for (int& w : gate.controls) w = bit[w];
    planner.add(gate);
  }
  planner.finish();

  std::vector<int32_t> words;
  for (size_t t = 0; t < terms; ++t) {
    std::vector<int> wires;
    std::vector<int32_t> letters;
    for (int w = 0; w < source.wires; ++w) {
      const int32_t letter = request.letters[t * source.wires + w];
      if (letter == 0) continue;
      wires.push_back(bit[w]);
      letters.push_back(letter);
    }
    const auto p = planner.word(wires, letters);
    words.insert(words.end(), {request.owners[t], p.x, p.z, p.phase});
  }
  const int observables = request.owners.empty()
                              ? 0
                              : *std::max_element(request.owners.begin(), request.owners.end()) + 1;
  Plan plan;
  planner.write(plan, observables, words, request.coefficients);
  return plan;
}

}  // namespace saccade::statevector
