// The CUDA kernels as one host library with a C interface, for ctypes.
#include <vector>

#include "gem/cuda_kernel.cuh"
#include "gem/cuda_launches.h"

using namespace saccade::gem;

extern "C" {

// A batch of problems: memory [B, t, P] with strides, grad [B, P] with one.
struct Batch {
  int dtype, batch, rows;
  int64_t columns;
  const char* memory;
  int64_t memory_batch, memory_row, stride;
  const char* grad;
  int64_t grad_batch;
};

// Parameters as one problem: pointers gradient by gradient, t memories and then the gradient.
struct Lists {
  int dtype, rows, count;
  const int64_t* columns;
  void** pointers;
};

struct Options {
  const double* slack;
  double lower, ridge, tolerance;
  int always;
};

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }

static Launches launches_of(const Batch& b) {
  Launches launches(static_cast<Dtype>(b.dtype), b.batch, b.rows);
  launches.set_strides(b.stride, b.memory_batch, b.grad_batch);
  const int64_t size = b.dtype == 0 ? 4 : 2;
  launches.add(b.columns, b.grad, [&](int i) { return b.memory + i * b.memory_row * size; });
  return launches;
}

static int sum_and_solve(Launches& launches, int batch, int rows, const Options& options,
                         double* dual, int32_t* status, double* gram_out, double* dot_out) {
  std::vector<double> partials(gram_partials(batch, rows, launches.slots()), __builtin_nan(""));
  for (const Pieces& pieces : launches.finished()) {
    if (const int error = gram(pieces, partials.data(), nullptr)) return error;
  }
  Solve s{};
  s.batch = batch, s.rows = rows, s.slots = launches.slots();
  s.partials = partials.data();
  s.slack = options.slack;
  s.lower = options.lower, s.ridge = options.ridge, s.tolerance = options.tolerance;
  s.always = options.always != 0;
  s.dual = dual, s.status = status, s.gram_out = gram_out, s.dot_out = dot_out;
  return solve(s, nullptr);
}

int run_forward(const Batch* b, const Options* options, void* out, double* dual, int32_t* status,
                double* gram_out) {
  Launches launches = launches_of(*b);
  const int error =
      sum_and_solve(launches, b->batch, b->rows, *options, dual, status, gram_out, nullptr);
  return error ? error : combine(launches.finished()[0], dual, out, nullptr);
}

int run_gram(const Batch* b, double* gram_out, double* dot_out) {
  Launches launches = launches_of(*b);
  return sum_and_solve(launches, b->batch, b->rows, Options{}, nullptr, nullptr, gram_out, dot_out);
}

int run_nnqp(int batch, int rows, const double* gram_in, const double* linear,
             const Options* options, double* dual, int32_t* status) {
  Solve s{};
  s.batch = batch, s.rows = rows;
  s.gram = gram_in, s.linear = linear;
  s.lower = options->lower, s.ridge = options->ridge, s.tolerance = options->tolerance;
  s.always = true;
  s.dual = dual, s.status = status;
  return solve(s, nullptr);
}

int run_backward(const Batch* b, const Options* options, double* dual, const double* gram_in,
                 const void* v, int64_t v_batch, void* grad_grad, void* grad_memory,
                 double* minus_y) {
  Launches launches = launches_of(*b);
  const Pieces& pieces = launches.finished()[0];
  std::vector<double> partials(dot_partials(b->batch, b->rows, launches.slots()),
                               __builtin_nan(""));
  if (const int error = dot(pieces, dual, options->lower, partials.data(), nullptr)) return error;
  Solve s{};
  s.batch = b->batch, s.rows = b->rows, s.slots = launches.slots();
  s.partials = partials.data();
  s.gram = gram_in;
  s.lower = options->lower, s.ridge = options->ridge, s.tolerance = options->tolerance;
  s.dual = dual;
  if (const int error = solve_active(s, minus_y, nullptr)) return error;
  const Outer o{dual, minus_y, v, v_batch, grad_grad, grad_memory};
  return outer(pieces, o, nullptr);
}

int run_lists(const Lists* l, const Options* options, double* dual, int32_t* status,
              int* launched) {
  Launches launches(static_cast<Dtype>(l->dtype), 1, l->rows);
  for (int k = 0; k < l->count; ++k) {
    void** const own = l->pointers + k * (l->rows + 1);
    launches.add(l->columns[k], own[l->rows], [&](int i) { return own[i]; });
  }
  *launched = static_cast<int>(launches.finished().size());
  const int error = sum_and_solve(launches, 1, l->rows, *options, dual, status, nullptr, nullptr);
  if (error) return error;
  for (const Pieces& pieces : launches.finished()) {
    if (const int failed = combine(pieces, dual, nullptr, nullptr)) return failed;
  }
  return 0;
}
}
