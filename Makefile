# `make demo` and `make test` do all the set-up; both are quick when nothing changed since the last time.

VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
PLUGINS = $(sort $(wildcard plugins/ffplug-*))
SOURCES = pyproject.toml $(PLUGINS:%=%/pyproject.toml) $(wildcard requirements/*.txt)

.PHONY: help install install-test demo test docs lint clean

help:  ## show what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

install: $(VENV)/.installed  ## virtual environment, core and every plugin editable (VENV=path, PYTHON=python3.12)

$(VENV)/.installed: $(SOURCES)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c requirements/constraints.txt -e ".[textures]" $(PLUGINS:%=-e ./%)
	touch $@

install-test: install $(VENV)/.installed-test

$(VENV)/.installed-test: $(VENV)/.installed requirements/test.txt
	$(PIP) install --quiet -c requirements/constraints.txt -r requirements/test.txt
	touch $@

demo: install  ## train SAMFlow on Sintel (or a procedural stand-in), and say where the report lies
	$(VENV)/bin/python tools/train.py configs/samflow_sintel.py --work-dir work_dirs/samflow_sintel

test: install-test  ## all tests of the core and the plugins
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile

docs: install $(VENV)/.installed-docs  ## the documentation's site in build/site, every link and name in it checked
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	$(VENV)/bin/python docs/_site/check.py build/site

$(VENV)/.installed-docs: $(VENV)/.installed requirements/docs.txt
	$(PIP) install --quiet -c requirements/constraints.txt -r requirements/docs.txt
	touch $@

lint: install-test  ## ruff's checks and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:  ## remove the virtual environment and caches (not data, weights or work_dirs)
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
