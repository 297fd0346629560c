# The two commands: `make demo` runs a whole real release on this machine, `make test` runs every test.
# Both set up what they need in .venv first; nothing is installed anywhere else.
PYTHON ?= python3
BIN := .venv/bin
# uv finds and caches packages like pip, several times faster. Hashes are checked in every install below.
UV := $(BIN)/uv --no-config --quiet

.PHONY: demo demo-llm test test-gpu system-packages install install-dev lint format docs bench protos requirements clean

demo: install
	@$(BIN)/graylift demo

# A real language model in place of an ONNX one; its runtime is among the extras.
demo-llm: install-dev
	@$(BIN)/graylift demo llm

test: install-dev system-packages
	$(BIN)/pytest -n 2 --dist loadgroup

# On a machine with an NVIDIA GPU: what `make test` skips elsewhere.
test-gpu: install-dev
	$(BIN)/pytest -m gpu -n 0 tests/engine

# Real programs that tests drive. Without root or apt nothing is installed, and tests that miss theirs skip and say so.
system-packages:
	@for program in chromium prometheus; do \
	  command -v $$program >/dev/null && continue; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $$program for the tests"; \
	    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $$program; } \
	      >/dev/null 2>&1 || echo "could not install $$program: tests that need it are skipped"; \
	  else echo "$$program is not installed: tests that need it are skipped"; fi; \
	done

install: .venv/.installed

install-dev: .venv/.installed-dev

.venv/.uv: requirements/tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Graylift needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	@touch $@

.venv/.installed: .venv/.uv requirements/runtime.txt pyproject.toml
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements/runtime.txt
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.venv/.installed-dev: .venv/.installed requirements/dev.txt
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

lint: install-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/lint-imports
	$(BIN)/pyright

format: install-dev
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

docs: .venv/.installed
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements/docs.txt
	$(BIN)/mkdocs build --strict --quiet
	@echo "the site is in site/index.html"

bench: install-dev
	$(BIN)/python benchmarks/gateway.py
	$(BIN)/python benchmarks/agent.py
	$(BIN)/python benchmarks/rollback.py
	$(BIN)/python benchmarks/judge/cost.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/llm_gateway.py
	$(BIN)/python benchmarks/shadow.py
	$(BIN)/python benchmarks/limits.py
	$(BIN)/python benchmarks/server.py

# The gRPC messages, made anew of their .proto files.
protos: install-dev
	$(BIN)/python -m grpc_tools.protoc -I src --python_out=src --pyi_out=src src/graylift/protos/*.proto

# Everything optional but PyTorch, which would bring gigabytes for a GPU that tests do not have.
EXTRAS := $(foreach extra,openvino tensorrt-rtx onnxruntime-openvino llm grpc valkey otel gpu parquet,--extra $(extra))

# Pins everything anew, with hashes and without the name of any index.
requirements: .venv/.uv
	$(UV) pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/tools.in -o requirements/tools.txt
	$(UV) pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements/runtime.txt
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/runtime.txt pyproject.toml $(EXTRAS) --group dev -o requirements/dev.txt
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/runtime.txt --group docs -o requirements/docs.txt

clean:
	rm -rf .venv .graylift site dist
