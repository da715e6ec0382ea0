// The vectors of common/simd.inl under their short names.
#pragma once

#include "common/simd.inl"

namespace saccade::gem::SACCADE_ISA_NAMESPACE {

using saccade::SACCADE_ISA_NAMESPACE::broadcast;
using saccade::SACCADE_ISA_NAMESPACE::fill_zero;
using saccade::SACCADE_ISA_NAMESPACE::in_register;
using saccade::SACCADE_ISA_NAMESPACE::kWidth;
using saccade::SACCADE_ISA_NAMESPACE::load;
using saccade::SACCADE_ISA_NAMESPACE::store;
using saccade::SACCADE_ISA_NAMESPACE::Vec;

}  // namespace saccade::gem::SACCADE_ISA_NAMESPACE
