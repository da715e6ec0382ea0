// csrc/common/math.inl of one instruction set as a host library with a C interface, for ctypes.
#include "common/math.inl"

namespace {

using namespace saccade::SACCADE_ISA_NAMESPACE;

// count is a multiple of every vector's width.
template <typename T, typename F>
void map(const T* x, T* y, int64_t count, const F& function) {
  for (int64_t i = 0; i < count; i += kWidth<T>) store<T>(y + i, function(load(x + i)));
}

template <typename T>
void sin_only(const T* x, T* y, int64_t count) {
  map(x, y, count, [](Vec<T> v) {
    Vec<T> s, c;
    sincos<T>(v, &s, &c);
    return s;
  });
}

template <typename T>
void cos_only(const T* x, T* y, int64_t count) {
  map(x, y, count, [](Vec<T> v) {
    Vec<T> s, c;
    sincos<T>(v, &s, &c);
    return c;
  });
}

}  // namespace

#define EXPORT(name, expression)                                             \
  extern "C" void name##_float(const float* x, float* y, int64_t count) {    \
    using T = float;                                                         \
    map(x, y, count, [](Vec<T> v) { return expression; });                   \
  }                                                                          \
  extern "C" void name##_double(const double* x, double* y, int64_t count) { \
    using T = double;                                                        \
    map(x, y, count, [](Vec<T> v) { return expression; });                   \
  }

EXPORT(vector_exp, exp<T>(v))
EXPORT(vector_exp2_bounded, exp2_bounded<T>(v))
EXPORT(vector_log, log<T>(v))
EXPORT(vector_log1p, log1p<T>(v))
EXPORT(vector_tanh, tanh<T>(v))
EXPORT(vector_sigmoid, sigmoid<T>(v))
EXPORT(vector_softplus, softplus<T>(v))
EXPORT(vector_floor, to_float<T>(floor_to_int<T>(v)))

extern "C" void vector_sin_float(const float* x, float* y, int64_t n) { sin_only(x, y, n); }
extern "C" void vector_sin_double(const double* x, double* y, int64_t n) { sin_only(x, y, n); }
extern "C" void vector_cos_float(const float* x, float* y, int64_t n) { cos_only(x, y, n); }
extern "C" void vector_cos_double(const double* x, double* y, int64_t n) { cos_only(x, y, n); }
