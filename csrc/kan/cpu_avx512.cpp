#define SACCADE_ISA_NAMESPACE avx512
#define SACCADE_BYTES 32
#define SACCADE_REGISTERS 32
#include "kan/cpu_kernel.inl"
