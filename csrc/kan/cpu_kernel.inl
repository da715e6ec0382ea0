// The CPU kernels of Kolmogorov-Arnold layers, for one instruction set: SACCADE_ISA_NAMESPACE and
// SACCADE_BYTES name it. No function here may be shared with another instruction set's file, so
// nothing of the C++ library is included but traits.
#pragma once

#include <type_traits>

#include "kan/cpu_dense.inl"
#include "kan/cpu_rational.inl"
#include "kan/cpu_spline_backward.inl"
#include "kan/cpu_wavelet.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

template <typename T, template <typename> class Buffer>
int64_t size_of(const Problem& p, const Block& block) {
  Scratch<T> sizes(nullptr);
  Buffer<T>(p, block, sizes);
  return sizes.used();
}

template <typename T>
int64_t forward_scratch(const Problem& p, const Block& block) {
  if (p.basis == Basis::kBspline) return size_of<T, SplineForward>(p, block);
  if (p.basis == Basis::kWavelet) return size_of<T, WaveletForward>(p, block);
  return size_of<T, DenseForward>(p, block);
}

template <typename T>
int64_t grad_input_scratch(const Problem& p, const Block& block) {
  return p.basis == Basis::kBspline ? size_of<T, SplineInput>(p, block)
                                    : size_of<T, DenseInput>(p, block);
}

template <typename T>
int64_t grad_weight_scratch(const Problem& p, const Block& block) {
  return p.basis == Basis::kBspline ? size_of<T, SplineWeight>(p, block)
                                    : size_of<T, DenseWeight>(p, block);
}

template <typename T>
void forward(const Args<T>& args, const Block& block, T* scratch) {
  switch (args.problem.basis) {
    case Basis::kBspline:
      return spline_forward(args, block, scratch);
    case Basis::kWavelet:
      return wavelet_forward(args, block, scratch);
    default:
      return dense_forward(args, block, scratch);
  }
}

template <typename T>
void grad_input(const Args<T>& args, const Block& block, T* sums, T* scratch) {
  if (args.problem.basis == Basis::kBspline) {
    spline_grad_input(args, block, scratch);
  } else {
    dense_grad_input(args, block, sums, scratch);
  }
}

template <typename T>
void grad_weight(const Args<T>& args, const Block& block, T* sums, T* scratch) {
  if (args.problem.basis == Basis::kBspline) {
    spline_grad_weight(args, block, sums, scratch);
  } else {
    dense_grad_weight(args, block, sums, scratch);
  }
}

template <typename T>
constexpr Kernels<T> kKernels{kPanel<T>,
                              forward_scratch<T>,
                              grad_input_scratch<T>,
                              grad_weight_scratch<T>,
                              size_of<T, SplineGrid>,
                              size_of<T, WaveletBackward>,
                              forward<T>,
                              pack_grad<T>,
                              grad_input<T>,
                              grad_weight<T>,
                              write_weight<T>,
                              spline_grad_grid<T>,
                              wavelet_backward<T>,
                              rational<T>,
                              rational_backward<T>};

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
const Kernels<float> kFloat = kKernels<float>;
const Kernels<double> kDouble = kKernels<double>;

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
