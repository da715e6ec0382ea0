#define SACCADE_ISA_NAMESPACE avx512
#define SACCADE_BYTES 64
#define SACCADE_REGISTERS 32
#include "kan/cpu_kernel.inl"
