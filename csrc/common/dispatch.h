// The tables of kernels of the chosen instruction set.
#pragma once

#include <type_traits>

#include "common/isa.h"

// kTable of namespace baseline, avx2 or avx512, whichever was chosen; used inside an operator's
// namespace, where kernel.h declares the three.
#if defined(__x86_64__)
#define SACCADE_FOR_ISA(kTable) \
  (::saccade::for_isa(&baseline::kTable, &avx2::kTable, &avx512::kTable))
#else
#define SACCADE_FOR_ISA(kTable) (baseline::kTable)
#endif

namespace saccade {

template <typename Table>
const Table& for_isa(const Table* baseline, const Table* avx2, const Table* avx512) {
  switch (chosen_isa()) {
    case Isa::kAvx512:
      return *avx512;
    case Isa::kAvx2:
      return *avx2;
    case Isa::kBaseline:
      break;
  }
  return *baseline;
}

// Of a pair of tables the one for T, float or double.
template <typename T, typename F, typename D>
const auto& for_type(const F& single, const D& twice) {
  if constexpr (std::is_same_v<T, float>) {
    return single;
  } else {
    return twice;
  }
}

}  // namespace saccade
