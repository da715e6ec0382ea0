// Torch's side of the CPU kernels: half types are computed in float32 and rounded once. Work is cut
// by sizes alone wherever sums are split, so that the bits do not depend on the number of threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "common/bind.h"
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "kan/bind.h"

namespace saccade::kan {

namespace {

using Ints = std::vector<int64_t>;

constexpr int64_t kRows = 512;  // of one task, at most, unless many slots want more
constexpr int64_t kMaxRows = 2048;
constexpr int64_t kGridRows = 512;
constexpr int64_t kMaxPartials = 64;  // blocks of rows that sum parameters of their own
constexpr int64_t kInputTasks = 4;    // that share the rows of a block
constexpr int64_t kWeightTasks = 16;  // wanted before rows are split
constexpr int64_t kDenseSlots = 128;
constexpr int64_t kSplineSlots = 144;  // of the inputs whose gradients a task holds
constexpr int64_t kRationalPiece = 16384;
constexpr int64_t kRationalTasks = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

// [0, total) in even parts, all but the last a multiple of `step`.
struct Parts {
  int64_t total, size, count;
  Parts(int64_t total_, int64_t wanted, int64_t step)
      : total(total_),
        size(std::max<int64_t>(round_up(ceil_div(total_, std::max<int64_t>(wanted, 1)), step), 1)),
        count(ceil_div(total_, size)) {}
  int64_t begin(int64_t i) const { return i * size; }
  int64_t end(int64_t i) const { return std::min(total, (i + 1) * size); }
};

// Calls f(block, i, scratch) for every head, part of the rows and part of the columns.
template <typename T, typename Size, typename F>
void for_blocks(int64_t heads, const Parts& rows, const Parts& columns, const Size& size,
                const F& f) {
  const auto block = [&](int64_t i) {
    const int64_t c = i % columns.count, r = i / columns.count % rows.count;
    return Block{i / columns.count / rows.count, rows.begin(r), rows.end(r), columns.begin(c),
                 columns.end(c)};
  };
  // the first block is the largest
  const int64_t scratch_size = std::max<int64_t>(size(block(0)), 1);
  parallel_tasks(heads * rows.count * columns.count, [&] {
    return [&, scratch = AlignedScratch<T>(scratch_size)](int64_t i) mutable {
      f(block(i), i, scratch.data());
    };
  });
}

// The inputs in the type of computation, kept alive beside the pointers to them.
struct Prepared {
  Tensor x, weight;
  OptionalTensor base, bias, points, scales;

  Prepared(ScalarType type, const Tensor& x_, const Tensor& weight_, const OptionalTensor& base_,
           const OptionalTensor& bias_, const OptionalTensor& points_,
           const OptionalTensor& scales_)
      : x(to_contiguous(x_, type)),
        weight(to_type(weight_, type)),
        base(to_contiguous(base_, type)),
        bias(to_contiguous(bias_, type)),
        points(to_contiguous(points_, type)),
        scales(to_contiguous(scales_, type)) {}

