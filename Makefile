# Everything runs from .venv, which the first target that needs it builds; .venv/.installed remembers from what.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
INSTALLED := .venv/.installed
# A process for each core, one thread in each; the tests of a file share what the file builds once. In the order of
# their names: by their number, the few that take long would come last, one core waiting for the other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# What is compiled is kept, whatever the shell says: else each process of the tests would compile the package, and
# pytest the assertions, anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test pytest style types test-slow test-peer test-gpu test-browser lint-js fuzz coverage benchmark docs dist lint format clean

help:
	@echo "make demo       the whole story on synthetic slices, left in demo/ (minutes)"
	@echo "make test       lint, then the tests (minutes); also test-slow, test-peer, test-gpu, test-browser"
	@echo "make fuzz       damaged files by the thousand, to every reader; ROBUSTMRI_FUZZ_EXAMPLES=2500 (minutes)"
	@echo "make coverage   the tests, and the lines and branches that none of them runs"
	@echo "make benchmark  side by side with other libraries; says what it needs (hours)"
	@echo "make docs       the site, into build/site; broken links fail"
	@echo "make dist       the wheel, into dist/; fails unless it holds the package and starts"
	@echo "make install    .venv alone; with HASHES=1 each file is compared with hashes.txt first"
	@echo "make lint-js    types of the workbench's scripts; needs npm, as test-browser does"
	@echo "make lint       ruff, mypy and the import contracts; 'make format' mends what can be mended"
	@echo "make clean      remove .venv and the caches"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt peers.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make needs Python 3.11 or later for constraints.txt: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (minutes the first time) ..."
	@$(if $(HASHES),$(PIP) install --require-hashes --no-deps --requirement hashes.txt)
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@$(PIP) install --no-deps --requirement peers.txt
	@touch $@

demo: $(INSTALLED)
	$(BIN)/robustmri demo --out demo

# Types beside the tests: neither keeps both cores busy from beginning to end.
test: style
	$(MAKE) --no-print-directory --jobs=2 types pytest

pytest: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow
	$(PYTEST) --hypothesis-profile deep -k properties

test-peer: $(INSTALLED)
	$(BIN)/pytest -m peer

test-gpu: $(INSTALLED)
	$(BIN)/pytest -m gpu

# The workbench in a Chromium: the one in CHROMIUM, the system's, or Playwright's own.
test-browser: $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --editable '.[browser]'
	@test -n "$(CHROMIUM)" || command -v chromium > /dev/null || $(BIN)/playwright install chromium
	$(MAKE) lint-js
	AXE=build/npm/node_modules/axe-core/axe.min.js $(BIN)/pytest -m browser tests/web

# The page's scripts: their types, as their comments say them. From npm, for the tests alone.
lint-js: build/npm/.installed
	build/npm/node_modules/.bin/tsc --project tests/web/tsconfig.json

build/npm/.installed: Makefile
	npm install --prefix build/npm --no-save --no-audit --no-fund --silent axe-core@4.14.1 typescript@7.0.2
	@touch $@

fuzz: $(INSTALLED)
	$(PYTEST) --dist load -m fuzz


coverage: $(INSTALLED)
	$(PYTEST) --cov

benchmark: $(INSTALLED)
	@test -n "$(STANDARD)$(ARGS)" || { \
	  echo "make benchmark STANDARD=RUN HARDENED=RUN COHORT=DIR [OUT=results/benchmarks/cpu] [ARGS='--only curve']"; \
	  echo "RUN: an undefended and a hardened run of one cohort, as demo and train leave them; see docs/benchmarks.md"; \
	  echo "make benchmark ARGS=--quick   everything on almost nothing, to see that it runs"; \
	  exit 2; }
	$(BIN)/python -m benchmarks $(STANDARD) $(HARDENED) $(COHORT) $(if $(STANDARD),--out "$(or $(OUT),results/benchmarks/cpu)") $(ARGS)

# The site, and what it needs; tests do not pay for it.
.venv/.docs: $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

# What was built is installed apart from the sources, compared with them file by file, and started.
dist: $(INSTALLED)
	rm -rf dist build/wheel
	$(PIP) wheel --no-deps --wheel-dir dist .
	$(PIP) install --no-deps --no-compile --target build/wheel dist/*.whl
	diff --recursive --exclude=__pycache__ src/robustmri build/wheel/robustmri
	cd build && PYTHONPATH=wheel $(abspath $(BIN))/python -c 'import robustmri; assert "wheel" in robustmri.__file__'
	cd build && PYTHONPATH=wheel $(abspath $(BIN))/python -m robustmri.app.cli --version
	cd build && PYTHONPATH=wheel $(abspath $(BIN))/python -m robustmri.app.cli recipes > /dev/null
	@ls dist/*.whl

lint: style types

style: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
