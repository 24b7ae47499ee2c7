# Two commands do everything on a fresh machine (Python 3.11+, git, make): `make demo` and `make test`.
# On a machine with NVIDIA GPUs: `make demo ENV=cuda`.

# The environment that is already installed, otherwise the one for CPUs.
ENV ?= $(if $(wildcard .venv/cuda.ready),cuda,cpu)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" --overrides envs/overrides.txt

export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_OFFLINE ?= 1
export PYTHONUNBUFFERED ?= 1

.PHONY: demo install test extended test-all quick lint lint-style lint-types lint-workflow docs format explain chaos bench schemas slurm language lock clean

demo: announce $(VENV)/$(ENV).ready
	@touch $(VENV)/demo.started
	@snakemake --cores all --quiet rules host $(if $(filter cuda,$(ENV)),--resources gpu=1) || { echo "The demo failed, see the lines above. Run make demo again to continue from there."; exit 1; }
	@# Snakemake prints the result of a run, but nothing if there was nothing to do
	@test results/result.txt -nt $(VENV)/demo.started || { cat results/result.txt; echo "Report: results/report.html"; }

install: $(VENV)/$(ENV).ready

# For two cores: three processes, since SLURM tests mostly wait, with one thread each, since
# oversubscribed cores make the tiny models many times slower.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest -n 3 --no-loadscope-reorder --durations 20

# All linters, and all tests except the extended ones.
test: $(VENV)/dev.ready lint
	@$(PYTEST) -m "not extended"

# Random kills, full chains of all model families, rehearsals of the papers. `make extended DEADLINE=600` starts no
# new test after ten minutes.
extended: $(VENV)/dev.ready
	@$(PYTEST) -m extended $(if $(DEADLINE),--deadline $(DEADLINE))

test-all: test extended

# All linters, and the tests that start neither vLLM nor Snakemake nor a training run.
quick: $(VENV)/dev.ready lint
	@pytest -m "not slow"

# The same work with the code of an earlier commit and with this checkout, at small sizes.
bench: $(VENV)/dev.ready
	@for script in scoring training_data evaluation importing dry_run merging; do \
		echo "$$script.py"; python benchmarks/$$script.py --quick || exit 1; done

lint: $(VENV)/dev.ready
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint-types lint-style lint-workflow docs

lint-style: $(VENV)/dev.ready
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile workflow
	@lint-imports

lint-types: $(VENV)/dev.ready
	@mypy

lint-workflow: $(VENV)/dev.ready
	@python tests/lint_workflow.py

# The documentation site. Broken links between pages are errors; links to other sites are not followed.
docs: $(VENV)/docs.ready
	@sphinx-build --fail-on-warning --keep-going --quiet --conf-dir docs --doctree-dir docs/_build/doctrees . docs/_build/html
	@echo "Documentation: docs/_build/html/docs/index.html"

format: $(VENV)/dev.ready
	@ruff check --fix .
	@ruff format .
	@snakefmt Snakefile workflow

# Traces a number back to images, weights and versions: make explain NUMBER="--policy perpo --metric mean_iou".
# Of a run with `--directory`: make explain NUMBER="runs/mine --policy perpo".
explain: $(VENV)/$(ENV).ready
	@python -m perceptune explain $(NUMBER)

# Kills the demo at 50 random moments and compares its results with an uninterrupted run (about 20 minutes).
chaos: $(VENV)/dev.ready
	@python -m tests.workflow.chaos --kills 50

# Regenerates the JSON schema of the config and the tables in config/README.md.
schemas: $(VENV)/$(ENV).ready
	@python -m perceptune schema

# Additional packages for SLURM clusters (docs/cluster.md).
slurm: $(VENV)/$(ENV).ready
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes --compile-bytecode -r envs/slurm.txt

# Additional packages to score AMBER's generative task (docs/benchmarks.md).
language: $(VENV)/$(ENV).ready
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes --compile-bytecode -r envs/language.txt

# Updates every lock file from its .in file.
lock: $(VENV)/$(ENV).ready
	@$(LOCK) --upgrade envs/bootstrap.in --output-file envs/bootstrap.txt
	@$(LOCK) --upgrade envs/cpu.in --output-file envs/cpu.txt
	@$(LOCK) --upgrade envs/cuda.in --output-file envs/cuda.txt
	@$(LOCK) --upgrade envs/dev.in --constraints envs/cpu.txt --output-file envs/dev.txt
	@$(LOCK) --upgrade envs/docs.in --constraints envs/cpu.txt --output-file envs/docs.txt
	@$(LOCK) --upgrade --no-deps envs/slurm.in --output-file envs/slurm.txt
	@$(LOCK) --upgrade envs/language.in --constraints envs/cpu.txt --output-file envs/language.txt

# Removes the environment and keeps the results.
clean:
	rm -rf $(VENV)

$(VENV)/uv.ready: envs/bootstrap.txt
	@command -v $(PYTHON) > /dev/null || { echo "error: $(PYTHON) not found, expected Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "error: $$($(PYTHON) --version) found, expected 3.11 or newer (make PYTHON=...)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/bootstrap.txt
	@touch $@

# What `make demo` says before the installation.
.PHONY: announce
announce:
	@test -e results/result.txt || echo "The demo takes about 7 minutes on two CPU cores, including the installation, and longer if packages must be downloaded."

# The lock files are complete, so dependencies are not resolved again.
$(VENV)/$(ENV).ready: $(VENV)/uv.ready envs/$(ENV).txt pyproject.toml
	@echo "Installing $(VENV) from envs/$(ENV).txt (the first time, several GB to download and some minutes; 7 GB on disk, 9 GB with CUDA)"
	@# uv shows its progress on a terminal only
	@$(BIN)/uv pip install --python $(BIN)/python $$(test -t 2 || echo --quiet) --no-deps --require-hashes --compile-bytecode -r envs/$(ENV).txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/docs.ready: $(VENV)/$(ENV).ready envs/docs.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes --compile-bytecode -r envs/docs.txt
	@touch $@

$(VENV)/dev.ready: $(VENV)/docs.ready envs/dev.txt envs/language.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes --compile-bytecode -r envs/dev.txt -r envs/language.txt
	@touch $@
