#define SACCADE_ISA_NAMESPACE baseline
#define SACCADE_BYTES 16
#define SACCADE_REGISTERS 16
#include "transport/cpu_kernel.inl"
