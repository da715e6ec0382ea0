#define SACCADE_ISA_NAMESPACE avx2
#define SACCADE_BYTES 32
#include "logpolar/cpu_kernel.inl"
