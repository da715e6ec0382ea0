#define SACCADE_ISA_NAMESPACE avx512
#define SACCADE_BYTES 32
#include "logpolar/cpu_kernel.inl"
