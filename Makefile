# Every target works in a fresh clone on Debian with git, make and python3. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help demo test formats-test toolchain-test azure-test check fix bench bench-forge golden-convert soak servers image \
	image-test deb deb-test sim clean
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt scripts/install
	@scripts/install --venv $(VENV) --python $(PYTHON)
	@touch $@

demo: $(VENV)/.installed  ## The whole line on loopback: forge, five devices, a rollback, an attacker (ARGS=--exit to stop at the end)
	@scripts/install --apt-only demo
	@$(BIN)/python -m demo $(ARGS)

test: $(VENV)/.installed  ## All tests (services are installed from Debian and run on loopback)
	@scripts/install --apt-only test
	@scripts/install --npm $(VENV)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not e2e and not formats" $(ARGS)
	@$(BIN)/python -m pytest -m e2e $(ARGS)

formats-test: $(VENV)/.installed  ## Install the tools for ONNX, LiteRT and OpenVINO (4 GB), make the kiosk in each and run it
	@scripts/install --apt-only demo
	@$(BIN)/drupelet forge toolchain build onnx litert openvino
	@$(BIN)/python -m pytest tests/forge/test_formats.py tests/forge/test_formats_release.py $(ARGS)

toolchain-test: $(VENV)/.installed  ## Compile llama.cpp's tools, or take them from the cache, and test with them
	@scripts/install --apt-only toolchain
	@$(BIN)/drupelet forge toolchain build llama.cpp
	@DRUPELET_TOOLCHAIN_TESTS=1 $(BIN)/python -m pytest -k "toolchain" tests/forge $(ARGS)

check: $(VENV)/.installed  ## Format, lint, types, layers, tidiness, docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy demo
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/tidy

fix: $(VENV)/.installed  ## Mend what a tool can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.installed  ## Measure, with targets beside results
	@$(BIN)/python -m benchmarks $(ARGS)

azure-test: $(VENV)/.installed  ## Depots in Azure's blob service, against Microsoft's emulator (needs npm)
	@npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3.37.0
	@AZURITE_BLOB=$(CURDIR)/$(VENV)/azurite/node_modules/.bin/azurite-blob $(BIN)/python -m pytest -q tests/depot -k azure $(ARGS)

golden-convert: $(VENV)/.installed  ## Remake what converted models are compared with (needs the toolchain; when a tiny model changes)
	@$(BIN)/python scripts/golden_convert.py $(ARGS)

soak: $(VENV)/.installed  ## Fuzz the readers of foreign model files, ten minutes each
	@$(BIN)/python -m tests.forge.fuzz_gguf --seconds 600
	@$(BIN)/python -m tests.forge.fuzz_tokenizer --seconds 600

bench-forge: $(VENV)/.installed  ## The forge at full size against llama.cpp's own tools; needs `make toolchain-test` once
	@$(BIN)/python -m benchmarks forge faults publish

servers: $(VENV)/.installed  ## The runtime's llama-server for arm64 and amd64, from the cache or compiled
	@scripts/install --apt-only image
	@scripts/emulate
	@$(BIN)/drupelet forge toolchain build llama-server-arm64 llama-server-amd64

image: servers  ## The runtime's multi-arch image, in build/image
	@$(BIN)/drupelet forge image --out build/image $(ARGS)

image-test: servers  ## Build the image twice, push, pull by digest, verify, run both platforms and ask each a question
	@DRUPELET_IMAGE_TESTS=1 $(BIN)/python -m pytest -s --durations=5 tests/runtime/test_image.py $(ARGS)

deb: servers  ## Debian packages of the runtime, in build/deb
	@$(BIN)/drupelet forge deb --out build/deb $(ARGS)

deb-test: servers  ## Install, ask, upgrade and purge the packages in fresh systems
	@DRUPELET_IMAGE_TESTS=1 $(BIN)/python -m pytest -s --durations=5 tests/runtime/test_deb.py $(ARGS)

sim: $(VENV)/.installed  ## Simulate a fleet: make sim SEED=7
	@$(BIN)/drupelet sim run --seed $(or $(SEED),1) $(ARGS)

clean:  ## Remove what these targets made
	rm -rf $(VENV) build dist out
