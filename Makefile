# Each command makes the environment it needs; PYTHON names the interpreter it is made from.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test lint docs notebooks clean
.PHONY: tradeoff-3000-steps priors-10000-steps mixtures-10000-steps guides-40000-steps systems

demo: .venv/ready
	$(BIN)/dpvae demo

# A process for each core, each with one thread; a file's tests stay together, with what they share.
# Compiled files are kept, whatever the environment says: a hundred processes import the library.
test: .venv/ready
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Pages of files: site/index.html.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Runs the notebooks and stores their outputs.
notebooks: .venv/ready
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

# Studies over grids of runs on data sets from DPVAE_DATA. An interrupted one continues.
tradeoff-3000-steps: .venv/ready
	@echo "174 runs, about four processor hours"
	for weight in beta gamma lambda; do for data in mnist dsprites; do \
	    $(BIN)/python -m papers.dpvae.tradeoff --weight $$weight --data $$data --out runs/tradeoff-$$weight-$$data; \
	done; done

priors-10000-steps: .venv/ready
	@echo "24 runs, about 100 processor minutes"
	$(BIN)/python -m papers.priors --out runs/priors

mixtures-10000-steps: .venv/ready
	@echo "9 runs, about 15 processor minutes"
	$(BIN)/python -m papers.posteriors.mixtures --out runs/mixtures

guides-40000-steps: .venv/ready
	@echo "36 to 42 runs for each data set and likelihood, about two processor hours each"
	for data in mnist svhn; do for likelihood in gaussian bernoulli; do \
	    $(BIN)/python -m papers.posteriors.guides --data $$data --likelihood $$likelihood --out runs/guides-$$data-$$likelihood; \
	done; done

systems: .venv/ready
	@echo "159 runs in five tables, many processor hours"
	for table in decoupled ladders clusters lossy mae; do \
	    $(BIN)/python -m papers.systems --table $$table --out runs/systems-$$table; \
	done

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build site *.egg-info
