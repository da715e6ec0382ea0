// Torch's side of the CPU kernels: checks, allocation, and columns cut into segments from sizes
// alone, so that every sum has the same order for any number of threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "gem/bind.h"
#include "gem/kernel.h"

namespace saccade::gem {
namespace {

constexpr int64_t kSegment = 16384;

template <typename T>
const Kernels<T>& kernels() {
  return for_type<T>(SACCADE_FOR_ISA(kFloat), SACCADE_FOR_ISA(kDouble));
}

const Solver& solver() { return SACCADE_FOR_ISA(kSolver); }

// The columns of all problems. Segments are in the order of problems, and a problem has one at
// least.
template <typename T>
struct Columns {
  struct Segment {
    Piece<T> piece;
    int64_t problem;
    T* out;  // column 0 of the result, or null
  };

  int64_t problems, rows;
  std::vector<const T*> pointers;
  std::vector<Segment> segments;

  Columns(int64_t count, int64_t t, int64_t pieces) : problems(count), rows(t) {
    pointers.reserve(pieces * t);
    segments.reserve(pieces);
  }

  // row(i): column 0 of memory i, or null.
  template <typename F>
  void add(int64_t problem, const T* grad, T* out, int64_t columns, int64_t stride, const F& row) {
    const T* const* const table = pointers.data() + pointers.size();
    for (int64_t i = 0; i < rows; ++i) pointers.push_back(row(i));
    int64_t begin = 0;
    do {
      const int64_t count = std::min(kSegment, columns - begin);
      segments.push_back({{table, grad, stride, begin, count}, problem, out});
      begin += count;
    } while (begin < columns);
  }

