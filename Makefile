# make demo   a phantom patient through the whole cascade, without torch: out/demo/
# make test   style, types and tests
# make fast   the tests that take no more than a few seconds each
# make coverage   the tests, and the lines and branches that none of them runs
#
# Both make .venv/ when it is not there, extend it when it is, and do nothing to it when it is up to date.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first of these that is Python 3.10 to 3.13 and can make environments; or say which: make test PYTHON=/path/to/python
PYTHON_CHECK := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.10; do \
	$$p -c '$(PYTHON_CHECK)' >/dev/null 2>&1 && { echo $$p; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Without this very version, which is the build for the CPU on Linux, pip takes gigabytes of CUDA libraries.
TORCH := torch==2.13.0
# Bare, for their other needs would bring torchvision with CUDA, and a VTK that slicer-core cannot use; what the tests
# use of them needs neither. Their ordinary dependencies are in the extra `test`.
BARE := nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 batchgeneratorsv2==0.3.6 acvl-utils==0.2.6 \
	TotalSegmentator==2.18.0

# Test files run in this many processes, each file in one of them. What computes in a process takes one thread then.
JOBS := 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

.PHONY: help demo test fast coverage style types clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.core
	@$(BIN)/soars demo --output out/demo

test: style types
	@$(PYTEST)

fast: $(VENV)/.complete
	@$(PYTEST) -m 'not slow'

# Not part of `test`, since counting takes a third more time (7.2 s become 9.5 s for test_structures and test_formats).
coverage: $(VENV)/.complete
	@$(BIN)/python -m pytest --cov --cov-report=term-missing

style: $(VENV)/.complete
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.complete
	@$(BIN)/mypy
	@$(BIN)/mypy --ignore-missing-imports Testing/benchmarks

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 to 3.13 with its venv module is needed (Debian: apt install python3-venv)" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.core: pyproject.toml | $(VENV)/.python
	@echo "installing the core into $(VENV)"
	@$(PIP) --editable '.[run]'
	@touch $@

$(VENV)/.complete: pyproject.toml | $(VENV)/.core
	@echo "installing all that training and the tests need into $(VENV): some minutes the first time"
	@$(PIP) '$(TORCH)'
	@$(PIP) --editable '.[run,torch,train,study,network,test]'
	@$(PIP) --no-deps $(BARE)
	@touch $@

clean:
	rm -rf build out .coverage .pytest_cache .ruff_cache .mypy_cache
