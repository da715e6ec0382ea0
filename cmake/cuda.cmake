# The CUDA kernels, in a library of their own: it is loaded only where torch has CUDA, and its failure is local.
set(wanted ${SACCADE_CUDA})
if(wanted STREQUAL "AUTO")
  set(wanted OFF)
  if("$ENV{SACCADE_CUDA}" STREQUAL "1" OR (EXISTS /dev/nvidia0 AND NOT "$ENV{SACCADE_CUDA}" STREQUAL "0"))
    set(wanted ON)
  endif()
endif()
set(SACCADE_CUDA_ARCH_LIST "")
if(NOT wanted)
  return()
endif()

# A toolkit on this machine, or NVIDIA's wheels beside torch's own CUDA libraries.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  get_filename_component(site_packages ${TORCH_DIR} DIRECTORY)
  find_program(CMAKE_CUDA_COMPILER nvcc
    HINTS ${site_packages}/nvidia/cu13/bin PATHS /usr/local/cuda/bin)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR
      "The CUDA kernels were asked for, but there is no nvcc: install a CUDA toolkit, or pip install nvidia-cuda-nvcc "
      "nvidia-cuda-cccl, or set SACCADE_CUDA=0 to build without them.")
  endif()
endif()

# The wheels keep their libraries in lib/, where their nvcc looks for lib64/.
if(CMAKE_CUDA_COMPILER)
  get_filename_component(toolkit_bin ${CMAKE_CUDA_COMPILER} DIRECTORY)
  if(NOT EXISTS ${toolkit_bin}/../lib64 AND EXISTS ${toolkit_bin}/../lib/libcudart_static.a)
    set(CMAKE_CUDA_FLAGS_INIT "-L${toolkit_bin}/../lib")
  endif()
endif()

# TORCH_CUDA_ARCH_LIST is torch's own convention: "8.0;9.0+PTX" becomes 80-real;90.
set(arch_list "$ENV{TORCH_CUDA_ARCH_LIST}")
if(NOT arch_list)
  set(arch_list "8.0;9.0+PTX")
endif()
string(REPLACE " " ";" arch_list "${arch_list}")
set(CMAKE_CUDA_ARCHITECTURES)
foreach(arch ${arch_list})
  string(REGEX REPLACE "[.]" "" number "${arch}")
  if(number MATCHES "[+]PTX$")
    string(REPLACE "+PTX" "" number "${number}")
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${number})
  else()
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${number}-real)
  endif()
  list(APPEND archs sm_${number})
endforeach()
list(JOIN archs "," SACCADE_CUDA_ARCH_LIST)

set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)
set(CMAKE_CUDA_COMPILER_LAUNCHER ${Python_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/keep_stderr.py)
if(CCACHE)
  list(APPEND CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/*/*.cu csrc/*/bind.cpp csrc/*/program.cpp)
add_library(_C_cuda MODULE ${cuda_sources})
target_link_libraries(_C_cuda PRIVATE saccade_options torch_stable)
# libtorch.so stands for libtorch_cuda.so where torch has CUDA, and for libtorch_cpu.so elsewhere. libstdc++ goes first:
# libtorch.so exports copies of some of its symbols, to which ours must not be bound.
target_link_options(_C_cuda PRIVATE
  "LINKER:--push-state,--no-as-needed" -lstdc++ ${TORCH_DIR}/lib/libtorch.so "LINKER:--pop-state")
target_compile_definitions(_C_cuda PRIVATE USE_CUDA)
# The report of -v, read by tools/ptxas_report.py, judges spills.
target_compile_options(_C_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
  -Xcompiler=-ffile-prefix-map=${CMAKE_SOURCE_DIR}=. -Xcompiler=-ffile-prefix-map=${TORCH_DIR}/include=.
  --expt-relaxed-constexpr -Xptxas=-v $<$<BOOL:${SACCADE_WERROR}>:-Werror=all-warnings> -Wno-deprecated-gpu-targets>)