  int64_t count() const { return static_cast<int64_t>(segments.size()); }
  // Where every segment is a problem, one task does all of it while its columns are in the cache.
  bool whole() const { return count() == problems; }
};

// What one thread works in.
template <typename T>
struct Scratch {
  AlignedScratch<T> columns;
  AlignedScratch<double> space;
  explicit Scratch(int64_t t) : columns(kernels<T>().scratch(t)), space(solver().space(t)) {}
};

// part(segment, sums, scratch) adds a segment's `width` sums to zeros; finish(problem, sums,
// scratch) gets a problem's totals, summed in the order of its segments; then use(segment,
// scratch).
template <typename T, typename Part, typename Finish, typename Use>
void run(const Columns<T>& columns, int64_t width, const Part& part, const Finish& finish,
         const Use& use) {
  const int64_t count = columns.count();
  std::vector<double> sums(count * width);
  const auto scratch = [&] { return Scratch<T>(columns.rows); };
  if (columns.whole()) {
    parallel_tasks(count, [&] {
      return [&, own = scratch()](int64_t i) mutable {
        part(columns.segments[i], sums.data() + i * width, own);
        finish(i, sums.data() + i * width, own);
        use(columns.segments[i], own);
      };
    });
    return;
  }
  parallel_tasks(count, [&] {
    return [&, own = scratch()](int64_t i) mutable {
      part(columns.segments[i], sums.data() + i * width, own);
    };
  });
  std::vector<int64_t> first(columns.problems + 1);
  for (const auto& segment : columns.segments) ++first[segment.problem + 1];
  for (int64_t b = 0; b < columns.problems; ++b) first[b + 1] += first[b];
  parallel_tasks(columns.problems, [&] {
    return [&, own = scratch()](int64_t b) mutable {
      double* const total = sums.data() + first[b] * width;
      for (int64_t i = first[b] + 1; i < first[b + 1]; ++i) {
        for (int64_t j = 0; j < width; ++j) total[j] += sums[i * width + j];
      }
      finish(b, total, own);
    };
  });
  // backwards: what was read last is still in a cache
  parallel_tasks(count, [&] {
    return [&, own = scratch()](int64_t i) mutable { use(columns.segments[count - 1 - i], own); };
  });
}

int64_t packed(int64_t rows) { return rows * (rows + 1) / 2; }

struct Arguments {
  const double* slack;  // [problems, t] or null
  double memory_strength, ridge, tolerance;
  bool always;
};

double* doubles(Tensor& tensor) { return static_cast<double*>(tensor.mutable_data_ptr()); }
const double* doubles(const Tensor& tensor) {
  return static_cast<const double*>(tensor.const_data_ptr());
}

// The projection of every problem. gram: [problems, t, t], or null.
template <typename T>
void project(const Columns<T>& columns, const Arguments& arguments, double* dual, int32_t* status,
             double* gram) {
  const int64_t t = columns.rows;
  run(
      columns, packed(t + 1),
      [&](const auto& segment, double* sums, Scratch<T>& scratch) {
        kernels<T>().gram(segment.piece, t, scratch.columns.data(), sums);
      },
      [&](int64_t b, const double* sums, Scratch<T>& scratch) {
        const Quadratic problem{sums,
                                true,
                                sums + packed(t),
                                arguments.slack == nullptr ? nullptr : arguments.slack + b * t,
                                arguments.memory_strength,
                                arguments.ridge,
                                arguments.tolerance,
                                arguments.always};
        status[b] = solver().solve(problem, t, scratch.space.data(), dual + b * t);
        if (gram == nullptr) return;
        for (int64_t i = 0; i < t; ++i) {
          for (int64_t j = 0; j <= i; ++j) {
            gram[(b * t + i) * t + j] = gram[(b * t + j) * t + i] = sums[packed(i) + j];
          }
        }
      },
      [&](const auto& segment, Scratch<T>& scratch) {
        kernels<T>().combine(segment.piece, t, dual + segment.problem * t, scratch.columns.data(),
                             segment.out);
      });
}

// memory [B, t, P] with any strides and grad [B, P], as columns; out [B, P] contiguous, or null.
template <typename T>
Columns<T> columns_of(const Tensor& memory, const Tensor& grad, T* out, const Sizes& sizes) {
  const auto* const first = static_cast<const T*>(memory.const_data_ptr());
  const auto* const g = static_cast<const T*>(grad.const_data_ptr());
  Columns<T> columns(sizes.batch, sizes.rows, sizes.batch);
  for (int64_t b = 0; b < sizes.batch; ++b) {
    columns.add(b, g + b * grad.stride(0), out == nullptr ? nullptr : out + b * sizes.columns,
                sizes.columns, memory.stride(2),
                [&](int64_t i) { return first + b * memory.stride(0) + i * memory.stride(1); });
  }
  return columns;
}

template <typename F>
void for_compute_type(ScalarType type, const F& f) {
  if (type == ScalarType::Double) {
    f(double{});
  } else {
    f(float{});
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& grad, const Tensor& memory,
                                                   const OptionalTensor& slack,
                                                   double memory_strength, double ridge,
                                                   bool always) {
  const Sizes sizes = check_problem(memory, grad);
  check_slack(slack, sizes.batch, sizes.rows, grad);
  check_bounds(memory_strength, ridge);
  const ScalarType type = compute_type("grad", grad);
  const Tensor g = with_contiguous_columns(to_type(grad, type)), m = to_type(memory, type);
  const OptionalTensor w = to_contiguous(slack, ScalarType::Double);
  const std::vector<int64_t> rows{sizes.batch, sizes.rows};
  Tensor out = torch::stable::new_empty(grad, grad.sizes(), type);
  Tensor dual = torch::stable::new_empty(grad, rows, ScalarType::Double);
  Tensor status = torch::stable::new_empty(grad, std::vector{sizes.batch}, ScalarType::Int);
  Tensor gram = torch::stable::new_empty(grad, std::vector{sizes.batch, sizes.rows, sizes.rows},
                                         ScalarType::Double);
  const Arguments arguments{data_or_null<double>(w), memory_strength, ridge, tolerance(type),
                            always};
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    project(columns_of<T>(m, g, static_cast<T*>(out.mutable_data_ptr()), sizes), arguments,
            doubles(dual), static_cast<int32_t*>(status.mutable_data_ptr()), doubles(gram));
  });
  return {to_type(out, grad.scalar_type()), dual, status, gram};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& memory,
                                            const Tensor& out, const Tensor& dual,
                                            const Tensor& gram, double memory_strength,
                                            double ridge) {
  const Sizes sizes = check_problem(memory, grad_out);
  check_problem(memory, out);
  check_rows("dual", dual, sizes, memory);
  check_quadratic(gram, dual);
  check_bounds(memory_strength, ridge);
  const ScalarType type = compute_type("grad_out", grad_out);
  const Tensor u = with_contiguous_columns(to_type(grad_out, type)), m = to_type(memory, type);
  const Tensor v = with_contiguous_columns(to_type(out, type));
  const Tensor lambda = to_contiguous(dual, ScalarType::Double);
  const Tensor k = to_contiguous(gram, ScalarType::Double);
  Tensor grad_grad = torch::stable::new_empty(grad_out, grad_out.sizes(), type);
  Tensor grad_memory = torch::stable::new_empty(grad_out, memory.sizes(), type);
  Tensor grad_slack = torch::stable::new_empty(grad_out, dual.sizes(), ScalarType::Double);
  const int64_t t = sizes.rows, p = sizes.columns;
  // on which dual variables the result depends, and -y
  std::vector<double> wanted(sizes.batch * t);
  for (int64_t i = 0; i < sizes.batch * t; ++i) {
    wanted[i] = doubles(lambda)[i] > memory_strength ? 1.0 : 0.0;
  }
  double* const minus_y = doubles(grad_slack);
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    auto* const h = static_cast<T*>(grad_grad.mutable_data_ptr());
    auto* const rows = static_cast<T*>(grad_memory.mutable_data_ptr());
    const auto* const result = static_cast<const T*>(v.const_data_ptr());
    run(
        columns_of<T>(m, u, h, sizes), t,
        [&](const auto& segment, double* sums, Scratch<T>& scratch) {
          kernels<T>().dot(segment.piece, t, wanted.data() + segment.problem * t,
                           scratch.columns.data(), sums);
        },
        [&](int64_t b, const double* sums, Scratch<T>& scratch) {
          const Quadratic problem{
              doubles(k) + b * t * t, false, sums, nullptr, memory_strength, ridge,
              tolerance(type),        true};
          double* const y = minus_y + b * t;
          solver().solve_active(problem, t, doubles(lambda) + b * t, scratch.space.data(), y);
          for (int64_t i = 0; i < t; ++i) y[i] = -y[i];
        },
        [&](const auto& segment, Scratch<T>& scratch) {
          const int64_t b = segment.problem, begin = segment.piece.begin;
          const double* const factor = minus_y + b * t;
          kernels<T>().combine(segment.piece, t, factor, scratch.columns.data(), segment.out);
          std::vector<T*> to(t);
          for (int64_t i = 0; i < t; ++i) to[i] = rows + (b * t + i) * p + begin;
          kernels<T>().outer(segment.out + begin, result + b * v.stride(0) + begin, t,
                             doubles(lambda) + b * t, factor, segment.piece.count, to.data());
        });
  });
  const ScalarType given = grad_out.scalar_type();
  return {to_type(grad_grad, given), to_type(grad_memory, given), grad_slack};
}

