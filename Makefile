# Copyright (c) addp_mm contributors. Apache-2.0.
# Every target first installs what it needs into .venv, unless it is installed already. STACK=onedl installs the onedl
# forks of the OpenMMLab packages instead of the originals, into .venv-onedl: both use the same import names.
STACK ?= openmmlab
ifeq ($(filter $(STACK),openmmlab onedl),)
$(error STACK is $(STACK); it can be openmmlab (the original packages) or onedl (the maintained forks))
endif
# mmrotate for the stack: docs/compat.md
ROTATED := $(if $(filter onedl,$(STACK)),rotated-onedl,rotated)
VENV ?= $(if $(filter onedl,$(STACK)),.venv-onedl,.venv)
DEMO_ARGS ?=
TEST_ARGS ?=
PYTHON ?= $(shell for p in python3.12 python3.13 python3.14 python3.11 python3.10 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
	>/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint docs setup clean help
.DEFAULT_GOAL := help

help:
	@echo 'make demo   what the shipped weights predict, then short trainings; writes work_dirs/demo/report.html'
	@echo 'make test   run the tests'
	@echo 'make lint   check style, format, types and import rules'
	@echo 'make docs   build the documentation into build/docs'
	@echo 'make setup  only create $(VENV) with everything installed'
	@echo 'STACK=onedl with any of them: the onedl forks in .venv-onedl, instead of the original packages'

setup: $(READY)

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'addp_mm needs Python 3.10 to 3.14; none was found.' \
		'Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 14) or sys.exit(\
		"addp_mm needs Python 3.10 to 3.14; $(PYTHON) is %d.%d. Name another: make PYTHON=python3.11" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot create virtual environments.' \
		'On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# opencv-python, which mmengine requires, loads libGL. Servers often lack it; the headless build does not need it.
$(READY): setup.cfg pyproject.toml setup.py | $(BIN)/python
	@echo 'Installing into $(VENV); PyTorch is large, so this takes a few minutes the first time.'
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip  # an interrupted make left no pip
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --upgrade 'pip>=23'
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[$(STACK),$(ROTATED),dev]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { echo 'opencv-python cannot be imported (no libGL?): installing the headless build'; \
		$(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
		$(BIN)/python -m pip install --disable-pip-version-check --quiet --force-reinstall --no-deps opencv-python-headless; }
	@$(BIN)/python -c 'import addp_mm'
	@touch $@

demo: $(READY)
	$(BIN)/python .dev/demo.py $(DEMO_ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_import_rules.py

docs: $(READY)
	@$(BIN)/python -c 'import furo, myst_parser, sphinx_copybutton, sphinx_design' 2>/dev/null || \
		$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[$(STACK),$(ROTATED),dev,docs]'
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

clean:
	rm -rf $(VENV) build dist *.egg-info
