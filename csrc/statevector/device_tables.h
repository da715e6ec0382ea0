// A program as the CUDA kernels take it: one block of bytes, copied to the device once a call.
//
// A state is worked on in tiles that lie in shared memory. A sweep is what happens to all tiles
// between two visits to global memory: steps one after another. In a step a thread holds
// 2^kStepBits amplitudes in registers, a coset of the flips of the step's moves (2x2 matrices, or
// phases), and does all of these moves to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "statevector/program.h"

namespace saccade::statevector {

constexpr int kTileBits = 12;  // up to so many bits a tile is a state
constexpr int kWarpBits = 8;   // states of fewer bits share a tile of so many
constexpr int kStepBits = 3;
constexpr int kRunBits = 4;  // lowest bits that every tile has, so that memory is read in runs
constexpr int kUses = 32;    // matrices in a step at most: their gradients' sums wait side by side
constexpr int kMaxSlots = 256;  // blocks that share a sample at most

// parity(element & local) ^ parity(tile's first index & high) ^ flip tells one bit of the variant
// of a thread's first amplitude, `pattern` what the others add, a bit each.
struct MaskBits {
  uint32_t high;
  uint16_t local;
  uint8_t pattern, flip;
};

// A matrix where it acts. Of chains that samples have for themselves `place` counts among those.
struct Use {
  int32_t place;   // of a dense gate: where its matrix starts
  int32_t wanted;  // where its gradient goes, or -1
  int32_t own, masks;
  MaskBits mask[kMaxMasks];
};

struct Move {
  int32_t axis;  // the pairs differ in this bit of a thread's amplitudes; -1: phases
  int32_t first, count;
};

struct Step {
  int32_t dense;         // the wires of a dense gate, else 0
  int32_t first, count;  // moves
  int32_t first_use, uses;
  uint16_t basis[kMaxFlips];   // flips, as elements of a tile
  uint16_t pivots[kMaxFlips];  // ascending: a coset has one element without these bits
};

struct Sweep {
  int32_t first, count;       // steps
  int32_t bits;               // of a sample in a tile
  uint32_t basis[kTileBits];  // what every bit of an element adds to an index
  int32_t pivots[kTileBits];
};

// What factors of one kind share.
struct Shape {
  double fixed[8], even[8], odd[8], rate;
};

struct DeviceFactor {
  int32_t shape, source, index;
  int32_t slot;  // where its derivative goes, or -1
  double coefficient, offset;
};

struct DeviceChain {
  int32_t first, count;
  int32_t wanted;
};

// A parameter or an input, and the derivatives that add up to its gradient: slot * 2 + own.
struct Collected {
  int32_t index, first, count;
};

struct DeviceProgram {
  const Step* steps;
  const Move* moves;
  const Use* uses;
  const double* dense;
  const Term* terms;           // sorted by their observable
  const int32_t* first_terms;  // [observables + 1]
  const Shape* shapes;
  const DeviceFactor* factors;
  const DeviceChain *shared, *own;
  const Collected *params, *inputs;
  const int32_t* items;
};

struct Tables {
  std::vector<unsigned char> bytes;
  std::vector<Sweep> sweeps;
  int32_t bits, n_shared, n_own, n_wanted, n_shared_slots, n_own_slots, n_params, n_inputs;
  int32_t observables, n_terms;

  // Raises where a chain is used twice.
  Tables(const Program& program, int64_t observables);

  // The same in memory of the device, which starts at `base`.
  DeviceProgram at(const void* base) const;

 private:
  size_t steps_, moves_, uses_, dense_, terms_, first_terms_, shapes_, factors_, shared_, own_;
  size_t params_, inputs_, items_;
};

}  // namespace saccade::statevector
