# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt

.PHONY: demo test lint types tests studies clean

demo: .venv/ready
	$(BIN)/microtome sweep nano -o out/demo -e 'zero L*.z.h*' \
	  -m logit_diff -m prob -m top1 \
	  -p 'When Sam and Sally went to the park, Sam gave a gift to' \
	  --target ' Sally' --contrast ' Sam'

studies: .venv/ready
	$(BIN)/microtome study run --all --model nano -o out/studies

test: lint types tests

lint: .venv/ready-to-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready-to-test
	$(BIN)/mypy

tests: .venv/ready-to-test
	$(BIN)/pytest -n auto

.venv/bin/python:
	@echo "Making .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv

.venv/ready: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing microtome and what it needs (PyTorch among it: some minutes the first time)"
	$(PIP) -e .
	@touch $@

.venv/ready-to-test: .venv/ready pyproject.toml constraints.txt
	@echo "Installing what the tests need"
	$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv out
