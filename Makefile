# Each target sets up .venv from requirements.lock first.
PYTHON ?= python3
PROFILE ?= smoke
BIN = .venv/bin
SMOKE = _build/reproduced
INSTALL = $$([ -x $(BIN)/uv ] && echo "$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python" || echo "$(BIN)/python -m pip install --quiet")

.PHONY: book browser test reproduce compare check bench links licences lock setup clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 12) else "make: Python 3.11 or 3.12 is needed, this is %d.%d; say make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true # several times faster than pip, not needed
	$(INSTALL) --require-hashes --requirement requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable . # setuptools is in the lock too
	@touch $@

book: compare
	$(BIN)/nflib book

# Every page of the built book in headless Chromium; needs Debian's packages chromium and npm, or CHROMIUM=PATH.
browser:
	@command -v npm >/dev/null || { echo "make: the browser's check needs npm (Debian's packages npm and chromium)"; exit 1; }
	cd tests/browser && npm ci --silent --no-audit --no-fund && node check.mjs

# The smoke study from nothing, into a folder of its own that is emptied first, compared with the committed records.
compare: setup
	rm -rf $(SMOKE)
	NFLIB_RESULTS=$(SMOKE) NFLIB_CHECKPOINTS=$(SMOKE)/checkpoints $(BIN)/nflib sweep --profile smoke --workers 2
	$(BIN)/nflib check --against $(SMOKE)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal # narrow models gain nothing from more threads

# Measure what a profile has no record of, and derive the tables of all pages.
reproduce: setup
	$(BIN)/nflib sweep --profile $(PROFILE) $(if $(filter smoke desk,$(PROFILE)),--workers 2)
	$(BIN)/nflib tables

# Speed beside other ways of doing the same work, into results/bench/; about six minutes on two cores.
bench: setup
	@$(INSTALL) --no-deps MRFI==2.1.0 || echo "bench: MRFI cannot be installed; its comparison is left out"
	PYTHONPATH=tests $(BIN)/python -m benchmarks

# Every link to another host that a page has; the pages must be there first.
links: setup
	$(BIN)/nflib book
	$(BIN)/jupyter-book build --builder linkcheck .

# After a change of pyproject.toml: the pins and hashes of what it asks for, newer ones with LOCK=--upgrade; and the licences.
lock:
	$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url --no-annotate $(LOCK) pyproject.toml -o requirements.lock

licences: setup
	$(BIN)/python .ci/licences.py

check: setup
	$(BIN)/nflib check

clean:
	rm -rf _build book/_executed
