// The wall between torch and the CUDA kernels of log-polar sampling: raw pointers, sizes and a
// stream. Coordinates and sums are float32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace saccade::polar {

enum class Dtype { kFloat, kHalf, kBfloat16, kByte };
enum class Padding { kZeros, kBorder, kReflection };
enum class Antialias { kNone, kArea, kMip };
enum class Law { kLogarithmic, kLinear, kTable };

constexpr int kLevels = 6;  // of a pyramid, above the image
constexpr int kMaxTaps = 64;
constexpr int kMaxMipTaps = 4;
constexpr int kThreads = 128;

// Fixations [B, N, 2], angles and scales [B, N].
struct Poses {
  int batch, fixations;
  const float *fixation, *theta0, *scale;
  bool normalized;
};

struct Sampling {
  Poses poses;
  int channels, height, width, rings, rays;
  Padding padding;
  Antialias antialias;
  const float *radii, *edges;  // [R], [R + 1]
  Dtype dtype;
  const void* image;     // [B, C, H, W]
  const float* pyramid;  // [B, C, P], levels 1 to kLevels one after another, or null
  int64_t pyramid_size;  // P
};

struct SamplingGradients {
  const float* out;                  // [B, N, C, R, T]
  float* image;                      // [B, C, H, W] of zeros, or null
  float* pyramid;                    // [B, C, P] of zeros, or null
  float* partial;                    // [B, N, R, 4], scratch, or null
  float *fixation, *theta0, *scale;  // like the poses, or null
};

// out: [B, N, C, R, T] of the image's type, float32 for bytes.
cudaError_t sample(const Sampling& sampling, void* out, cudaStream_t stream);
// The image is float32 here.
cudaError_t sample_backward(const Sampling& sampling, const SamplingGradients& gradients,
                            cudaStream_t stream);

struct Inversion {
  Poses poses;
  int channels, rings, rays, height, width;
  const float* map;    // [B, N, C, R, T]
  const float* radii;  // [R]
  Law law;
  float offset, fill;
  bool mean;
};

struct InversionGradients {
  const float* out;                  // [B, C, H, W] or [B, N, C, H, W]
  const float* count;                // [B, H, W] or null
  float* map;                        // [B, N, C, R, T] of zeros, or null
  float* partial;                    // [B, N, H, 4], scratch, or null
  float *fixation, *theta0, *scale;  // like the poses, or null
};

// out [B, C, H, W] and count [B, H, W], or out [B, N, C, H, W] and null.
cudaError_t inverse(const Inversion& inversion, float* out, float* count, cudaStream_t stream);
cudaError_t inverse_backward(const Inversion& inversion, const InversionGradients& gradients,
                             cudaStream_t stream);

// Adds [items, parts, 4] partial sums of poses up in their order.
cudaError_t sum_poses(const float* partial, int64_t items, int parts, float* fixation,
                      float* theta0, float* scale, cudaStream_t stream);

}  // namespace saccade::polar
