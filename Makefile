# Everything here works on a fresh machine: the environment .venv is made on first use, with the
# newest supported Python found. `make PYTHON=/path/to/python` chooses another one.

PYTHON ?= $(shell .ci/pythons | head -n 1 | cut -d ' ' -f 2)
BIN = .venv/bin

SEED ?= 1

.PHONY: help demo quick test test-compiled full coverage coverage-c injection syscalls threads soak packages browser lint types docs bench clean

help:
	@echo "make demo    run the demonstration, on the stock loop and on uvloop"
	@echo "make quick   run the tests on a small part of the loop matrix (about two minutes)"
	@echo "make test    run the tests"
	@echo "make test-compiled  compile the C part, and run the tests with it"
	@echo "make full    run the tests on every supported Python, each on the full loop matrix (hours)"
	@echo "make coverage   report how much of each module its own tests execute"
	@echo "make coverage-c  report which lines of the C part the tests execute"
	@echo "make injection  raise an exception at every line of the engine in turn (takes long)"
	@echo "make syscalls   raise each error at every system call in turn, and run random programs"
	@echo "                on all streams (takes minutes)"
	@echo "make browser  run the tests of nurseryio in a web page, under node and in Chromium (needs npm)"
	@echo "make packages   run the tests of packages written for Trio (gets them from the package index)"
	@echo "make threads    run many event loops in many threads for ten minutes"
	@echo "make soak    do ten million operations, and see that memory does not grow (minutes)"
	@echo "make lint    check style and formatting"
	@echo "make types   check the types, and that the public ones are complete"
	@echo "make docs    build the documentation into docs/_build/html"
	@echo "make bench   run the short form of the benchmarks"
	@echo "make clean   remove the environment and everything built"

# One stamp for each set of extras, renewed when the project's requirements change.
.venv/%.stamp: pyproject.toml
	@test -n "$(PYTHON)" || { \
	echo "no Python 3.10 or newer with the modules venv and ensurepip was found" >&2; \
	echo "(on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

demo: .venv/uvloop.stamp
	$(BIN)/python examples/demo.py

# Two halves side by side. The second one writes into a file, which is shown at the end.
QUICK = $(BIN)/python -m pytest -q --matrix=quick
quick: .venv/test.stamp
	@rest=$$(mktemp) && trap 'rm -f "$$rest"' EXIT && \
	{ $(QUICK) --part=2/2 >"$$rest" 2>&1 & } && \
	{ $(QUICK) --part=1/2; one=$$?; wait $$!; two=$$?; \
	echo "--- the other half"; cat "$$rest"; [ $$one = 0 ] && [ $$two = 0 ]; }

test: .venv/test.stamp
	$(BIN)/python -m pytest

# The C module lies in the package while the tests run, and is removed afterwards.
test-compiled: .venv/test.stamp
	trap 'rm -f nurseryio/_speedups.*.so' EXIT && \
	NURSERYIO_COMPILE=1 $(BIN)/python -m pip install --quiet --no-deps --editable . && \
	NURSERYIO_EXPECT_COMPILED=1 $(BIN)/python -m pytest $(TESTS)

full:
	FULL=1 .ci/run

# `make coverage MODULES="_core.task _core.delivery"` measures these alone.
coverage: .venv/dev.stamp
	$(BIN)/python tests/harness/coverage_report.py $(MODULES)

coverage-c: .venv/test.stamp
	cd tests && ../$(BIN)/python -W ignore -m harness.c_coverage $(TESTS)

injection: .venv/test.stamp
	cd tests && ../$(BIN)/python -W ignore -m harness.injection
	cd tests && ../$(BIN)/python -W ignore -m harness.call_injection

syscalls: .venv/test.stamp
	cd tests && ../$(BIN)/python -W ignore -m harness.syscall_injection --seed $(SEED)
	cd tests && ../$(BIN)/python -W ignore -m harness.stream_stress --runs 300 --seed $(SEED)

PYODIDE ?= 314.0.7
AXE ?= 4.14.1
node_modules/pyodide:
	npm install --prefix . --no-save --no-package-lock --no-audit --no-fund pyodide@$(PYODIDE) axe-core@$(AXE)

browser: .venv/test.stamp .venv/docs.stamp node_modules/pyodide
	$(BIN)/python -m pytest tests/test_pyodide.py tests/test_run_in_page.py tests/test_site.py

# `make packages PACKAGES="jeepney httpx" OPTIONS=--trio` runs these alone, on the real Trio.
packages: .venv/test.stamp
	$(BIN)/python tests/harness/packages.py $(OPTIONS) $(PACKAGES)

soak: .venv/test.stamp
	cd tests && ../$(BIN)/python -m harness.soak 10_000_000
	cd tests && ../$(BIN)/python -m harness.soak 10_000_000 --loop uvloop

threads: .venv/test.stamp
	cd tests && ../$(BIN)/python -W ignore -m harness.thread_stress --seconds 600 --seed $(SEED)

lint: .venv/dev.stamp
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python tests/harness/prose.py

types: .venv/dev.stamp
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy --python-version 3.10
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pyright tests/typechecks.py examples/graceful_server.py
	cd .venv && PATH="$(CURDIR)/$(BIN):$$PATH" python -m pyright --verifytypes nurseryio --ignoreexternal

# With npm the examples get Run buttons. Without it Sphinx says in one line that they have none.
docs: .venv/docs.stamp
	@test -d node_modules/pyodide || ! command -v npm >/dev/null || $(MAKE) node_modules/pyodide || true
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: .venv/bench.stamp
	$(BIN)/python -m benchmarks --quick

clean:
	rm -rf .venv .ci-venv node_modules docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
