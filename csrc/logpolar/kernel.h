// The wall between torch and the CPU kernels of log-polar sampling: raw pointers and sizes.
//
// All rays of a ring are sampled alike: by the product of a few radii, a few angles and one or two
// levels of a pyramid, which follow from the ring and the fixation's scale alone. Vectors run along
// the rays.
#pragma once

#include <cstdint>

namespace saccade::logpolar {

inline constexpr int64_t kLevels = 6;  // of a pyramid, above the image
inline constexpr int64_t kMaxTaps = 64;
inline constexpr int64_t kMaxMipTaps = 4;

// Pixels a side of the window around a fixation whose channels sampling puts side by side.
inline constexpr int64_t kWindowSide = 64;
inline constexpr int64_t kWindowScratch = 4 * (kWindowSide * kWindowSide + 1);

// Elements that backward works in for a channel: a vector, and a window with four places a pixel.
inline constexpr int64_t kScratch = 16 + 4 * 24 * 24;

enum Padding : int64_t { kZeros, kBorder, kReflection };
enum Antialias : int64_t { kNone, kArea, kMip };
enum Law : int64_t { kLogarithmic, kLinear, kTable };

// What a fixation is: [B, N, 2], [B, N] and [B, N], contiguous.
template <typename T>
struct Poses {
  int64_t batch, fixations;
  const T* fixation;
  const T* theta0;
  const T* scale;
  bool normalized;
};

// One level of all images: planes [height, width] without gaps.
template <typename T>
struct Level {
  const T* data;
  int64_t batch, channel;  // strides
  int64_t height, width;
};

template <typename T>
struct Sampling {
  Poses<T> poses;
  int64_t channels, rings, rays;
  Level<T> level[kLevels + 1];
  const T* radii;   // [R]
  const T* edges;   // [R + 1]
  const T* cosine;  // of 2 pi j / T, zeros up to a multiple of 16
  const T* sine;
  int64_t padding, antialias;
};

// Fixations [begin, end) of one batch entry, channels [first, last).
struct Part {
  int64_t batch, begin, end, first, last;
};

template <typename T>
struct SamplingGradients {
  const T* out;  // [B, N, C, R, T]
  // Planes without gaps that are accumulated into, with the strides of `level`'s twins; or null.
  T* level[kLevels + 1];
  int64_t batch[kLevels + 1], channel[kLevels + 1];
  double* pose;  // [4] for x, y, theta0 and scale, of every fixation from `begin` on; or null

  T* plane(int64_t number, const Part& part) const {
    return level[number] + part.batch * batch[number] + part.first * channel[number];
  }
};

template <typename T>
struct Inversion {
  Poses<T> poses;
  int64_t channels, rings, rays, height, width;
  const T* map;    // [B, N, C, R, T]
  const T* radii;  // [R]
  int64_t law;
  T offset;
  bool mean;
  T fill;
};

template <typename T>
struct InversionGradients {
  const T* out;    // [B, C, H, W] or [B, N, C, H, W]
  const T* count;  // [B, H, W] or null
  T* map;          // accumulated into, or null
  double* pose;    // [B, N, 4] or null
};

template <typename T>
struct Kernels {
  // Rings [begin, end) of one fixation, into out [B, N, C, R, T]. scratch: kWindowScratch elements.
  void (*sample)(const Sampling<T>&, T* out, int64_t batch, int64_t fixation, int64_t begin,
                 int64_t end, T* scratch);
  // scratch: kScratch elements a channel.
  void (*sample_backward)(const Sampling<T>&, const SamplingGradients<T>&, const Part&, T* scratch);
  // Up to four channels side by side, quads [pixels + 1, 4], from planes without gaps.
  void (*to_quads)(const T* plane, int64_t channel, int64_t channels, int64_t pixels, T* quads);
  // As sample, of the channels from `first` on that lie in quads.
  void (*sample_quads)(const Sampling<T>&, const T* quads, T* out, int64_t batch, int64_t fixation,
                       int64_t begin, int64_t end, int64_t first, int64_t channels);
  // As sample_backward for the image alone, without a pyramid and up to four channels, whose planes
  // it writes; quads: scratch.
  void (*sample_backward_quads)(const Sampling<T>&, const SamplingGradients<T>&, const Part&,
                                T* quads);
  // Rows [begin, end) of one batch entry (mean) or of one fixation.
  void (*inverse)(const Inversion<T>&, T* out, T* count, int64_t batch, int64_t fixation,
                  int64_t begin, int64_t end);
  // scratch: one element a channel.
  void (*inverse_backward)(const Inversion<T>&, const InversionGradients<T>&, int64_t batch,
                           int64_t fixation, T* scratch);
};

// One pair of tables an instruction set, each in its own file.
namespace baseline {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace avx2
namespace avx512 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace avx512
#endif

}  // namespace saccade::logpolar
