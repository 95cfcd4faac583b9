# make demo: simulate, merge, compare with the truth     make test: the tests     make lint     make bench
# Everything runs in .venv, made on first use.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN = .venv/bin
INSTALLED = .venv/.installed

.PHONY: demo test lint bench clean

demo: $(INSTALLED)
	$(BIN)/bayesref demo --out demo --overwrite

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/merge_simulated.py
	$(BIN)/python benchmarks/merge_pyp.py
	$(BIN)/python benchmarks/merge_scaling.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(INSTALLED)

clean:
	rm -rf .venv build demo *.egg-info