  template <typename T>
  Args<T> args(const Problem& problem) const {
    Args<T> args{};
    args.problem = problem;
    args.x = static_cast<const T*>(x.const_data_ptr());
    args.weight = {static_cast<const T*>(weight.const_data_ptr()), weight.stride(0),
                   weight.stride(1), weight.stride(2), weight.stride(3)};
    args.base = data_or_null<T>(base);
    args.bias = data_or_null<T>(bias);
    args.points = data_or_null<T>(points);
    args.scales = data_or_null<T>(scales);
    return args;
  }
};

// A task reads the weights once: the more of them, the more rows it has.
int64_t task_rows(const Problem& p) { return std::clamp(8 * p.slots(), kRows, kMaxRows); }

template <typename T>
void run_forward(const Args<T>& args) {
  const Problem& p = args.problem;
  // the sums of one output stay with one task, whatever the partition
  const int64_t threads = torch::stable::get_num_threads();
  // outputs are split rather than rows where weights are many
  const int64_t wanted = task_rows(p) > kRows ? 1 : std::min(ceil_div(p.rows, 96), threads);
  const Parts rows(p.rows, std::max(ceil_div(p.rows, task_rows(p)), wanted), 24);
  const int64_t groups = p.heads * rows.count;
  const int64_t shares = groups >= threads ? 1 : ceil_div(2 * threads, groups);
  const Parts outs(p.out, std::min(shares, ceil_div(p.out, 64)), 64);
  for_blocks<T>(
      p.heads, rows, outs,
      [&](const Block& block) { return kernels<T>().forward_scratch(p, block); },
      [&](const Block& block, int64_t, T* scratch) { kernels<T>().forward(args, block, scratch); });
}

Tensor forward(const Tensor& x, const Tensor& weight, const OptionalTensor& base_weight,
               const OptionalTensor& bias, const OptionalTensor& points,
               const OptionalTensor& scales, int64_t basis, const Ints& options) {
  const Problem problem =
      check_problem(x, weight, base_weight, bias, points, scales, basis, options);
  const ScalarType type = compute_type("x", x);
  const Prepared prepared(type, x, weight, base_weight, bias, points, scales);
  Tensor y = torch::stable::new_empty(weight, {problem.heads, problem.rows, problem.out}, type);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    Args<T> args = prepared.args<T>(problem);
    args.y = static_cast<T*>(y.mutable_data_ptr());
    run_forward(args);
  };
  if (problem.heads * problem.rows * problem.out > 0) {
    if (type == ScalarType::Double) {
      run(double{});
    } else {
      run(float{});
    }
  }
  return to_type(y, weight.scalar_type());
}

// Adds up partial sums in order.
template <typename T>
void add_partials(const std::vector<T>& partials, int64_t size, T* sums) {
  for (size_t i = 0; i < partials.size(); ++i) sums[i % size] += partials[i];
}

// grad_out by panels, which args.packed names.
template <typename T>
AlignedScratch<T> pack_grads(Args<T>& args) {
  const Problem& p = args.problem;
  const Kernels<T>& k = kernels<T>();
  const int64_t padded = round_up(p.out, k.panel);
  const Parts rows(p.rows, ceil_div(p.rows, kGradRows), kGradRows);
  AlignedScratch<T> packed(p.heads * p.rows * padded);
  for_blocks<T>(
      p.heads, rows, Parts(1, 1, 1), [](const Block&) { return 1; },
      [&](const Block& block, int64_t, T*) {
        const int64_t row = block.head * p.rows + block.row;
        k.pack_grad(p, args.grad_out + row * p.out, block.row_end - block.row,
                    packed.data() + row * padded);
      });
  args.packed = packed.data();
  return packed;
}

// grad_x, and the gradients of centres and widths as [points, scales].
template <typename T>
void run_grad_input(const Args<T>& args, std::vector<T>* parameters) {
  const Problem& p = args.problem;
  const bool spline = p.basis == Basis::kBspline;
  // a spline's task divides kGradRows; its sums for 16 inputs and 512 rows stay in a cache
  const int64_t spline_rows = p.slots() > 64 ? kGradRows : kGradRows / 2;
  const int64_t wanted = ceil_div(p.rows, spline ? spline_rows : task_rows(p));
  const Parts rows(p.rows, parameters ? std::min(wanted, kMaxPartials) : wanted,
                   spline ? spline_rows : 24);
  const Parts inputs(p.in, kInputTasks, 16);
  const int64_t size = parameters ? 2 * p.functions : 0;
  std::vector<T> partials(size * p.heads * rows.count * inputs.count);
  for_blocks<T>(
      p.heads, rows, inputs,
      [&](const Block& block) { return kernels<T>().grad_input_scratch(p, block); },
      [&](const Block& block, int64_t i, T* scratch) {
        kernels<T>().grad_input(args, block, parameters ? partials.data() + i * size : nullptr,
                                scratch);
      });
  if (parameters) add_partials(partials, size, parameters->data());
}

template <typename T>
void run_grad_grid(const Args<T>& args, T* grad_grid) {
  const Problem& p = args.problem;
  const Parts rows(p.rows, std::min(ceil_div(p.rows, kGridRows), kMaxPartials), 24);
  const Parts inputs(p.in, 1, 1);
  const int64_t size = p.knot_rows * p.knots;
  std::vector<T> partials(size * p.heads * rows.count);
  for_blocks<T>(
      p.heads, rows, inputs,
      [&](const Block& block) { return kernels<T>().grad_grid_scratch(p, block); },
      [&](const Block& block, int64_t i, T* scratch) {
        kernels<T>().grad_grid(args, block, partials.data() + i * size, scratch);
      });
  add_partials(partials, size, grad_grid);
}

// grad_weight and grad_base. A task owns a few inputs; where they are too few for that, it owns a
// part of the rows too, and the parts are added in order.
template <typename T>
void run_grad_weight(const Args<T>& args) {
  const Problem& p = args.problem;
  const Kernels<T>& k = kernels<T>();
  const int64_t width = round_up(p.out, 16);
  const bool spline = p.basis == Basis::kBspline;
  // x is transposed best by 16 inputs
  const int64_t tasks = spline ? ceil_div(p.in, 16) : p.in;
  const Parts inputs(p.in,
                     std::max(ceil_div(p.in * p.slots(), spline ? kSplineSlots : kDenseSlots),
                              std::min(tasks, kWeightTasks)),
                     1);
  const int64_t shares =
      std::min(ceil_div(kWeightTasks, p.heads * inputs.count), p.rows / (2 * kGradRows));
  const Parts rows(p.rows, std::max<int64_t>(shares, 1), kGradRows);
  const int64_t size = inputs.size * p.slots() * width;
  const auto scratch_size = [&](const Block& block) { return k.grad_weight_scratch(p, block); };
  if (rows.count == 1) {
    for_blocks<T>(
        p.heads, rows, inputs, [&](const Block& block) { return size + scratch_size(block); },
        [&](const Block& block, int64_t, T* scratch) {
          std::fill(scratch, scratch + size, T(0));
          k.grad_weight(args, block, scratch, scratch + size);
          k.write_weight(args, block, scratch);
        });
    return;
  }
  std::vector<T> partials(p.heads * rows.count * inputs.count * size);
  for_blocks<T>(p.heads, rows, inputs, scratch_size,
                [&](const Block& block, int64_t i, T* scratch) {
                  k.grad_weight(args, block, partials.data() + i * size, scratch);
                });
  for_blocks<T>(
      p.heads, Parts(1, 1, 1), inputs, [](const Block&) { return 1; },
      [&](const Block& block, int64_t i, T*) {
        const int64_t first = i / inputs.count * rows.count * inputs.count + i % inputs.count;
        T* sums = partials.data() + first * size;
        for (int64_t r = 1; r < rows.count; ++r) {
          const T* more = sums + r * inputs.count * size;
          for (int64_t j = 0; j < size; ++j) sums[j] += more[j];
        }
        k.write_weight(args, block, sums);
      });
}

template <typename T>
void run_wavelet_backward(const Args<T>& args) {
  const Problem& p = args.problem;
  const Parts rows(p.rows, 1, 1);
  const Parts inputs(p.in, std::max(ceil_div(p.in, 32), std::min(p.in, kWeightTasks)), 1);
  for_blocks<T>(
      p.heads, rows, inputs,
      [&](const Block& block) { return kernels<T>().wavelet_backward_scratch(p, block); },
      [&](const Block& block, int64_t, T* scratch) {
        kernels<T>().wavelet_backward(args, block, scratch);
      });
}

// The sum of grad_out over rows.
template <typename T>
void sum_rows(const Problem& p, const T* grad_out, T* grad_bias) {
  const Parts outs(p.out, ceil_div(p.out, 64), 64);
  for_blocks<T>(
      p.heads, Parts(1, 1, 1), outs, [](const Block&) { return 64; },
      [&](const Block& block, int64_t, T* sums) {
        // in runs, so that the error does not grow with the number of rows
        T* total = grad_bias + block.head * p.out;
        std::fill(total + block.begin, total + block.end, T(0));
        for (int64_t run = 0; run < p.rows; run += 256) {
          std::fill(sums, sums + 64, T(0));
          for (int64_t r = run; r < std::min(p.rows, run + 256); ++r) {
            const T* grad = grad_out + (block.head * p.rows + r) * p.out;
            for (int64_t o = block.begin; o < block.end; ++o) sums[o - block.begin] += grad[o];
          }
          for (int64_t o = block.begin; o < block.end; ++o) total[o] += sums[o - block.begin];
        }
      });
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients backward(const Tensor& grad_out, const Tensor& x, const Tensor& weight,
                   const OptionalTensor& base_weight, const OptionalTensor& points,
                   const OptionalTensor& scales, int64_t basis, const Ints& options,
                   const Ints& wanted) {
  const Problem problem =
      check_problem(x, weight, base_weight, std::nullopt, points, scales, basis, options);
  check_wanted(wanted, grad_out, problem);
  const ScalarType type = compute_type("x", x);
  const Prepared prepared(type, x, weight, base_weight, std::nullopt, points, scales);
  const Tensor grad = to_contiguous(grad_out, type);
  const bool wavelet = problem.basis == Basis::kWavelet;
  const auto zeros = [&](bool present, const Tensor& like) {
    return present ? torch::stable::new_zeros(x, like.sizes(), type)
                   : torch::stable::new_empty(x, Ints{0}, type);
  };
  // a wavelet's one pass makes all of them
  const bool of_weight = wanted[1] != 0 || wavelet;
  const bool of_base = problem.base && (wanted[2] != 0 || wavelet);
  const bool of_points = points.has_value() && (wanted[4] != 0 || wavelet);
  const bool of_scales = scales.has_value() && (wanted[5] != 0 || wavelet);
  Tensor grad_x = zeros(wanted[0] != 0 || wavelet || of_points || of_scales, x);
  Tensor grad_weight = of_weight ? torch::stable::empty_like(prepared.weight)
                                 : torch::stable::new_empty(x, Ints{0}, type);
  Tensor grad_base = of_base ? zeros(true, *base_weight) : zeros(false, x);
  Tensor grad_bias =
      torch::stable::new_zeros(x, wanted[3] ? Ints{problem.heads, problem.out} : Ints{0}, type);
  Tensor grad_points = of_points ? zeros(true, *points) : zeros(false, x);
  Tensor grad_scales = of_scales ? zeros(true, *scales) : zeros(false, x);
  if (problem.heads * problem.rows * problem.out * problem.in == 0) {
    if (of_weight) torch::stable::zero_(grad_weight);
  } else {
    const auto run = [&](auto zero) {
      using T = decltype(zero);
      const auto pointer = [](Tensor& tensor, bool present) {
        return present ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
      };
      Args<T> args = prepared.args<T>(problem);
      args.grad_out = static_cast<const T*>(grad.const_data_ptr());
      args.grad_x = static_cast<T*>(grad_x.mutable_data_ptr());
      if (of_weight) {
        args.grad_weight = {static_cast<T*>(grad_weight.mutable_data_ptr()), grad_weight.stride(0),
                            grad_weight.stride(1), grad_weight.stride(2), grad_weight.stride(3)};
      }
      args.grad_base = pointer(grad_base, of_base);
      args.grad_points = pointer(grad_points, of_points);
      args.grad_scales = pointer(grad_scales, of_scales);
      if (wanted[3]) sum_rows(problem, args.grad_out, pointer(grad_bias, true));
      if (wavelet) return run_wavelet_backward(args);
      const bool spline = problem.basis == Basis::kBspline;
      AlignedScratch<T> packed(0);
      if (of_weight || of_base || (spline && wanted[0])) packed = pack_grads(args);
      if (spline) {
        if (wanted[0]) run_grad_input<T>(args, nullptr);
        if (of_points) run_grad_grid<T>(args, args.grad_points);
      } else if (of_points || of_scales) {
        std::vector<T> sums(2 * problem.functions);
        run_grad_input<T>(args, &sums);
        const int64_t n = problem.functions;
        if (of_points) std::copy(sums.begin(), sums.begin() + n, args.grad_points);
        for (int64_t f = 0; of_scales && f < n; ++f)
          args.grad_scales[problem.num_scales == 1 ? 0 : f] += sums[n + f];
      } else if (wanted[0]) {
        run_grad_input<T>(args, nullptr);
      }
      if (of_weight || of_base) run_grad_weight(args);
    };
    if (type == ScalarType::Double) {
      run(double{});
    } else {
      run(float{});
    }
  }
  const auto result = [&](const Tensor& gradient, int place, const Tensor& like) {
    const Tensor kept = wanted[place] ? gradient : torch::stable::new_empty(x, Ints{0}, type);
    return to_type(kept, like.scalar_type());
  };
  return {result(grad_x, 0, x),
          result(grad_weight, 1, weight),
          result(grad_base, 2, weight),
          result(grad_bias, 3, weight),
          result(grad_points, 4, points.has_value() ? *points : weight),
          result(grad_scales, 5, scales.has_value() ? *scales : weight)};
}

// Calls f(n * groups + group, start, count, task) for pieces of one group each.
template <typename F>
void for_pieces(const Tensor& x, const F& f) {
  const int64_t length = x.size(2), groups = x.size(1);
  const int64_t pieces = ceil_div(length, kRationalPiece), total = x.size(0) * groups * pieces;
  const int64_t tasks = std::min(total, kRationalTasks);
  parallel_tasks(tasks, [&] {
    return [&](int64_t task) {
      for (int64_t i = task * total / tasks; i < (task + 1) * total / tasks; ++i) {
        const int64_t start = i % pieces * kRationalPiece;
        f(i / pieces % groups, i / pieces * length + start,
          std::min(kRationalPiece, length - start), task);
      }
    };
  });
}

template <typename T>
Rational<T> rational_of(const Tensor& numerator, const Tensor& denominator, int64_t group) {
  const int64_t m = numerator.size(1), n = denominator.size(1);
  return {
      static_cast<const T*>(numerator.const_data_ptr()) + (numerator.size(0) > 1 ? group * m : 0),
      static_cast<const T*>(denominator.const_data_ptr()) +
          (denominator.size(0) > 1 ? group * n : 0),
      static_cast<int>(m), static_cast<int>(n)};
}

Tensor rational_forward(const Tensor& x, const Tensor& numerator, const Tensor& denominator) {
  check_rational(x, numerator, denominator);
  const ScalarType type = compute_type("x", x);
  const Tensor in = to_contiguous(x, type);
  const Tensor a = to_contiguous(numerator, type), b = to_contiguous(denominator, type);
  Tensor y = torch::stable::new_empty(x, x.sizes(), type);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const T* from = static_cast<const T*>(in.const_data_ptr());
    T* to = static_cast<T*>(y.mutable_data_ptr());
    for_pieces(in, [&](int64_t group, int64_t start, int64_t count, int64_t) {
      kernels<T>().rational(rational_of<T>(a, b, group), from + start, count, to + start);
    });
  };
  if (type == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return to_type(y, x.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> rational_backward(const Tensor& grad_out, const Tensor& x,
                                                     const Tensor& numerator,
                                                     const Tensor& denominator) {
  check_rational(x, numerator, denominator);
  STD_TORCH_CHECK(grad_out.dim() == 3 && grad_out.size(0) == x.size(0) &&
                      grad_out.size(1) == x.size(1) && grad_out.size(2) == x.size(2),
                  "grad_out must have the shape of x, got ", shape(grad_out), ".");
  const ScalarType type = compute_type("x", x);
  const Tensor in = to_contiguous(x, type), grad = to_contiguous(grad_out, type);
  const Tensor a = to_contiguous(numerator, type), b = to_contiguous(denominator, type);
  Tensor grad_x = torch::stable::new_empty(x, x.sizes(), type);
  Tensor grad_a = torch::stable::new_zeros(x, numerator.sizes(), type);
  Tensor grad_b = torch::stable::new_zeros(x, denominator.sizes(), type);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const int64_t groups = x.size(1), m = a.size(1), n = b.size(1), size = groups * (m + n);
    std::vector<double> partials(kRationalTasks * size);
    const T* from = static_cast<const T*>(in.const_data_ptr());
    const T* up = static_cast<const T*>(grad.const_data_ptr());
    T* to = static_cast<T*>(grad_x.mutable_data_ptr());
    for_pieces(in, [&](int64_t group, int64_t start, int64_t count, int64_t task) {
      kernels<T>().rational_backward(rational_of<T>(a, b, group), up + start, from + start, count,
                                     to + start, partials.data() + task * size + group * (m + n));
    });
    std::vector<double> sums(size);
    add_partials(partials, size, sums.data());
    std::vector<double> of_a(a.size(0) * m), of_b(b.size(0) * n);
    for (int64_t g = 0; g < groups; ++g) {
      const double* from_group = sums.data() + g * (m + n);
      for (int64_t i = 0; i < m; ++i) of_a[(a.size(0) > 1 ? g * m : 0) + i] += from_group[i];
      for (int64_t j = 0; j < n; ++j) of_b[(b.size(0) > 1 ? g * n : 0) + j] += from_group[m + j];
    }
    std::copy(of_a.begin(), of_a.end(), static_cast<T*>(grad_a.mutable_data_ptr()));
    std::copy(of_b.begin(), of_b.end(), static_cast<T*>(grad_b.mutable_data_ptr()));
  };
  if (type == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  const ScalarType result = x.scalar_type();
  return {to_type(grad_x, result), to_type(grad_a, result), to_type(grad_b, result)};
}

}  // namespace

}  // namespace saccade::kan

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("kan_forward", TORCH_BOX(&saccade::kan::forward));
  m.impl("kan_backward", TORCH_BOX(&saccade::kan::backward));
  m.impl("kan_rational_forward", TORCH_BOX(&saccade::kan::rational_forward));
  m.impl("kan_rational_backward", TORCH_BOX(&saccade::kan::rational_backward));
}
