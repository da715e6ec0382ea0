#include "kan/bind.h"

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <initializer_list>

namespace saccade::kan {

namespace {

using torch::headeronly::ScalarType;

bool has_shape(const Tensor& tensor, std::initializer_list<int64_t> sizes) {
  if (tensor.dim() != static_cast<int64_t>(sizes.size())) return false;
  int64_t axis = 0;
  for (int64_t size : sizes) {
    if (tensor.size(axis++) != size) return false;
  }
  return true;
}

void check_type(const char* name, const Tensor& tensor, ScalarType type, const Tensor& x) {
  STD_TORCH_CHECK(tensor.scalar_type() == type, name, " has the wrong type for this call.");
  STD_TORCH_CHECK(tensor.device() == x.device(), name, " must be on the device of x.");
}

int check_option(const std::vector<int64_t>& options, size_t place, int64_t count) {
  STD_TORCH_CHECK(place < options.size(), "options must have at least ", place + 1,
                  " entries for this basis, got ", options.size(), ".");
  STD_TORCH_CHECK(options[place] >= 0 && options[place] < count, "option ", place,
                  " must be between 0 and ", count - 1, ", got ", options[place], ".");
  return static_cast<int>(options[place]);
}

const Tensor& check_parameter(const char* name, const std::optional<Tensor>& tensor,
                              const Tensor& x) {
  STD_TORCH_CHECK(tensor.has_value(), "this basis needs ", name, ".");
  const bool twice = x.scalar_type() == ScalarType::Double;
  check_type(name, *tensor, twice ? ScalarType::Double : ScalarType::Float, x);
  return *tensor;
}

void check_centres(Problem& problem, const Tensor& x, const std::optional<Tensor>& points,
                   const std::optional<Tensor>& scales) {
  const Tensor& centres = check_parameter("points", points, x);
  const Tensor& widths = check_parameter("scales", scales, x);
  STD_TORCH_CHECK(has_shape(centres, {problem.functions}), "points must be [", problem.functions,
                  "], got ", shape(centres), ".");
  STD_TORCH_CHECK(has_shape(widths, {1}) || has_shape(widths, {problem.functions}),
                  "scales must be [1] or [", problem.functions, "], got ", shape(widths), ".");
  problem.num_scales = widths.size(0);
}

}  // namespace

Problem check_problem(const Tensor& x, const Tensor& weight,
                      const std::optional<Tensor>& base_weight, const std::optional<Tensor>& bias,
                      const std::optional<Tensor>& points, const std::optional<Tensor>& scales,
                      int64_t basis, const std::vector<int64_t>& options) {
  STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 4,
                  "x must be [h, M, I] and weight [h, O, I, n], ", "got ", shape(x), " and ",
                  shape(weight), ".");
  Problem problem{};
  problem.heads = x.size(0);
  problem.rows = x.size(1);
  problem.in = x.size(2);
  problem.out = weight.size(1);
  problem.functions = weight.size(3);
  problem.num_scales = 1;
  STD_TORCH_CHECK(weight.size(0) == problem.heads && weight.size(2) == problem.in,
                  "weight must be [", problem.heads, ", O, ", problem.in, ", n], got ",
                  shape(weight), ".");
  STD_TORCH_CHECK(problem.functions >= 1, "weight must hold at least 1 function, got 0.");
  check_type("weight", weight, weight.scalar_type(), x);
  STD_TORCH_CHECK(
      (weight.scalar_type() == ScalarType::Double) == (x.scalar_type() == ScalarType::Double),
      "x and weight must both be float64, or neither.");
  if (base_weight.has_value()) {
    check_type("base_weight", *base_weight, weight.scalar_type(), x);
    STD_TORCH_CHECK(has_shape(*base_weight, {problem.heads, problem.out, problem.in}),
                    "base_weight must be [", problem.heads, ", ", problem.out, ", ", problem.in,
                    "], got ", shape(*base_weight), ".");
    problem.base = true;
  }
  if (bias.has_value()) {
    check_type("bias", *bias, weight.scalar_type(), x);
    STD_TORCH_CHECK(has_shape(*bias, {problem.heads, problem.out}), "bias must be [", problem.heads,
                    ", ", problem.out, "], got ", shape(*bias), ".");
  }
  STD_TORCH_CHECK(basis >= 0 && basis <= static_cast<int64_t>(Basis::kWavelet),
                  "basis must be between 0 and 5, got ", basis, ".");
  problem.basis = static_cast<Basis>(basis);
  switch (problem.basis) {
    case Basis::kBspline: {
      problem.order = check_option(options, 0, kMaxOrder + 1);
      problem.beyond = static_cast<Beyond>(check_option(options, 1, 3));
      STD_TORCH_CHECK(problem.functions > problem.order, "a spline of order ", problem.order,
                      " has at least ", problem.order + 1, " functions, got ", problem.functions,
                      ".");
      problem.knots = problem.functions + problem.order + 1;
      const Tensor& knots = check_parameter("points", points, x);
      STD_TORCH_CHECK(
          has_shape(knots, {1, problem.knots}) || has_shape(knots, {problem.in, problem.knots}),
          "points must be [1 or ", problem.in, ", ", problem.knots, "], got ", shape(knots), ".");
      problem.knot_rows = knots.size(0);
      break;
    }
    case Basis::kGaussian:
      check_centres(problem, x, points, scales);
      break;
    case Basis::kRswaf:
      problem.published = check_option(options, 0, 2) == 1;
      check_centres(problem, x, points, scales);
      break;
    case Basis::kChebyshev:
      break;
    case Basis::kFourier:
      problem.constant = check_option(options, 0, 2) == 1;
      STD_TORCH_CHECK((problem.functions - problem.constant) % 2 == 0,
                      "a Fourier basis has as many sines as cosines, got ", problem.functions,
                      " functions.");
      break;
    case Basis::kWavelet:
      problem.wavelet = static_cast<Wavelet>(check_option(options, 0, 5));
      STD_TORCH_CHECK(problem.functions == 1, "a wavelet is one function an edge, got ",
                      problem.functions, ".");
      for (const auto& [name, given] : {std::pair{"points", &points}, std::pair{"scales", &scales}})
        STD_TORCH_CHECK(
            has_shape(check_parameter(name, *given, x), {problem.heads, problem.out, problem.in}),
            name, " must be [", problem.heads, ", ", problem.out, ", ", problem.in, "], got ",
            shape(**given), ".");
      break;
  }
  return problem;
}

