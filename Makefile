# `make say` speaks, `make test` checks everything. Each makes what it needs in .venv; a second run is quick.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -q install -c constraints.txt
# Not pyproject.toml: it holds no requirement, and every nbdev-export writes it anew
SETUP = settings.ini setup.py constraints.txt

TEXT ?= Good morning. This voice was made by a very small model.
REFERENCE ?=
ROOT ?= data
CODEC ?= encodec_24khz
WORKERS ?= 2
ROOM = $(shell echo "$(NB)" | sed 's/^[0-9]*_//')

# What to say goes to the shell by the environment, as it was typed: quotes, dollars and semicolons are only text there
export HARMONICA_TEXT := $(value TEXT)
export HARMONICA_REFERENCE := $(value REFERENCE)
unexport TEXT REFERENCE

.PHONY: help say test check notebooks-twice smoke-test format lint audit readme docs download-ljspeech download-vctk preprocess-ljspeech clean
.DELETE_ON_ERROR:

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "make %-21s%s\n", $$1, $$2}'

say: $(VENV)/installed ## Write output.wav: make say TEXT="What you like." REFERENCE=me.wav
	@$(BIN)/harmonica-synthesize "--text=$$HARMONICA_TEXT" $${HARMONICA_REFERENCE:+"--reference=$$HARMONICA_REFERENCE"} --output output.wav

test: $(VENV)/installed-dev ## Run every notebook, then every test
	@failed=0; export MPLBACKEND=agg OMP_NUM_THREADS=1; \
	$(BIN)/nbdev-test --n-workers $(WORKERS) || failed=1; \
	$(BIN)/python -m pytest || failed=1; \
	exit $$failed

check: $(if $(wildcard nbs/$(NB).ipynb),$(VENV)/installed-dev) ## After a change: make check NB=10_text exports, runs that notebook, its tests and the rules of the house
	@[ -f "nbs/$(NB).ipynb" ] || { echo "no notebook nbs/$(NB).ipynb: say which, as in make check NB=10_text"; exit 2; }
	$(BIN)/nbdev-export && $(BIN)/nbdev-clean && $(BIN)/python tests/readme.py && $(BIN)/python tests/stub.py
	MPLBACKEND=agg OMP_NUM_THREADS=1 $(BIN)/nbdev-test nbs/$(NB).ipynb
	$(BIN)/python -m pytest tests/test_house.py tests/test_rooms.py $(wildcard tests/test_$(ROOM)*.py)

notebooks-twice: $(VENV)/installed-dev ## Run every notebook twice: are the outputs the same, and how long does it take?
	$(BIN)/python tests/twice.py --workers $(WORKERS)

smoke-test: $(VENV)/installed ## Import every module, ask every command for help
	@for m in harmonica/[a-z]*.py; do m=$${m#harmonica/}; $(BIN)/python -c "import harmonica.$${m%.py}" || exit 1; done
	@for c in download preprocess flatten train synthesize evaluate compare doctor detect page serve; do $(BIN)/harmonica-$$c --help > /dev/null || exit 1; done
	@$(BIN)/python -c "import harmonica; print('harmonica', harmonica.__version__, 'imports and answers')"

format: $(VENV)/installed-dev ## Export and clean the notebooks, build README.md and the type stubs, tidy the tests
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/python tests/readme.py
	$(BIN)/python tests/stub.py
	$(BIN)/ruff check --fix tests

lint: $(VENV)/installed-dev ## Look for mistakes without running anything
	$(BIN)/ruff check harmonica tests setup.py
	$(BIN)/ruff check --select E501,E702,Q000 nbs tests benchmarks examples
	$(BIN)/ruff check --select F401,F821 nbs

audit: $(VENV)/installed-dev ## Known holes in what constraints.txt pins (needs the network), and every package's licence
	$(BIN)/python -m pip --disable-pip-version-check -q install pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints.txt
	$(BIN)/python benchmarks/trust.py licences --out $${TMPDIR:-/tmp}/trust.json

readme: $(VENV)/installed-dev ## Build README.md from nbs/index.ipynb
	$(BIN)/python tests/readme.py

docs: $(VENV)/installed-dev ## Build _docs: with Quarto the site, without it a plain preview
	@if command -v quarto > /dev/null; then PYTHONPATH=tests $(BIN)/nbdev-docs; else $(BIN)/python tests/preview.py; fi

download-ljspeech: $(VENV)/installed ## Fetch LJSpeech (2.6 GB) into ROOT=data
	$(BIN)/harmonica-download ljspeech --root "$(ROOT)"

download-vctk: $(VENV)/installed ## Fetch VCTK (11 GB) into ROOT=data
	$(BIN)/harmonica-download vctk --root "$(ROOT)"

preprocess-ljspeech: $(VENV)/installed $(if $(filter encodec%,$(CODEC)),$(VENV)/installed-encodec) ## Turn LJSpeech into codes of CODEC=encodec_24khz (or micro)
	$(BIN)/harmonica-preprocess --dataset ljspeech --root "$(ROOT)" --codec "$(CODEC)" --out "$(ROOT)/ljspeech-codes"

clean: ## Remove what was made here: environments, caches, output.wav (never data or runs)
	rm -rf $(VENV) _docs _proc build dist *.egg-info .pytest_cache .ruff_cache .hypothesis output.wav
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3,11) or sys.exit("Harmonica needs Python 3.11 or later, this is %d.%d: name one, as in make say PYTHON=python3.11" % v[:2])'
	@echo "Installing into $(VENV): some minutes the first time"
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SETUP) | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(SETUP) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-encodec: $(SETUP) | $(BIN)/python
	$(PIP) -e '.[encodec]'
	@touch $@ $(VENV)/installed
