// Instruction sets that the CPU kernels are compiled for, and the choice between them.
#pragma once

namespace saccade {

enum class Isa { kBaseline, kAvx2, kAvx512 };

inline constexpr Isa kIsas[] = {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512};

const char* name(Isa isa);

// Whether this CPU has it, whatever SACCADE_ISA says.
bool possible(Isa isa);

// The best possible level, capped by SACCADE_ISA (baseline, avx2, avx512); read once.
Isa chosen_isa();

}  // namespace saccade
