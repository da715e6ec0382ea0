// The CUDA kernels as one host library with a C interface, for ctypes.
#include "neighborhood_attention/cuda_kernel.cuh"

using namespace saccade::na;

extern "C" {

int64_t sizes(const Problem* p, int which) { return which == 0 ? bias_slots(*p) : extra_slots(*p); }
void set_reversed(int reversed) { emulation::reversed = reversed != 0; }
int run_forward(const Forward* f) { return forward(*f, nullptr); }
int run_backward(const Backward* b) { return backward(*b, nullptr); }

// out: start, end, first visitor, end of visitors
void intervals(const Axis* axis, int n, int position, int* out) {
  const Interval keys = window(*axis, n, position), queries = visitors(*axis, n, position);
  out[0] = keys.lo, out[1] = keys.hi, out[2] = queries.lo, out[3] = queries.hi;
}

void tiling(const Axis* axes, int teams, int rows, int capacity, int64_t batch, int heads,
            int extra, Tiling* out) {
  const Axis three[3] = {axes[0], axes[1], axes[2]};
  *out = make_tiling(three, teams, rows, capacity, batch, heads, extra);
}

int place(const Tiling* tiling, int heads, int64_t item, Site* site) {
  return locate(*tiling, heads, item, *site);
}
}
