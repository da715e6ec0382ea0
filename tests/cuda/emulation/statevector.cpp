// The CUDA kernels as one host library with a C interface, for ctypes.
#include "statevector/device_tables.cu"
#include "statevector/program.cpp"

#include <cstdlib>

#include "statevector/cuda_calls.h"

using namespace saccade::statevector;

extern "C" {

struct Problem {
  int is_double;
  const int32_t* ints;
  int64_t n_ints;
  const double* floats;
  int64_t n_floats, batch, n_params, n_inputs, observables;
  const void *params, *inputs, *state;
};

void set_reversed(int reversed) { emulation::reversed = reversed != 0; }
}

// Memory that holds NaN until it is written.
class Heap {
 public:
  std::vector<void*> blocks;
  ~Heap() {
    for (void* block : blocks) std::free(block);
  }
  void* operator()(size_t bytes) {
    blocks.push_back(std::aligned_alloc(64, (bytes + 64) / 64 * 64));
    std::memset(blocks.back(), 0xff, bytes);
    return blocks.back();
  }
};

// f(call, state) with numbers of a problem's type.
template <class T, class F>
static int with_call(const Problem& p, const F& f) {
  const Program program(p.ints, p.n_ints, p.floats, p.n_floats, p.n_params, p.n_inputs);
  Heap heap;
  const auto make = [&heap](size_t bytes) { return heap(bytes); };
  Call<T, decltype(make)> call(program, p.observables, p.batch, p.n_inputs,
                               static_cast<const T*>(p.params), static_cast<const T*>(p.inputs),
                               make, nullptr);
  return f(call, static_cast<const T*>(p.state));
}

template <class F>
static int run(const Problem* p, const F& f) {
  return p->is_double ? with_call<double>(*p, f) : with_call<float>(*p, f);
}

extern "C" {

int run_state(const Problem* p, void* out) {
  return run(p, [&]<class T>(auto& call, const T* state) {
    return call.state(state, static_cast<T*>(out));
  });
}

int run_expectations(const Problem* p, void* values, void* kept) {
  return run(p, [&]<class T>(auto& call, const T* state) {
    return call.expectations(state, static_cast<T*>(values), static_cast<T*>(kept));
  });
}

int run_state_backward(const Problem* p, const void* out, const void* grad_out, void* params,
                       void* inputs, void* state) {
  return run(p, [&]<class T>(auto& call, const T*) {
    return call.state_backward(
        static_cast<const T*>(out), static_cast<const T*>(grad_out),
        {static_cast<T*>(params), static_cast<T*>(inputs), static_cast<T*>(state)});
  });
}

int run_expectations_backward(const Problem* p, const void* kept, const void* weights, void* params,
                              void* inputs, void* state) {
  return run(p, [&]<class T>(auto& call, const T*) {
    return call.expectations_backward(
        static_cast<const T*>(kept), static_cast<const T*>(weights),
        {static_cast<T*>(params), static_cast<T*>(inputs), static_cast<T*>(state)});
  });
}
}
