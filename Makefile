# Each command sets up what it needs: `make train` or `make test` alone does everything on a fresh machine.
#   PYTHON=/path/to/python   the interpreter that a new .venv is made with (after `make clean` for an existing one)
#   ARGS="..."               further arguments for train, cifar10 (flags of main), test (arguments of pytest), soak, demo

VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := -m pip install --disable-pip-version-check --no-input
PYTEST = $(PY) -m pytest -n 2 --dist loadfile
UV := uv==0.13.8

# The first that runs (a shim of pyenv may be on PATH and fail), is 3.11 or 3.12, and can make environments.
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3 python3.12 python3.11 python)
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
find_python = $(shell for p in $(CANDIDATES); do "$$p" -c '$(USABLE)' >/dev/null 2>&1 && echo "$$p" && break; done)
no_python = $(error no working Python 3.11 or 3.12 with venv among: $(CANDIDATES). Install one or pass PYTHON=/path/to/python)
python = $(or $(find_python),$(no_python))

.DEFAULT_GOAL := help
.PHONY: help train cifar10 test test-slow coverage test-tpu soak demo lint format env lock clean

help: ## list the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@sed -n 's/^#   /  /p' $(firstword $(MAKEFILE_LIST))

train: $(VENV)/run.stamp ## train and evaluate on the bundled digits: no download of data, minutes on a CPU
	$(PY) -m convmixer_jax.main --config configs/digits.py $(ARGS)

cifar10: $(VENV)/run.stamp ## train and evaluate on CIFAR-10 with the fast recipe: meant for an accelerator
	$(PY) -m convmixer_jax.main --config configs/cifar10_fast.py $(ARGS)

test: lint ## check style and types, then run the tests: minutes
	$(PYTEST) -m "not slow and not tpu" $(ARGS)

test-slow: $(VENV)/test.stamp ## run what test leaves out: killed runs, several processes, full disks, the largest models
	$(PYTEST) -m slow $(ARGS)

coverage: $(VENV)/test.stamp ## run both, and tell which lines none of them runs: measuring takes a quarter longer
	$(PYTEST) -m "not tpu" --cov=convmixer_jax --cov-report=term $(ARGS)

test-tpu: $(VENV)/test.stamp ## run what asks the TPU's compiler, which needs no TPU; adds jax[tpu], 700 MB, to the environment
	$(PY) $(PIP_INSTALL) -c requirements.txt "jax[tpu]"
	$(PY) -m pytest -m tpu $(ARGS)

demo: $(VENV)/run.stamp ## a study of the digits with its report, runs/studies/demo/report/report.html: minutes on a CPU
	$(PY) -m convmixer_jax.sweep --study studies/demo.py $(ARGS)
	$(PY) -m convmixer_jax.report runs/studies/demo --out runs/studies/demo/report --open no

soak: $(VENV)/run.stamp ## a hundred trials of the crash test: an hour or two
	$(PY) -m convmixer_jax.crashtest --trials 100 $(ARGS)

lint: $(VENV)/test.stamp ## check style and types only
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: $(VENV)/test.stamp ## put the code into the style that lint checks
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

env: $(VENV)/run.stamp ## only make the environment that train uses

lock: ## resolve pyproject.toml into requirements.txt; keeps its versions where it can, UPGRADE=1 takes the newest
	"$(python)" -m venv --clear .venv-lock
	.venv-lock/bin/python $(PIP_INSTALL) --quiet $(UV)
	.venv-lock/bin/uv pip compile pyproject.toml --output-file requirements.txt --quiet $(if $(UPGRADE),--upgrade) \
	  --universal --python-version 3.11 --python .venv-lock/bin/python --annotation-style line \
	  --no-config --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean: ## remove environments, caches and builds; runs/ stays
	rm -rf $(VENV) .venv-lock .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last: an interrupted installation has none and starts over, a changed lock makes it out of date.
$(VENV)/run.stamp: requirements.txt
	@echo "Making $(VENV) from requirements.txt with $(python): one to ten minutes the first time, about 3 GB of disk."
	"$(python)" -m venv --clear $(VENV)
	$(PY) $(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/test.stamp: requirements-test.txt $(VENV)/run.stamp
	@echo "Adding the test tools to $(VENV); PyTorch is the largest of them."
	$(PY) $(PIP_INSTALL) -r requirements-test.txt
	@touch $@
