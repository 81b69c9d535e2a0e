# Two commands do everything:  make demo   and   make test
# Both build their own environment in .venv first. PYTHON=python3.12 picks another interpreter (3.11 or newer),
# ARGS="--quick --seed 1" goes to the demo or to pytest.
PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
CONSTRAINTS ?= constraints.txt
ARGS ?=
# Installed first and pinned: an open range would replace a CPU build by the newest one with all of CUDA.
TORCH := $(shell grep '^torch==' constraints.txt)
READY := $(VENV)/.ready
READY_FOR_TESTS := $(VENV)/.ready-for-tests
READY_VLLM := $(VENV_VLLM)/.ready
PYTEST := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest

.PHONY: demo test test-fast test-benchmarks test-versions test-lowest test-newest test-vllm docs benchmark lint clean

demo: $(READY)
	$(VENV)/bin/rlvr-trl demo $(ARGS)

test: $(READY_FOR_TESTS) lint
	$(PYTEST) $(ARGS)

test-fast: $(READY_FOR_TESTS) lint
	$(PYTEST) -m "not slow" $(ARGS)

# What tests the scripts of benchmarks/ and nothing of the package; CI runs it after `make test`
test-benchmarks: $(READY)
	$(PYTEST) tests/benchmarks $(ARGS)

# The fast tests on the lowest and on the newest trl, transformers, accelerate and peft that pyproject.toml admits, in
# environments of their own
test-versions: test-lowest test-newest

test-lowest test-newest: test-%:
	mkdir -p .venv-$*
	$(PYTHON) tests/constraints_of_range.py $* > .venv-$*/constraints.txt
	$(MAKE) VENV=.venv-$* CONSTRAINTS=.venv-$*/constraints.txt .venv-$*/.ready
	.venv-$*/bin/python -m pip freeze | grep -E '^(trl|transformers|accelerate|peft)=='
	$(subst $(VENV)/,.venv-$*/,$(PYTEST)) -m "not slow" $(ARGS)

# With a real vLLM on the CPU, in an environment of its own: docs/vllm.md
test-vllm: $(READY_VLLM)
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 \
		$(VENV_VLLM)/bin/python -m pytest --numprocesses 0 tests/with_vllm $(ARGS)

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

benchmark: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/comparison.py $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyrefly check --python-interpreter-path $(VENV)/bin/python

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(TORCH)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]' --constraint $(CONSTRAINTS)
	touch $(READY)

# A package that reasoning-gym needs is compiled from C; where that fails, the tests of its tasks are skipped
$(READY_FOR_TESTS): $(READY)
	$(VENV)/bin/python -m pip install --quiet --editable '.[puzzles]' --constraint $(CONSTRAINTS) \
		|| echo "reasoning-gym was not installed: the tests of its tasks will be skipped"
	touch $(READY_FOR_TESTS)

$(READY_VLLM): pyproject.toml constraints-vllm.txt
	test -x $(VENV_VLLM)/bin/python || $(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --quiet --no-deps --requirement constraints-vllm.txt
	$(VENV_VLLM)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY_VLLM)

clean:
	rm -rf $(VENV) $(VENV_VLLM) .venv-lowest .venv-newest build dist site *.egg-info
