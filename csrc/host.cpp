// The pybind11 module: what needs neither tensors nor torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "common/isa.h"

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

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Facts about the build, and algorithms without tensors.";
  m.def("build_info", &build_info,
        "Instruction sets of this CPU, CUDA targets and compiler of the build.");
}
