# make demo   set up everything and run the quickstart notebook on a model on this machine
# make test   set up whatever is missing and run all tests
# make lab    open the quickstart in JupyterLab
# make bench  print the speed figures

PYTHON ?= python3
BIN := .venv/bin

# What has failed beside others, while browsers, kernels and servers wanted the same processors, is run once more alone; it must
# pass there, and both outcomes stand in the output.
ALONE := --last-failed --last-failed-no-failures none

.PHONY: demo lab test lint bench screenshots clean

demo: .venv/demo
	@$(BIN)/agentroute local pull smollm2
	@$(BIN)/python notebooks/run.py notebooks/01_quickstart.ipynb --to build

lab: .venv/lab
	@$(BIN)/agentroute local pull smollm2
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/01_quickstart.ipynb

test: .venv/test /usr/bin/chromium lint
	@$(BIN)/agentroute local pull smollm2
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -q -m "not model" || $(BIN)/python -m pytest -q -m "not model" $(ALONE)
	$(BIN)/python -m pytest -q -m model

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/test
	$(BIN)/python -m tests.benchmarks

screenshots: .venv/test /usr/bin/chromium
	$(BIN)/python -m tests.browser.screenshots

clean:
	rm -rf .venv build

# .venv/NAME is a mark that the extra NAME is installed as pyproject.toml now asks for it.
.venv/%: pyproject.toml | .venv/bin/python
	@echo "Installing agentroute with the packages for '$*' (a minute or two the first time) …"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[$*]'
	@touch $@

.venv/bin/python:
	@echo "Creating .venv …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agentroute needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv .venv

/usr/bin/chromium:
	@echo "Installing Chromium for the browser tests …"
	@apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-dejavu >/dev/null \
	  || { echo "Chromium is needed for the browser tests: sudo apt-get install chromium" >&2; exit 1; }
