#define SACCADE_ISA_NAMESPACE baseline
#define SACCADE_BYTES 16
#include "transport/cpu_emd.inl"
