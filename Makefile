# What a person can do here. Each target does its own set-up.
.PHONY: help setup test unit lint format asan fuzz bench demo lab-up lab-down vm-test clean
.DEFAULT_GOAL := help

help:      ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do printf '  %-10s %s\n' "$$name" "$$what"; done

setup:     ## install what is missing, make .venv, build the core
	@./scripts/setup

test:      ## run all tests (ARGS="-k maglev" goes to pytest)
	@./scripts/test $(ARGS)

unit: setup ## run the tests that need no root
	@.venv/bin/python -m pytest tests/unit tests/property $(ARGS)

lint: setup ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy -p l4lb -p l7 -p tests.support

format: setup ## format the sources, fix what ruff can fix
	.venv/bin/ruff check --fix-only --quiet .
	.venv/bin/ruff format .

asan:      ## unit and property tests on a core built with the sanitizers
	@./scripts/asan $(ARGS)

fuzz:      ## property tests with many examples on that core (FUZZ_EXAMPLES=20000)
	@./scripts/asan --hypothesis-profile=fuzz --timeout=7200 tests/property $(ARGS)

bench:     ## measure (NAME=… chooses; ./scripts/bench --list shows)
	@./scripts/bench $(or $(NAME),--list) $(ARGS)

demo:      ## the main job on real traffic, in a lab of network namespaces
	@./scripts/demo $(ARGS)

lab-up:    ## make the lab and leave it up
	@./scripts/lab up

lab-down:  ## remove the lab
	@./scripts/lab down

vm-test:   ## the tests in virtual machines, which are brought up for it
	@./scripts/vm-lab test $(ARGS)

clean:     ## remove what was built (not .venv)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find l4lb l7 tests -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +
