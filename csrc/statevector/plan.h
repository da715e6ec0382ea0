// The planner of state-vector simulation: from a circuit to passes over the data. No torch.
//
// Data live at physical indices p. Wire q reads its bit as parity(p & row_q) ^ flip_q and flips it
// by p -> p ^ column_q. CNOT, SWAP and X change these masks alone, so they cost nothing. Gates on
// one wire are merged to one 2x2 matrix, diagonal gates are collected into one phase pass, and the
// first gates on |0...0> become a product state that is written down directly.
#pragma once

#include <cstdint>
#include <vector>

namespace saccade::statevector {

// A circuit in the encoding of Program.encode().
struct Source {
  int wires;
  std::vector<int32_t> ints;
  std::vector<double> floats;
};

struct Request {
  bool zero;    // the circuit starts at |0...0>, not at a given state
  bool little;  // wire 0 is the least significant bit of a given or a resulting state
  // Of the terms of Pauli sums: their observable, a letter (0 I, 1 X, 2 Y, 3 Z) for each wire, and
  // their coefficient. With observables what lies outside their light cone is left out.
  bool observed;
  std::vector<int32_t> owners;
  std::vector<int32_t> letters;
  std::vector<double> coefficients;
};

// The streams that program.h reads.
struct Plan {
  std::vector<int32_t> ints;
  std::vector<double> floats;
};

Plan make_plan(const Source& source, const Request& request);

}  // namespace saccade::statevector
