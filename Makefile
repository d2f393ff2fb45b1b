# Everything a person or a machine needs: `make demo` and `make test` set up what they use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# an empty CONSTRAINTS takes the newest versions
CONSTRAINTS ?= -c constraints.txt
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q $(CONSTRAINTS)

.PHONY: setup demo test test-fast test-release check docs format clean

setup: $(VENV)/.ready

# what the program needs
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (once; a few minutes, most of it PyTorch)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

# and what the tests need besides
$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) -e '.[dev,docs]'
	touch $@

demo: setup
	$(BIN)/dyn3r demo -o demo-output --overwrite
	@echo
	@echo "The scene is in demo-output/. To open it in the browser:  $(BIN)/dyn3r view demo-output"

test: check docs
	$(BIN)/python -m pytest -n auto --dist loadfile

# what runs in a minute
test-fast: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

# everything, with what takes minutes: results of the bundled clip, the wheel in a clean environment
test-release: test
	DYN3R_TEST_FROZEN=1 DYN3R_TEST_INSTALL=1 $(BIN)/python -m pytest -n auto --dist loadfile tests/test_frozen.py tests/test_wheel.py

# the documentation as a site, in build/site; a broken link is an error
docs: $(VENV)/.ready-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo-output build dist .pytest_cache .mypy_cache .ruff_cache
