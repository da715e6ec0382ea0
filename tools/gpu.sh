#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, without a network, within ten minutes: builds from source against the torch that is
# installed there, runs the tests that need a GPU, measures, and writes logs and JSON to $OUT.
#   OUT (default build/gpu)   PYTHON (default python3)   LIMIT (seconds in all, default 580)
# Exit status: 0 all stages passed, 1 a stage failed, 2 there is no GPU, or no torch that can use it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
OUT=${OUT:-build/gpu}
LIMIT=${LIMIT:-580}
WORK=$PWD/build/gpu-work
SITE=$WORK/site

has_gpu() {
  compgen -G "/dev/nvidia[0-9]*" >/dev/null || nvidia-smi -L 2>/dev/null | grep -q "^GPU"
}

if ! has_gpu; then
  echo "make gpu needs an NVIDIA GPU, and this machine has none: there is no device /dev/nvidia*, and nvidia-smi lists no GPU." >&2
  exit 2
fi
if ! ARCH=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2>/dev/null); then
  echo "make gpu needs a torch that can use the GPU, and $PYTHON has none: set PYTHON to an interpreter that has." >&2
  exit 2
fi

mkdir -p "$OUT" "$WORK" || exit 1
OUT=$(cd "$OUT" && pwd)
# Nothing is read from or written to the user's caches, and nothing asks a package index.
export PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}
export TRITON_CACHE_DIR=$WORK/triton TORCHINDUCTOR_CACHE_DIR=$WORK/inductor MPLCONFIGDIR=$WORK/matplotlib
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export SACCADE_CUDA=1 TORCH_CUDA_ARCH_LIST=$ARCH
unset TRITON_INTERPRET SACCADE_LIBRARY_DIR SACCADE_ISA

names=() outcomes=() times=()
failed=0

# stage NAME SECONDS COMMAND...: run with a time limit, log to $OUT/NAME.log, remember the outcome, go on.
stage() {
  local name=$1 limit=$2 left=$((LIMIT - SECONDS)) start=$SECONDS status outcome
  shift 2
  if ((left < 5)); then
    status=124 outcome="no time left"
  else
    ((limit > left)) && limit=$left
    echo "== $name (at most $limit s)"
    timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1
    status=$?
    case $status in
      0) outcome=passed ;;
      5) [[ $* == *pytest* ]] && outcome="no test" || outcome="failed (5)" ;;
      124 | 137) outcome="stopped after $limit s" ;;
      *) outcome="failed ($status)" ;;
    esac
    if ((status)); then
      tail -n 30 "$OUT/$name.log"
    else
      tail -n 1 "$OUT/$name.log"
    fi
  fi
  ((status)) && failed=1
  names+=("$name") outcomes+=("$outcome") times+=($((SECONDS - start)))
  return "$status"
}

# The wheel into a directory of its own; where pip or the build backend refuses, CMake and a copy do the same.
build() {
  "$PYTHON" -m pip install -v --no-index --no-deps --no-build-isolation --no-cache-dir --upgrade --target "$SITE" \
    --config-settings=build-dir="$WORK/cmake" --config-settings=cmake.define.SACCADE_WERROR=OFF . && return
  echo "-- pip could not build it; building with CMake alone"
  rm -rf "$SITE"
  cmake -G Ninja -S . -B "$WORK/cmake-plain" -DCMAKE_BUILD_TYPE=Release -DSACCADE_CUDA=ON -DSACCADE_WERROR=OFF \
    -DPython_EXECUTABLE="$("$PYTHON" -c 'import sys; print(sys.executable)')" \
    -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" &&
    cmake --build "$WORK/cmake-plain" &&
    cmake --install "$WORK/cmake-plain" --prefix "$SITE" &&
    cp -r python/saccade/. "$SITE/saccade/" &&
    cp -r triton_kernels "$SITE/saccade/triton_kernels" &&
    cp -r bench "$SITE/saccade/bench"
}

# stage runs commands under timeout, which knows no functions.
export -f build
export PYTHON SITE WORK

pytest=("$PYTHON" -m pytest -q -o "addopts=--import-mode=importlib --strict-markers -p no:cacheprovider")
ptxas=("$PYTHON" tools/ptxas_report.py --build "$WORK" --out "$OUT/ptxas.txt")
mapfile -t marked < <(grep -rlE "mark\.cuda" tests --include="test_*.py" | grep -v "^tests/triton/" | sort)
# The operators' tests take their marks from tests/ops/conftest.py.
mapfile -t operators < <(ls tests/ops/test_*.py)
mapfile -t gpu_tests < <(printf '%s\n' "${marked[@]}" "${operators[@]}" | sort -u)

nvidia-smi >"$OUT/nvidia-smi.txt" 2>&1
if stage build 280 bash -c build; then
  stage info 60 "$PYTHON" -m saccade info
  stage ptxas 30 "${ptxas[@]}"
  stage cuda-tests 150 "${pytest[@]}" -m cuda --continue-on-collection-errors --junitxml="$OUT/cuda-tests.xml" "${gpu_tests[@]}"
  stage triton-tests 120 "${pytest[@]}" --junitxml="$OUT/triton-tests.xml" tests/triton
  mapfile -t words < <("$PYTHON" -c 'import saccade.bench; print(*saccade.bench.OPERATORS, sep="\n")')
  for word in "${words[@]}"; do
    bench=("$PYTHON" -m saccade bench "$word" --device cuda --quiet)
    stage "bench-$word" 60 "${bench[@]}" --json "$OUT/$word-float32.json" --plot "$OUT/$word-float32.png"
    stage "bench-$word-bfloat16" 40 "${bench[@]}" --dtype bfloat16 --json "$OUT/$word-bfloat16.json"
    stage "bench-$word-triton" 30 "${bench[@]}" --backend triton --peers none --json "$OUT/$word-triton.json"
  done
  stage bench-models 90 "$PYTHON" -m saccade bench models --device cuda --quick --quiet --json "$OUT/models-float32.json"
  stage triton-interpreter 120 env TRITON_INTERPRET=1 "${pytest[@]}" -x tests/triton
fi

summary() {
  printf '%-20s %8s  %s\n' stage seconds outcome
  for i in "${!names[@]}"; do
    printf '%-20s %8s  %s\n' "${names[i]}" "${times[i]}" "${outcomes[i]}"
  done
}
echo
summary | tee "$OUT/summary.txt"
echo "logs and JSON: $OUT"
exit "$failed"
