// What waits, and how it becomes passes and numbers.
#include "statevector/planner.h"

#include <algorithm>
#include <utility>

#include "statevector/span.h"

namespace saccade::statevector::planner {

void Planner::finish() {
  for (int q = 0; q < bits_; ++q) flush(q);
  emit_phases();
}

int32_t Planner::chain(const std::vector<Factor>& factors) {
  chains_.push_back({size(factors_), size(factors)});
  factors_.insert(factors_.end(), factors.begin(), factors.end());
  return size(chains_) - 1;
}

void Planner::flush(int q) {
  Wire& wire = wires_[q];
  if (wire.pending.empty()) return;
  const std::vector<Factor> factors = std::move(wire.pending);
  wire.pending.clear();
  const int bit = __builtin_ctz(static_cast<unsigned>(wire.column));
  const int32_t unit = 1 << bit;
  if (zero_ && passes_.empty() && wire.row == unit && wire.column == unit && !written_[bit] &&
      commutes(unit)) {
    written_[bit] = true;
    product_.push_back({bit, wire.flip, chain(factors)});
  } else if (all_diagonal(factors)) {
    collect(factors, {wire.row}, wire.flip);
  } else {
    emit_pair(wire.column, factors, {0, {wire.row}, wire.flip});
  }
}

void Planner::emit_pair(int32_t x, const std::vector<Factor>& factors, Entry entry) {
  entry.chain = chain(factors);
  emit({kPair, {x}, {std::move(entry)}});
}

bool Planner::commutes(int32_t x) const {
  for (const Term& term : phases_) {
    for (const int32_t mask : term.masks) {
      if (odd_parity(mask & x)) return false;
    }
  }
  return true;
}

void Planner::emit(Pass pass) {
  if (!std::all_of(pass.x.begin(), pass.x.end(), [&](int32_t x) { return commutes(x); })) {
    emit_phases();
  }
  passes_.push_back(std::move(pass));
}

void Planner::emit_phases() {
  if (phases_.empty()) return;
  Pass pass{kPhase, {}, {}};
  for (const Term& term : phases_) {
    pass.entries.push_back({chain(term.factors), term.masks, term.flips});
  }
  phases_.clear();
  passes_.push_back(std::move(pass));
}

void Planner::write(Plan& plan, int observables, const std::vector<int32_t>& terms,
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

}  // namespace saccade::statevector::planner
