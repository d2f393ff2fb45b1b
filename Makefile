# Everything a person or a machine needs: `make demo` and `make test` set up what they use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: setup demo test check format clean

setup: $(VENV)/.ready

# what the program needs
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (once; a few minutes, most of it PyTorch)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

# and what the tests need besides
$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/dyn3r demo -o demo-output --overwrite
	@echo
	@echo "The scene is in demo-output/. To open it in the browser:  $(BIN)/dyn3r view demo-output"

test: check
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo-output build dist .pytest_cache .mypy_cache .ruff_cache
