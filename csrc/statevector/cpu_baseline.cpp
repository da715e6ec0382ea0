#define SACCADE_ISA_NAMESPACE baseline
#define SACCADE_BYTES 16
#include "statevector/cpu_kernel.inl"
