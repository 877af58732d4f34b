.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SOURCES := lxmert datamodules tests benchmarks train.py

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: .venv/installed ## set up, then train on toy VQA and show the result (about 5 minutes on 2 cores)
	$(BIN)/python train.py experiment=toy_vqa

test: .venv/installed-test ## set up, then run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: .venv/installed-test ## damage 2,000 copies of each kind of file (about an hour)
	OMP_NUM_THREADS=1 LXMERT_FUZZ=2000 $(BIN)/python -m pytest -n 2 tests/*/test_fuzz_*.py

lint: .venv/installed-test ## check style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: .venv/installed-test ## format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean: ## remove the environment, toy data, caches (outputs/ stays)
	rm -rf .venv data/toy data/toy_gqa data/toy_long data/toy_nlvr2 build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	touch $@

.PHONY: help demo test fuzz lint format clean
