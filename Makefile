VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: setup demo test check lint type wheel bench bench-gpu clean

setup: $(VENV)/.installed  ## install the package and its tools, at the pinned versions, into $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## the main job on the embedded sample market and base, with its control
	$(BIN)/python -m kronos_service.finetune event-lora --control

test: setup  ## everything that is fast and offline
	$(BIN)/python -m pytest

check: lint type test wheel  ## what CI runs, but for the demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup  ## mypy, on an installed copy: it cannot see through the hyphen of kronos-service/
	rm -rf build/types
	$(BIN)/python -m pip install --quiet --no-deps --target build/types .
	MYPYPATH=build/types $(BIN)/mypy -p kronos_service -p kronos_shared
	MYPYPATH=build/types:tests/data:tests/events:tests/model $(BIN)/mypy --explicit-package-bases tests

wheel: setup  ## build the wheel, install it into an empty environment, run the sample job from there
	$(BIN)/python -m pytest -m slow tests/test_packaging.py

bench: setup  ## time ratios, each measured within one run
	$(BIN)/python -m pytest -s -m "slow and not gpu" tests/benchmarks

bench-gpu: setup  ## memory of the full-size job, on a CUDA device
	$(BIN)/python -m pytest -s -m gpu tests/benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
