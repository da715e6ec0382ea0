# make demo   what it is, how fast it is, and one model trained: five minutes after set-up
# make test   lint, CUDA compile check, every test
# Variables: PYTHON (to make .venv), DATA, DATA_DIR, OUT (demo), SACCADE_DATA (real data for tests, where there is some),
# SACCADE_CUDA (1 or 0: build the CUDA kernels or not; by default where a GPU is found).
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PYTHON_BIN := .venv/bin
PIP := $(PYTHON_BIN)/python -m pip --disable-pip-version-check --no-input -q
DATA ?= digits
DATA_DIR ?=
OUT ?= runs/demo
export SACCADE_DATA ?= $(wildcard $(abspath ../shared/data))

SOURCES := $(shell find csrc cmake -type f) CMakeLists.txt pyproject.toml
# An editable installation knows its Python files by name: build/files changes when one comes or goes.
$(shell mkdir -p build; find python triton_kernels bench -name '*.py' | sort > build/files.new; \
  cmp -s build/files.new build/files && rm build/files.new || mv build/files.new build/files)
# Tests that share the cores: one file a time on each.
PARALLEL := -n auto --dist loadfile
ALONGSIDE := $(wildcard $(addprefix tests/,compress cuda models nn ops quantum reference systems)) tests/triton/test_compile.py
PYTHON_SOURCES := python triton_kernels bench tests tools
CPP_SOURCES := $(filter %.h %.cpp %.inl %.cu %.cuh,$(SOURCES))

.PHONY: help demo test lint format typecheck cuda-check pytest pytest-triton slow asan bench bench-peers docs wheel gpu clean
help:
	@sed -n '1,4s/^# //p' Makefile

.venv: .venv/installed

# The dependencies that pyproject.toml names, at the versions that constraints.txt pins.
.venv/installed: pyproject.toml constraints.txt tools/requirements.py
	@test -x $(PYTHON_BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the environment into .venv (several minutes the first time) ..."
	@$(PIP) install --upgrade pip
	@$(PYTHON_BIN)/python tools/requirements.py dev > .venv/requirements.txt
	@PYTHONWARNINGS=ignore $(PIP) install -c constraints.txt -r .venv/requirements.txt
	@touch $@

# An editable installation: Python files are used in place, libraries are built incrementally under build/.
define install
	@mkdir -p build
	@echo "building saccade$(1) ..."
	@PATH="$(abspath $(PYTHON_BIN)):$$PATH" $(2) $(PIP) install --no-build-isolation --no-deps -v -e . > build/build.log 2>&1 \
	  || { cat build/build.log; exit 1; }
endef

build/installed: .venv/installed build/files $(SOURCES)
	$(call install,,)
	@touch $@

build/installed-cuda: .venv/installed build/files $(SOURCES)
	$(call install, with its CUDA kernels,SACCADE_CUDA=1)
	@touch build/installed $@

demo: build/installed
	@$(PYTHON_BIN)/saccade info
	@$(PYTHON_BIN)/saccade bench neighborhood_attention --quick
	@$(PYTHON_BIN)/saccade train --config configs/demo.yaml --data $(DATA) $(if $(DATA_DIR),--data-dir $(DATA_DIR)) --out $(OUT)

test: lint cuda-check pytest-triton pytest

lint: build/installed-cuda
	@$(PYTHON_BIN)/ruff check -q $(PYTHON_SOURCES)
	@$(PYTHON_BIN)/ruff format -q --check $(PYTHON_SOURCES) || { echo "make format mends the layout"; exit 1; }
	@$(PYTHON_BIN)/mypy
	@$(PYTHON_BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)
	@$(PYTHON_BIN)/lint-imports --no-cache > build/imports.log || { cat build/imports.log; exit 1; }
	@echo "lint: ruff, mypy, clang-format and the import contract are clean"

format:
	@$(PYTHON_BIN)/ruff check -q --fix $(PYTHON_SOURCES)
	@$(PYTHON_BIN)/ruff format -q $(PYTHON_SOURCES)
	@$(PYTHON_BIN)/clang-format -i $(CPP_SOURCES)

# Compiled for every architecture, with the registers and spills of every kernel in build/ptxas.txt.
cuda-check: build/installed-cuda
	@$(PYTHON_BIN)/python tools/ptxas_report.py --build build --out build/ptxas.txt

# The interpreter's switch is read when a kernel's module is imported, so these tests have a process of their own.
pytest-triton: build/installed-cuda
	@TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(PYTHON_BIN)/python -m pytest -q $(PARALLEL) tests/triton

# What measures time or memory, or starts processes of its own, runs alone.
pytest: build/installed-cuda
	@OMP_NUM_THREADS=1 $(PYTHON_BIN)/python -m pytest -q $(PARALLEL) -m "not slow" $(ALONGSIDE)
	@$(PYTHON_BIN)/python -m pytest -q -m "not slow" $(addprefix --ignore=,$(ALONGSIDE))

slow: build/installed-cuda
	@$(PYTHON_BIN)/python -m pytest -q -m slow

# The operators' tests on libraries built with address and undefined behaviour sanitizers.
asan: build/installed
	@PATH="$(abspath $(PYTHON_BIN)):$$PATH" cmake --preset asan -DPython_EXECUTABLE=$(abspath $(PYTHON_BIN))/python \
	  -Dpybind11_DIR=$$($(PYTHON_BIN)/python -m pybind11 --cmakedir) > build/asan.log 2>&1 || { cat build/asan.log; exit 1; }
	@PATH="$(abspath $(PYTHON_BIN)):$$PATH" cmake --build --preset asan > build/asan.log 2>&1 || { cat build/asan.log; exit 1; }
	@SACCADE_LIBRARY_DIR=build/asan LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(PYTHON_BIN)/python -m pytest -q --capture=sys -m "not slow" tests/ops -k "not compile and not export and not memory"

bench: build/installed
	@for operator in $$($(PYTHON_BIN)/python -c 'import saccade.bench; print(*saccade.bench.OPERATORS)'); do \
	  $(PYTHON_BIN)/saccade bench $$operator --json build/bench/$$operator.json --plot build/bench/$$operator.png || exit 1; done
	@$(PYTHON_BIN)/saccade bench models --json build/bench/models.json

# The peers that the package index has, in an environment of their own on top of .venv.
bench-peers: build/installed
	@bash tools/bench_peers.sh

docs: build/installed
	@$(PYTHON_BIN)/python tools/docs.py
	@NO_MKDOCS_2_WARNING=1 $(PYTHON_BIN)/mkdocs build -q --strict

wheel: .venv/installed
	@PATH="$(abspath $(PYTHON_BIN)):$$PATH" $(PYTHON_BIN)/python -m build --wheel --no-isolation --outdir dist . > build/wheel.log 2>&1 \
	  || { cat build/wheel.log; exit 1; }
	@ls -t dist/*.whl | head -1

gpu:
	@bash tools/gpu.sh

clean:
	@rm -rf build dist runs site
