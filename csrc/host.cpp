// The pybind11 module: what needs neither tensors nor torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "common/isa.h"
#include "statevector/plan.h"

namespace py = pybind11;

namespace {

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words;
  std::istringstream stream(list);
  for (std::string word; std::getline(stream, word, ',');) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

py::dict build_info() {
  std::vector<std::string> isas;
  for (const saccade::Isa isa : saccade::kIsas) {
    if (saccade::possible(isa)) isas.emplace_back(saccade::name(isa));
  }
  py::dict facts;
  facts["isa_possible"] = isas;
  facts["cuda_archs"] = split(SACCADE_CUDA_ARCHS);
  facts["compiler"] = SACCADE_COMPILER;
  return facts;
}

// The two streams of a plan.
py::tuple statevector_plan(int wires, std::vector<int32_t> ints, std::vector<double> floats,
                           bool zero, bool little, bool observed, std::vector<int32_t> owners,
                           std::vector<int32_t> letters, std::vector<double> coefficients) {
  using namespace saccade::statevector;
  const Source source{wires, std::move(ints), std::move(floats)};
  const Request request{
      zero, little, observed, std::move(owners), std::move(letters), std::move(coefficients)};
  const Plan plan = make_plan(source, request);
  return py::make_tuple(plan.ints, plan.floats);
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Facts about the build, and algorithms without tensors.";
  m.def("build_info", &build_info,
        "Instruction sets of this CPU, CUDA targets and compiler of the build.");
  m.def("statevector_plan", &statevector_plan,
        "From an encoded circuit to the passes of state-vector simulation.");
}