std::tuple<Tensor, Tensor> gram_dot(const Tensor& memory, const Tensor& grad) {
  const Sizes sizes = check_problem(memory, grad);
  const ScalarType type = compute_type("grad", grad);
  const Tensor g = with_contiguous_columns(to_type(grad, type)), m = to_type(memory, type);
  const int64_t t = sizes.rows;
  Tensor gram = torch::stable::new_empty(grad, std::vector{sizes.batch, t, t}, ScalarType::Double);
  Tensor dot = torch::stable::new_empty(grad, std::vector{sizes.batch, t}, ScalarType::Double);
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    run(
        columns_of<T>(m, g, nullptr, sizes), packed(t + 1),
        [&](const auto& segment, double* sums, Scratch<T>& scratch) {
          kernels<T>().gram(segment.piece, t, scratch.columns.data(), sums);
        },
        [&](int64_t b, const double* sums, Scratch<T>&) {
          double* const to = doubles(gram) + b * t * t;
          for (int64_t i = 0; i < t; ++i) {
            for (int64_t j = 0; j <= i; ++j) to[i * t + j] = to[j * t + i] = sums[packed(i) + j];
            doubles(dot)[b * t + i] = sums[packed(t) + i];
          }
        },
        [](const auto&, Scratch<T>&) {});
  });
  return {gram, dot};
}

Tensor combine(const Tensor& grad, const Tensor& memory, const Tensor& dual) {
  const Sizes sizes = check_problem(memory, grad);
  check_rows("dual", dual, sizes, memory);
  const ScalarType type = compute_type("grad", grad);
  const Tensor g = with_contiguous_columns(to_type(grad, type)), m = to_type(memory, type);
  const Tensor lambda = to_contiguous(dual, ScalarType::Double);
  Tensor out = torch::stable::new_empty(grad, grad.sizes(), type);
  for_compute_type(type, [&](auto zero) {
    using T = decltype(zero);
    const auto columns = columns_of<T>(m, g, static_cast<T*>(out.mutable_data_ptr()), sizes);
    parallel_tasks(columns.count(), [&] {
      return [&, own = Scratch<T>(sizes.rows)](int64_t i) mutable {
        const auto& segment = columns.segments[i];
        kernels<T>().combine(segment.piece, sizes.rows,
                             doubles(lambda) + segment.problem * sizes.rows, own.columns.data(),
                             segment.out);
      };
    });
  });
  return to_type(out, grad.scalar_type());
}

