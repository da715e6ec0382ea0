# Torch as headers and one library to link, found by asking Python. find_package(Torch) would override the CUDA
# architectures and bring torch's own build logic; only the stable ABI is used, so neither is needed.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
  OUTPUT_VARIABLE TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_missing ERROR_QUIET)
if(torch_missing)
  message(FATAL_ERROR
    "torch is not installed for ${Python_EXECUTABLE}. Install torch >= 2.11 first, then: pip install --no-build-isolation .")
endif()

add_library(torch_stable INTERFACE)
target_include_directories(torch_stable SYSTEM INTERFACE ${TORCH_DIR}/include)
# 2.11: the oldest torch whose stable ABI the binaries may use.
target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=0x020b000000000000ULL)
# Python loads torch with RTLD_LOCAL, so a library that names no torch library would see none of its symbols.
target_link_libraries(torch_stable INTERFACE ${TORCH_DIR}/lib/libtorch_cpu.so)
set(CMAKE_SKIP_RPATH ON)
