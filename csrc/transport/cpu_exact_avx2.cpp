#define SACCADE_ISA_NAMESPACE avx2
#define SACCADE_BYTES 32
#include "transport/cpu_emd.inl"