std::tuple<Tensor, Tensor> nnqp(const Tensor& gram, const Tensor& linear, double lower,
                                double ridge) {
  const Sizes sizes = check_quadratic(gram, linear);
  check_bounds(lower, ridge);
  const Tensor k = to_contiguous(gram, ScalarType::Double);
  const Tensor c = to_contiguous(linear, ScalarType::Double);
  Tensor dual = torch::stable::new_empty(linear, linear.sizes(), ScalarType::Double);
  Tensor status = torch::stable::new_empty(linear, std::vector{sizes.batch}, ScalarType::Int);
  const int64_t t = sizes.rows;
  // a problem costs less than handing it to a thread
  constexpr int64_t kTogether = 64;
  const int64_t tasks = (sizes.batch + kTogether - 1) / kTogether;
  parallel_tasks(tasks, [&] {
    return [&, space = AlignedScratch<double>(solver().space(t))](int64_t task) mutable {
      const int64_t end = std::min(sizes.batch, (task + 1) * kTogether);
      for (int64_t b = task * kTogether; b < end; ++b) {
        const Quadratic problem{
            doubles(k) + b * t * t,        false, doubles(c) + b * t, nullptr, lower, ridge,
            tolerance(gram.scalar_type()), true};
        static_cast<int32_t*>(status.mutable_data_ptr())[b] =
            solver().solve(problem, t, space.data(), doubles(dual) + b * t);
      }
    };
  });
  return {dual, status};
}

// The gradients of parameters as one problem of many pieces, each where it lies.
template <typename T>
void project_lists(std::vector<Tensor>& grads, const std::vector<Tensor>& memory,
                   const Lists& lists, const Arguments& arguments, double* dual, int32_t* status) {
  const int64_t t = lists.rows;
  Columns<T> columns(1, t, lists.count);
  for (int64_t k = 0; k < lists.count; ++k) {
    auto* const grad = static_cast<T*>(grads[k].mutable_data_ptr());
    columns.add(0, grad, grad, grads[k].numel(), 1, [&](int64_t i) -> const T* {
      const Tensor& row = memory[lists.stacked ? k : i * lists.count + k];
      if (row.numel() == 0) return nullptr;
      const auto* const data = static_cast<const T*>(row.const_data_ptr());
      return lists.stacked ? data + i * row.stride(0) : data;
    });
  }
  project(columns, arguments, dual, status, static_cast<double*>(nullptr));
}

std::tuple<Tensor, Tensor> project_(std::vector<Tensor> grads, std::vector<Tensor> memory,
                                    int64_t rows, const OptionalTensor& slack,
                                    double memory_strength, double ridge, bool always) {
  const Lists lists = check_lists(grads, memory, rows);
  check_slack(slack, 1, rows, grads[0]);
  check_bounds(memory_strength, ridge);
  const ScalarType type = compute_type("every tensor of grads", grads[0]);
  std::vector<Tensor> own = grads;
  for (Tensor& grad : own) {
    if (!is_contiguous(grad) || grad.scalar_type() != type) grad = to_contiguous(grad, type);
  }
  for (Tensor& row : memory) {
    // rows of a stacked memory may lie apart
    if (row.numel() == 0) continue;
    if (!is_contiguous(row, lists.stacked ? 1 : 0) || row.scalar_type() != type) {
      row = to_contiguous(row, type);
    }
  }
  const OptionalTensor w = to_contiguous(slack, ScalarType::Double);
  Tensor dual =
      torch::stable::new_empty(grads[0], std::vector<int64_t>{1, rows}, ScalarType::Double);
  Tensor status = torch::stable::new_empty(grads[0], std::vector<int64_t>{1}, ScalarType::Int);
  const Arguments arguments{data_or_null<double>(w), memory_strength, ridge, tolerance(type),
                            always};
  for_compute_type(type, [&](auto zero) {
    project_lists<decltype(zero)>(own, memory, lists, arguments, doubles(dual),
                                  static_cast<int32_t*>(status.mutable_data_ptr()));
  });
  for (int64_t k = 0; k < lists.count; ++k) {
    if (own[k].const_data_ptr() != grads[k].const_data_ptr()) {
      torch::stable::copy_(grads[k], own[k]);
    }
  }
  return {dual, status};
}

}  // namespace
}  // namespace saccade::gem

STABLE_TORCH_LIBRARY_IMPL(saccade, CPU, m) {
  m.impl("gem_backward", TORCH_BOX(&saccade::gem::backward));
  m.impl("gem_combine", TORCH_BOX(&saccade::gem::combine));
  m.impl("gem_forward", TORCH_BOX(&saccade::gem::forward));
  m.impl("gem_gram", TORCH_BOX(&saccade::gem::gram_dot));
  m.impl("gem_nnqp", TORCH_BOX(&saccade::gem::nnqp));
  m.impl("gem_project_", TORCH_BOX(&saccade::gem::project_));
}
