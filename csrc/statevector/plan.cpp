#include "statevector/plan.h"

#include <algorithm>
#include <stdexcept>

#include "statevector/planner.h"

namespace saccade::statevector {

Plan make_plan(const Source& source, const Request& request) {
  if (source.wires < 1 || source.wires > 30) throw std::invalid_argument("1 to 30 wires");
  const auto terms = request.owners.size();
  if (request.letters.size() != terms * source.wires || request.coefficients.size() != terms) {
    throw std::invalid_argument("a term must have a letter a wire and a coefficient");
  }
  using planner::Gate;
  std::vector<Gate> gates = planner::decode(source);
  std::vector<bool> active(source.wires, !request.observed);
  for (size_t k = 0; k < request.letters.size(); ++k) {
    if (request.letters[k] != 0) active[k % source.wires] = true;
  }
  if (request.observed) gates = planner::light_cone(std::move(gates), active);
  if (!request.zero || std::none_of(active.begin(), active.end(), [](bool a) { return a; })) {
    active.assign(source.wires, true);
  }
  const int bits = static_cast<int>(std::count(active.begin(), active.end(), true));
  std::vector<int> bit(source.wires, -1);
  for (int w = 0, k = 0; w < source.wires; ++w) {
    if (active[w]) bit[w] = request.little ? k : bits - 1 - k;
    k += active[w];
  }

  planner::Planner made(bits, request.zero);
  for (Gate& gate : gates) {
    for (int& w : gate.wires) w = bit[w];
    for (int& w : gate.controls) w = bit[w];
    made.add(gate);
  }
  made.finish();

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
    const auto p = made.word(wires, letters);
    words.insert(words.end(), {request.owners[t], p.x, p.z, p.phase});
  }
  const int observables = request.owners.empty()
                              ? 0
                              : *std::max_element(request.owners.begin(), request.owners.end()) + 1;
  Plan plan;
  made.write(plan, observables, words, request.coefficients);
  return plan;
}

}  // namespace saccade::statevector
