# Tieline's build. `make help` lists the targets.
# Needs: cargo, a C++ compiler, make. cmake and libclang are fetched where they lack (scripts/toolchain.sh).

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tieline
# The C++ builds lie outside the tree: every clone on this machine shares them.
RUNNER_TARGET ?= $(CACHE)/build/runner-native
PORTABLE_TARGET ?= $(CACHE)/build/runner-portable
TARGET := $(or $(CARGO_TARGET_DIR),target)
DIST ?= dist
PREFIX ?= $(HOME)/.local
DESTDIR ?=
ARM := aarch64-unknown-linux-gnu
VERSUS_ARGS ?=
PROVE_ARGS ?=

# The build script of llama-cpp-sys-2 turns GGML_NATIVE off, whatever the environment says,
# unless rustc itself is told target-cpu=native.
NATIVE := RUSTFLAGS="-C target-cpu=native"
# Not `eval "$$(…)"`: that would hide a failure of the script.
TOOLCHAIN := tools=$$(scripts/toolchain.sh) && eval "$$tools"
RUNNER_CARGO := --release -p tieline-runner --target-dir "$(RUNNER_TARGET)"
# Puts the runner that lies under a folder beside the program, by a name. What runs now keeps its own file.
PUT = for profile in release debug; do \
		mkdir -p "$(TARGET)/$$profile" && \
		cp "$(1)/release/tieline-runner" "$(TARGET)/$$profile/$(2).new" && \
		mv -f "$(TARGET)/$$profile/$(2).new" "$(TARGET)/$$profile/$(2)" || exit 1; \
	done
GPU ?=
test-vulkan: GPU := vulkan
GPU_TARGET = $(CACHE)/build/runner-$(GPU)
GPU_CARGO = --release -p tieline-runner --no-default-features --features $(GPU) --target-dir "$(GPU_TARGET)"

.PHONY: help demo build install uninstall runner runner-gpu test-vulkan portable test netless openapi prove clients agents packaging load lm-eval overhead lint fmt docs layout layout-check fuzz versus versus-engine versus-kernels prove-engine versus-switch sanitize test-arm check-targets

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## build, pull a small model, ask it one question
	@scripts/demo.sh

build: runner ## the program and the runner, for this machine
	cargo build --release -p tieline

install: build ## put them into PREFIX (~/.local), with completions and the manual page; `make uninstall` takes them away
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/install.sh "$(TARGET)/release"

uninstall:
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/install.sh --remove

runner: ## the C++ runner for this machine's processor
	@$(TOOLCHAIN) && set -x && $(NATIVE) cargo build $(RUNNER_CARGO)
	@$(call PUT,$(RUNNER_TARGET),tieline-runner)

runner-gpu: ## a runner for a kind of GPU, beside the other: GPU=cuda, rocm, vulkan or metal
	@case "$(GPU)" in cuda|rocm|vulkan|metal) ;; *) echo "hint: make runner-gpu GPU=vulkan (or cuda, rocm, metal)" >&2; exit 1;; esac
	@$(TOOLCHAIN) && set -x && $(NATIVE) cargo build $(GPU_CARGO)
	@$(call PUT,$(GPU_TARGET),tieline-runner-$(GPU))

test-vulkan: ## the runner's tests of a GPU, on Mesa's llvmpipe where there is none: see docs/gpu.md for what it needs
	@$(TOOLCHAIN) && set -x && $(NATIVE) GGML_VK_VISIBLE_DEVICES="$(or $(GGML_VK_VISIBLE_DEVICES),0)" \
		cargo test $(GPU_CARGO) --features attacks --test it -- gpu:: calls::

portable: ## dist/: a runner with kernels for every processor, chosen at run time
	@$(TOOLCHAIN) && PORTABLE_TARGET="$(PORTABLE_TARGET)" DIST="$(DIST)" scripts/portable.sh

lint: ## format, lints, shape of the tree, licences
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo xtask tidy
	cargo xtask licences

test: lint runner ## everything that must pass before a merge
	@$(TOOLCHAIN) && set -x && $(NATIVE) cargo clippy $(RUNNER_CARGO) --all-targets -- -D warnings
	@if cargo nextest --version >/dev/null 2>&1; then run='nextest run'; else run='test --lib --bins --tests'; fi; \
	set -x; TIELINE_RUNNER="$(abspath $(TARGET))/release/tieline-runner" cargo $$run
	cargo test --doc
	python3 -m unittest discover -s bench/versus
	@# The runner that attacks first: what lies in the folder at the end is the one without.
	@$(TOOLCHAIN) && set -x && $(NATIVE) cargo test $(RUNNER_CARGO) --features attacks --test it -- attacks:: calls:: seal:: jail::
	@$(TOOLCHAIN) && set -x && $(NATIVE) cargo test $(RUNNER_CARGO)
	@if [ -f fuzz/Cargo.toml ]; then set -x; cargo check --manifest-path fuzz/Cargo.toml; fi

netless: runner ## every test of the program where no network is but this machine itself (Linux, as root)
	cargo test --no-run
	TIELINE_RUNNER="$(abspath $(TARGET))/release/tieline-runner" unshare --net --mount \
		sh -c 'ip link set lo up && exec cargo test --offline --no-fail-fast --lib --bins --tests'

openapi: ## every route asked what its description says and more, by schemathesis: minutes
	@scripts/check_openapi.py

prove: ## what `make test` leaves out, one after the other: root, a network, and most of an hour
	@for target in layout-check netless openapi clients load prove-engine; do $(MAKE) --no-print-directory $$target || exit 1; done

clients: ## real clients against scripted models; writes docs/conformance.md
	@scripts/clients.py

lm-eval: build ## lm-evaluation-harness against the server, compared with the engine: needs a pulled smollm2
	scripts/lm_eval_check.py --tieline "$(TARGET)/release/tieline"

