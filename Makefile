# One command for each thing to do. The environment is .venv; it is built again when setup.cfg or
# the pinned versions change. pip is called plainly: your own pip settings hold.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= python3
TESTS ?=

venv := .venv
ready := $(venv)/ready
serverList := tests/integration/packages.txt
testServers = $(shell sed 's/\#.*//' $(wildcard $(serverList)) /dev/null)
unpackedList := tests/integration/unpacked.txt
unpackedServers = $(shell sed 's/\#.*//' $(wildcard $(unpackedList)) /dev/null)

# The suite waits more than it works: for servers to start, and for clocks. So it runs in two halves,
# side by side.
modules = $(subst /,.,$(basename $(shell find $(1) -name '$(2)' | sort)))
half2 = $(call modules,tests/integration,test_[m-z]*.py)
half1 = $(filter-out $(half2),$(call modules,tests,test_*.py))

benchPeers = $(shell sed 's/\#.*//' benchmarks/packages.txt)

.DEFAULT_GOAL := help
.PHONY: help run test half1 half2 servers lint types docs bench bench-quick clean

help:
	@echo 'make run      a demonstration: two small servers and the proxy, on loopback'
	@echo 'make test     the test servers and the whole test suite (TESTS=tests.test_cli: a part)'
	@echo 'make lint     ruff: rules and layout'
	@echo 'make types    mypy, strict'
	@echo 'make docs     the documentation as HTML, in build/docs'
	@echo 'make bench    what the proxy costs, beside other proxies (bench-quick: in two minutes)'
	@echo 'make clean    remove what the other targets made'

$(ready): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo '$(PYTHON) is too old: Python 3.11 or newer is needed'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/packages python3-venv
	$(PYTHON) -m venv $(venv)
	$(venv)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(ready)
	$(venv)/bin/twistd --nodaemon --pidfile= mailproxy --demo

servers:
	@.ci/packages $(testServers)
	@.ci/unpack $(unpackedServers)

test: $(ready)
	@.ci/packages $(testServers) && .ci/unpack $(unpackedServers) || \
		echo 'Going on without: the tests that need them are skipped.'
	$(if $(TESTS),$(venv)/bin/python -m twisted.trial $(TESTS),\
		@$(MAKE) --no-print-directory --jobs=2 --keep-going half1 half2)

half1 half2: $(ready)
	@$(venv)/bin/python -m twisted.trial --temp-directory=_trial_temp.$@ $($@) 2>&1 | \
		sed --unbuffered 's/^/$@ | /'

lint: $(ready)
	$(venv)/bin/ruff check .
	$(venv)/bin/ruff format --check .

types: $(ready)
	$(venv)/bin/mypy -p mailproxy -p tests -p benchmarks

docs: $(ready)
	$(venv)/bin/python docs/build.py build/docs

bench bench-quick: $(ready) servers
	@.ci/packages $(benchPeers) || echo 'Going on without: those proxies are left out.'
	@mkdir -p build
	$(venv)/bin/python -m benchmarks --json build/$@.json --chart build/$@.svg \
		$(if $(filter %-quick,$@),--quick)

clean:
	rm -rf $(venv) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
	rm -f twisted/plugins/dropin.cache twistd.pid
	find mailproxy tests twisted -name __pycache__ -type d -prune -exec rm -rf {} +
