// The planner's streams as the kernels take them.
#pragma once

#include <cstdint>
#include <vector>

#include "statevector/kernel.h"

namespace saccade::statevector {

// A plan, decoded and checked; it points into the streams.
struct Program {
  int32_t bits = 0;
  bool zero = false;
  int32_t observables = 0;
  std::vector<Factor> factors;
  std::vector<Chain> chains;
  std::vector<Product> product;
  std::vector<Pass> passes;
  std::vector<std::vector<int32_t>> flips;  // of every pass, the physical x of its wires
  std::vector<Entry> entries;
  std::vector<std::vector<int32_t>> masks;  // of every entry
  std::vector<int32_t> images;
  int32_t origin = 0;
  std::vector<Term> terms;
  const double* dense = nullptr;

  // Raises where the streams are not a plan for so many parameters and inputs.
  Program(const int32_t* ints, int64_t n_ints, const double* floats, int64_t n_floats,
          int64_t n_params, int64_t n_inputs);

  // Fills in the parts of masks that depend on the lanes, and returns the groups.
  std::vector<Group> group(int32_t lane_bits);
};

}  // namespace saccade::statevector
