# Every target prepares what it needs by itself. PYTHON=… chooses the interpreter (3.11 or later) and
# ARGS=… goes to the tool: make test ARGS='tests/planning -k backfill -n 2'

SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test run lab lab-slurm lab-slurm-down lab-htcondor lab-htcondor-down lab-openstack lab-openstack-down guest-openstack bench soak deb screenshots lint audit format types docs clean setup setup-demo

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: setup-demo ## see a notebook, and a container, go from question to result on this machine
	@tools/demo $(ARGS)

test: setup ## run the tests; EBHPC_LAB=required makes a missing part of the lab a failure
	@$(BIN)/python -m tests.lab || [ "$$EBHPC_LAB" != required ]
	$(BIN)/python -m pytest $(ARGS)

run: setup-demo ## start a broker for this machine on loopback: API and driver together
	$(BIN)/ebhpc serve $(ARGS)

lab: setup ## prepare what the tests run against, in EBHPC_LAB_CACHE (~/.cache/ebhpc-lab)
	$(BIN)/python -m tests.lab $(ARGS)

lab-slurm: setup ## start Slurm 26.05 and 24.11 on this machine and leave them running
	@$(BIN)/python -m tests.lab.slurm up $(ARGS)

lab-slurm-down: ## take away what lab-slurm started
	@$(BIN)/python -m tests.lab.slurm down

lab-htcondor: setup ## start an HTCondor pool on this machine and leave it running
	@$(BIN)/python -m tests.lab.htcondor up $(ARGS)

lab-htcondor-down: ## take away what lab-htcondor started
	@$(BIN)/python -m tests.lab.htcondor down

lab-openstack: setup ## start a small OpenStack on this machine and leave it running
	@$(BIN)/python -m tests.lab.openstack up $(ARGS)

lab-openstack-down: ## take away what lab-openstack started
	@$(BIN)/python -m tests.lab.openstack down

guest-openstack: setup ## boot a real guest with the OpenStack plugin's user data, under software emulation
	@$(BIN)/python -m tests.lab.openstack.guest $(ARGS)

bench: setup ## measure throughput, latency, memory and start-up
	$(BIN)/python -m bench $(ARGS)

soak: setup ## ten minutes of users, accepts, cancels and killed processes on PostgreSQL; ARGS=--minutes=2
	$(BIN)/python -m bench.soak $(ARGS)

deb: ## build a Debian package of ebhpc and its plugins into build/, for this machine's Debian
	python3 packaging/debian/build.py $(ARGS)

screenshots: setup ## take pictures of the page for the documentation
	@tools/screenshots $(ARGS)

lint: setup ## check style, formatting, the direction of imports and weak patterns
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --recursive --severity-level medium ebhpc plugins/*/ebhpc_*
	$(BIN)/python -m pip check

audit: setup ## ask the advisories about the packages that are installed; needs their database
	@$(BIN)/python -m pip install --quiet --editable '.[audit]'
	$(BIN)/pip-audit --skip-editable --strict --progress-spinner off

format: setup ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

types: setup ## check the types
	$(BIN)/mypy $(ARGS)

docs: setup ## build the documentation into build/docs; a warning is a failure
	$(BIN)/sphinx-build -W --keep-going -q -j auto -d build/doctrees docs build/docs
	@echo "documentation: build/docs/index.html"

clean: ## remove what was built, the virtual environment too; the lab's cache stays
	rm -rf .venv .bootstrap.lock build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis schemathesis-report
	find ebhpc tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

setup:
	@tools/bootstrap dev

setup-demo:
	@tools/bootstrap demo
