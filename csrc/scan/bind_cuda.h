// What the CUDA bindings of scans share: checks, allocation, and sizes and strides as the kernels
// want them.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <string_view>
#include <tuple>
#include <vector>

#include "common/bind.h"
#include "scan/cuda_kernel.cuh"
#include "scan/kernel.h"

namespace saccade::scan_device {

using torch::stable::accelerator::DeviceGuard;
using Ints = std::vector<int64_t>;

inline Dtype dtype_of(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBfloat16;
    default:
      STD_TORCH_CHECK(false, name, " must be float16, bfloat16 or float32 on CUDA.");
  }
}

inline void check_shape(const char* name, const Tensor& tensor, const Tensor& first,
                        const Ints& sizes) {
  bool same =
      tensor.dim() == static_cast<int64_t>(sizes.size()) && tensor.device() == first.device();
  for (size_t i = 0; same && i < sizes.size(); ++i) {
    same = tensor.size(static_cast<int64_t>(i)) == sizes[i];
  }
  std::ostringstream wanted;
  for (const int64_t size : sizes) wanted << (wanted.tellp() > 0 ? ", " : "") << size;
  STD_TORCH_CHECK(same, name, " must be [", wanted.str(),
                  "] on the device of the first tensor, got ", shape(tensor), ".");
}

inline void check_like(const char* name, const Tensor& tensor, const Tensor& first,
                       const Ints& sizes) {
  check_shape(name, tensor, first, sizes);
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), name,
                  " must have the dtype of the first tensor.");
}

inline int to_int(const char* name, int64_t size, int64_t most = INT32_MAX) {
  STD_TORCH_CHECK(size <= most, name, " may be at most ", most, " on CUDA, got ", size, ".");
  return static_cast<int>(size);
}

// Axes by letters: b(atch), k (path), d, g or h (row), n (state), l (step).
inline View view(const Tensor& tensor, std::string_view axes) {
  View v{};
  v.data = const_cast<void*>(tensor.const_data_ptr());
  v.dtype = dtype_of("every tensor", tensor);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t stride = tensor.stride(static_cast<int64_t>(i));
    switch (axes[i]) {
      case 'b':
        v.batch = stride;
        break;
      case 'k':
        v.path = stride;
        break;
      case 'n':
        v.state = stride;
        break;
      case 'l':
        v.step = stride;
        break;
      default:
        v.row = stride;
    }
  }
  return v;
}

// [B, L, H, P] with channels h * P + p.
inline View flat_view(const Tensor& tensor) {
  View v = view(tensor, "blhd");
  v.row = tensor.stride(3);
  return v;
}

// A tensor whose last two axes are one axis in memory.
inline Tensor with_flat_heads(const Tensor& tensor) {
  const bool flat = tensor.size(2) <= 1 || tensor.stride(2) == tensor.size(3) * tensor.stride(3);
  return flat ? tensor : torch::stable::contiguous(tensor);
}

inline bool is_channels_last(const Tensor& tensor) {
  const int64_t d = tensor.dim();
  return tensor.stride(d - 2) == 1 && tensor.stride(d - 1) != 1;
}

// Uninitialised, with the shape and type of a tensor: contiguous, or channels-last where it is.
inline Tensor laid_out_like(const Tensor& tensor) {
  Ints sizes(tensor.sizes().begin(), tensor.sizes().end());
  if (!is_channels_last(tensor)) return torch::stable::new_empty(tensor, sizes);
  std::swap(sizes[sizes.size() - 1], sizes[sizes.size() - 2]);
  return torch::stable::transpose(torch::stable::new_empty(tensor, sizes), -1, -2);
}

inline Tensor floats(const Tensor& like, const Ints& sizes) {
  return torch::stable::new_empty(like, sizes, ScalarType::Float);
}

inline float* data(Tensor& tensor) {
  return tensor.numel() > 0 ? static_cast<float*>(tensor.mutable_data_ptr()) : nullptr;
}

inline OptionalTensor to_floats(const OptionalTensor& tensor) {
  return to_contiguous(tensor, ScalarType::Float);
}

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

struct Sequence {
  const int* ids = nullptr;
  int64_t batch = 0, step = 0;
};

inline Sequence sequence(const OptionalTensor& ids, const Tensor& first, int64_t batch,
                         int64_t length) {
  if (!ids.has_value()) return {};
  check_shape("seq_idx", *ids, first, {batch, length});
  STD_TORCH_CHECK(ids->scalar_type() == ScalarType::Int, "seq_idx must be int32.");
  return {static_cast<const int*>(ids->const_data_ptr()), ids->stride(0), ids->stride(1)};
}

inline Tensor scratch_for(const Tensor& like, int64_t count) { return floats(like, {count}); }

// The inputs of selective_scan or ssd_scan as the kernels read them, kept alive while the kernels
// are launched.
struct Inputs {
  Problem problem{};
  Tensor u, z_flat, a, b, c;
  OptionalTensor d, bias, initial;
  Ints state;  // shape of a state, batch included

  bool empty() const { return problem.batch == 0 || problem.channels == 0 || problem.length == 0; }
};

inline void set_sequence(Problem& p, const Sequence& s) {
  p.sequence = s.ids;
  p.sequence_batch = s.batch;
  p.sequence_step = s.step;
}

using Gradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

inline void check_checkpoints(const Tensor& checkpoints, const Tensor& first, int64_t chunk,
                              const Ints& sizes) {
  STD_TORCH_CHECK(chunk >= 1, "chunk must be at least 1 in a backward, got ", chunk, ".");
  check_shape("checkpoints", checkpoints, first, sizes);
}

inline std::tuple<Tensor, Tensor, Tensor> run_forward(const Inputs& in, Tensor out,
                                                      const View& out_view, Tensor last,
                                                      Tensor saved,
                                                      const Checkpoints& checkpoints) {
  Tensor scratch = scratch_for(in.u, forward_scratch(in.problem));
  Forward f{};
  f.problem = in.problem;
  f.initial = data_or_null<float>(in.initial);
  f.out = out_view;
  f.checkpoints = checkpoints;
  f.last = data(last);
  f.scratch = data(scratch);
  STD_CUDA_CHECK(forward(f, current_stream(in.u)));
  return {out, last, saved};
}

}  // namespace saccade::scan_device