void check_wanted(const std::vector<int64_t>& wanted, const Tensor& grad_out,
                  const Problem& problem) {
  STD_TORCH_CHECK(wanted.size() == 6, "wanted must have 6 entries, got ", wanted.size(), ".");
  STD_TORCH_CHECK(has_shape(grad_out, {problem.heads, problem.rows, problem.out}),
                  "grad_out must be [", problem.heads, ", ", problem.rows, ", ", problem.out,
                  "], got ", shape(grad_out), ".");
  STD_TORCH_CHECK(
      !(wanted[4] != 0 && problem.basis == Basis::kBspline && problem.beyond == Beyond::kExtend),
      "the gradient of extended splines' knots is the reference's alone.");
  STD_TORCH_CHECK(!(problem.published && (wanted[4] != 0 || wanted[5] != 0)),
                  "FasterKAN's centres and widths are constants.");
}

void check_rational(const Tensor& x, const Tensor& numerator, const Tensor& denominator) {
  STD_TORCH_CHECK(x.dim() == 3 && numerator.dim() == 2 && denominator.dim() == 2,
                  "x must be [N, G, L], numerator and denominator [1 or G, n], got ", shape(x),
                  ", ", shape(numerator), " and ", shape(denominator), ".");
  for (const Tensor* tensor : {&numerator, &denominator}) {
    check_type("numerator or denominator", *tensor, x.scalar_type(), x);
    STD_TORCH_CHECK(tensor->size(0) == 1 || tensor->size(0) == x.size(1),
                    "coefficients must have 1 row or ", x.size(1), ", got ", tensor->size(0), ".");
  }
  STD_TORCH_CHECK(numerator.size(1) >= 1 && numerator.size(1) <= kMaxCoefficients &&
                      denominator.size(1) < kMaxCoefficients,
                  "a rational function has 1 to 9 numerators and 0 to 8 denominators, got ",
                  numerator.size(1), " and ", denominator.size(1), ".");
}

}  // namespace saccade::kan
