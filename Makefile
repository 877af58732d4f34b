.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SOURCES := lxmert datamodules tests benchmarks train.py

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: .venv/installed ## set up, then train on toy VQA and show the result (about 5 minutes on 2 cores)
	$(BIN)/python train.py experiment=toy_vqa

serve: .venv/installed ## a page to ask the newest toy VQA run on; without one, trains it first
	ls outputs/toy_vqa/*/checkpoints/best.ckpt > /dev/null 2>&1 || $(BIN)/python train.py experiment=toy_vqa
	$(BIN)/python -m lxmert.serve "$$(ls -t outputs/toy_vqa/*/checkpoints/best.ckpt | head -n 1)" --split minival

test: .venv/installed-test ## set up, then run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-tensorflow: .venv-tensorflow/installed ## set up TensorFlow in an environment of its own, then test the twins on it
	KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=2 .venv-tensorflow/bin/python -m pytest --noconftest tests/twins

fuzz: .venv/installed-test ## damage 2,000 copies of each kind of file (half an hour and more)
	OMP_NUM_THREADS=1 LXMERT_FUZZ=2000 $(BIN)/python -m pytest -n 2 tests/*/test_fuzz_*.py

lint: .venv/installed-test ## check style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: .venv/installed-test ## format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean: ## remove the environment, toy data, caches (outputs/ stays)
	rm -rf .venv .venv-tensorflow data/toy data/toy_* build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	touch $@

# Without the test extra (and its conftest) and without compiling what is never imported: half the time.
.venv-tensorflow/installed: pyproject.toml constraints.txt
	test -x .venv-tensorflow/bin/python || $(PYTHON) -m venv .venv-tensorflow
	grep -v ^h5py constraints.txt > .venv-tensorflow/constraints.txt # TensorFlow 2.21 wants an older one
	.venv-tensorflow/bin/pip install --disable-pip-version-check --no-compile -q -c .venv-tensorflow/constraints.txt -e '.[tensorflow]' pytest
	touch $@

.PHONY: help demo serve test test-tensorflow fuzz lint format clean