overhead: ## what the server itself costs, with wrk; see bench/RESULTS.md
	bench/serve/run.sh

agents: ## real agents, a turn each; writes docs/conformance-agents.md
	@scripts/clients.py --agents

packaging: build ## the systemd unit and the image's steps, checked where they can be: systemd, debootstrap, root
	@rm -rf "$(TARGET)/image" && mkdir -p "$(TARGET)/image" && \
		cp "$(TARGET)/release/tieline" "$(TARGET)/release/tieline-runner" "$(TARGET)/image/"
	@scripts/packaging.py --tieline "$(TARGET)/release/tieline" --bin "$(TARGET)/image"

load: ## idle, slow, rude and far too many clients against the server; prints JSON (Linux)
	cargo build --release -p tieline
	@bench/load/run.py --tieline "$(TARGET)/release/tieline"

layout: ## list anew which code the program uses, for the linker: valgrind
	cargo build --release -p tieline
	@scripts/code_layout.py "$(TARGET)/release/tieline"

layout-check: ## whether that list is still true
	cargo build --release -p tieline
	@scripts/code_layout.py --check "$(TARGET)/release/tieline"

fmt: ## format the code
	cargo fmt --all

docs: ## regenerate the generated documents
	@scripts/docs.sh

fuzz: ## each fuzz target for 30 seconds
	@if ! cargo fuzz --version >/dev/null 2>&1; then \
		echo 'hint: cargo install cargo-fuzz --locked && rustup toolchain install nightly' >&2; exit 1; fi
	@for target in $$(cargo fuzz list); do \
		ASAN_OPTIONS=detect_odr_violation=0 cargo +nightly fuzz run "$$target" -- -max_total_time=30 || exit 1; done

sanitize: ## the kernels' tests under the address sanitizer (nightly Rust)
	@if ! rustc +nightly --version >/dev/null 2>&1; then \
		echo 'hint: the address sanitizer needs a nightly compiler: rustup toolchain install nightly' >&2; exit 1; fi
	@host=$$(rustc +nightly -vV | sed -n 's/^host: //p') && set -x && RUSTFLAGS=-Zsanitizer=address \
		cargo +nightly test -p tieline-kernels --lib --target "$$host" --target-dir "$(TARGET)/sanitize"

test-arm: ## the kernels' tests for ARM under emulation, on a processor of each level: rustup, a cross linker, qemu
	@rustup target list --installed 2>/dev/null | grep -qx $(ARM) || { \
		echo 'hint: rustup target add $(ARM)' >&2; exit 1; }
	@for tool in aarch64-linux-gnu-gcc qemu-aarch64; do command -v $$tool >/dev/null || { \
		echo "hint: $$tool is not there: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2; exit 1; }; done
	@# Optimised, since that is what is emulated fastest; what only debugging asserts stays.
	@for level in max:NEON-I8MM neoverse-n1:NEON-DOTPROD cortex-a72:portable; do set -x; \
		TIELINE_EXPECT_LEVEL=$${level#*:} RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_TEST_OPT_LEVEL=3 \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $${level%:*}" \
		cargo test -p tieline-kernels --lib --target $(ARM) --target-dir "$(TARGET)/arm" || exit 1; set +x; done

check-targets: ## type-checks for Windows and macOS, on which nobody has run it; says what it needs
	@RUNNER_TARGET="$(RUNNER_TARGET)" scripts/check_targets.sh

versus: build ## measure against bare llama.cpp on this machine; see bench/RESULTS.md
	@$(TOOLCHAIN) && python3 bench/versus/run.py --tieline "$(TARGET)/release/tieline" $(VERSUS_ARGS)

versus-switch: build ## measure changing models against llama-server's router: MODEL, SECOND=file.gguf where not the test models
	@$(TOOLCHAIN) && python3 bench/versus/switch.py --tieline "$(TARGET)/release/tieline" \
		--runner "$(TARGET)/release/tieline-runner" --models \
		"$(or $(MODEL),$$(python3 scripts/fetch_test_model.py))" "$(or $(SECOND),$$(python3 scripts/fetch_test_model.py gemma3))" $(VERSUS_ARGS)

versus-engine: build ## measure the engine against llama-server, case by case: MODEL=file.gguf
	cargo build --release -p tieline-lab --example drive
	@$(TOOLCHAIN) && python3 bench/versus/engine.py --tieline-driver "$(TARGET)/release/examples/drive" \
		--runner "$(TARGET)/release/tieline-runner" \
		--model "$(or $(MODEL),$$(python3 scripts/fetch_test_model.py))" $(VERSUS_ARGS)

versus-kernels: build ## measure whole models of each format against llama-bench; writes 6 GB of models
	cargo build --release -p tieline-lab --example drive
	@$(TOOLCHAIN) && python3 bench/versus/kernels.py --tieline-driver "$(TARGET)/release/examples/drive" \
		--runner "$(TARGET)/release/tieline-runner" --smollm2 "$$(python3 scripts/fetch_test_model.py)" \
		--gemma3 "$$(python3 scripts/fetch_test_model.py gemma3)" $(VERSUS_ARGS)

prove-engine: runner ## what proves the jail and the engine, at full count; writes dist/prove-engine.json, or PROVE_OUT
	@$(TOOLCHAIN) && scripts/prove_engine.py --runner "$(abspath $(TARGET))/release/tieline-runner" \
		--runner-target "$(RUNNER_TARGET)" --out "$(or $(PROVE_OUT),$(DIST)/prove-engine.json)" $(PROVE_ARGS)
	@# What lies there now is the runner that attacks.
	@$(TOOLCHAIN) && $(NATIVE) cargo build --quiet $(RUNNER_CARGO)
