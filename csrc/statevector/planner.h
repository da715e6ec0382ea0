// Gates one after another become passes over the data: the index frame, merging, and what waits.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "statevector/plan.h"
#include "statevector/plan_gates.h"

namespace saccade::statevector::planner {

template <typename T>
int32_t size(const std::vector<T>& v) {
  return static_cast<int32_t>(v.size());
}

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
  void add(const Gate& gate);
  void finish();

  // A Pauli string as P|p> = i^phase (-1)^parity(p & z) |p ^ x>.
  struct Word {
    int32_t x = 0, z = 0, phase = 0;
  };
  Word word(const std::vector<int>& wires, const std::vector<int32_t>& letters) const;

  void write(Plan& plan, int observables, const std::vector<int32_t>& terms,
             const std::vector<double>& coefficients) const;

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

  // plan_frame.cpp
  void one(int32_t code, const std::vector<Factor>& factors, int q, const std::vector<int>& c);
  void cnot(int control, int target);
  void swap(int a, int b, const std::vector<int>& controls);
  Entry controlled(int32_t row, bool flip, const std::vector<int>& controls) const;
  // A diagonal matrix on the last wire where the others are 1.
  void phase_term(const std::vector<Factor>& factors, std::vector<int> wires);
  void collect(const std::vector<Factor>& factors, std::vector<int32_t> masks, int32_t flips);
  void pauli_rotation(const std::vector<int>& wires, const std::vector<int32_t>& letters,
                      const Value& value, const std::vector<int>& controls);
  void dense(const Gate& gate);

  // plan_passes.cpp
  int32_t chain(const std::vector<Factor>& factors);
  // Applies what is pending on a wire.
  void flush(int q);
  void emit_pair(int32_t x, const std::vector<Factor>& factors, Entry entry);
  // Whether the phases that wait can be applied after a flip by x as well.
  bool commutes(int32_t x) const;
  void emit(Pass pass);
  void emit_phases();
};

}  // namespace saccade::statevector::planner
