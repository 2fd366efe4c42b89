# The same words that the README and CI use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint audit bench proto clean

demo: $(VENV)/.demo
	$(BIN)/tfserving-gateway demo

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -q tests/batching --cov=batching --cov-fail-under=100
	$(BIN)/python -m pytest --cov --cov-fail-under=90

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/.test
	.ci/audit $(BIN)/pip-audit

bench: $(VENV)/.bench
	$(BIN)/python -m bench

# Needs grpcio-tools; an older one makes code that more releases of protobuf can run.
proto: $(VENV)/.test
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. gateway/tfserving/tfserving.proto

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV); TensorFlow is large, so this takes a minute or two …"
	$(BIN)/python -m pip install --progress-bar on -e '.[embedded]'
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV); TensorFlow is large, so this takes a minute or two …"
	$(BIN)/python -m pip install --progress-bar on -e '.[embedded,test]'
	@touch $@

$(VENV)/.bench: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --progress-bar on -e '.[bench]'
	@touch $@
