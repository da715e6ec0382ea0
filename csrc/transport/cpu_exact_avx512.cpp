#define SACCADE_ISA_NAMESPACE avx512
#define SACCADE_BYTES 64
#include "transport/cpu_emd.inl"
