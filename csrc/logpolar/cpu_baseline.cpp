#define SACCADE_ISA_NAMESPACE baseline
#define SACCADE_BYTES 16
#include "logpolar/cpu_kernel.inl"
