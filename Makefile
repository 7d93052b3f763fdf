# Two commands do all the set-up on a fresh machine:
#   make quick   installs into .venv and runs the quick study
#   make test    installs into .venv and runs the tests
# A plain PyPI torch may bring several GB of CUDA packages. For a small CPU install elsewhere give pip the address of
# PyTorch's own CPU wheel index:  make quick TORCH_INDEX=ADDRESS
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_INDEX ?=

# One worker per core, each with one thread; files stay whole, because their tests share what they make.
SPREAD := -n auto --dist loadfile
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: quick test check lint clean

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("speechscale needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: $(BIN)/python constraints.txt
	$(PIP) install -q -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[voices]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[voices,align,dev]'
	touch $@ $(VENV)/.run

quick: $(VENV)/.run
	$(BIN)/speechscale study run quick

test: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest $(SPREAD) -m "not slow"
	$(ONE_THREAD) $(BIN)/python -m pytest $(SPREAD) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

clean:
	rm -rf $(VENV)
