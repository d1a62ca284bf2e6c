#!/bin/sh
# Type-checks the workspace for systems that nobody here runs: Windows, and macOS on ARM. Builds and links nothing.
#
# Of the runner all Rust is checked, and its own file of C++ is compiled; llama.cpp is not: its bindings are those of
# the runner that was built for this machine (`make runner`). Needs, and says so where it lacks:
#   the targets of the Rust compiler, a C and C++ compiler for Windows (Debian: g++-mingw-w64-x86-64), and for macOS a
#   C compiler with that system's headers, its command in MACOS_CC (the same with c++ in MACOS_CXX).
set -eu
cd "$(dirname "$0")/.."
bindings=${BINDINGS:-}
work=${CARGO_TARGET_DIR:-target}/check-targets
mkdir -p "$work"
failed=0

if [ -z "$bindings" ]; then
	native=${RUNNER_TARGET:-${XDG_CACHE_HOME:-$HOME/.cache}/tieline/build/runner-native}
	bindings=$(ls -t "$native"/release/build/llama-cpp-sys-2-*/out/bindings.rs 2>/dev/null | head -n 1)
fi

has_target() {
	rustc --print target-libdir --target "$1" >/dev/null 2>&1 && [ -d "$(rustc --print target-libdir --target "$1")" ] || {
		echo "hint: rustup target add $1" >&2
		return 1
	}
}

check() {
	echo "== $1" >&2
	cargo check --target "$1" --keep-going || failed=1
	if [ -z "$bindings" ]; then
		echo "hint: make runner: without its bindings the runner is not checked for $1" >&2
		failed=1
		return
	fi
	# The layout of C's types is this machine's: what is asserted of it holds elsewhere or not, and is no matter here.
	sed 's/^const _: () = {$/#[cfg(any())]\n&/' "$bindings" >"$work/bindings.rs"
	# In place of the build script, which would compile llama.cpp.
	cargo check --target "$1" -p tieline-runner --bins \
		--config "target.$1.llama.rustc-env.OUT_DIR='$(cd "$work" && pwd)'" || failed=1
}

windows=x86_64-pc-windows-gnu
if ! command -v x86_64-w64-mingw32-g++ >/dev/null; then
	echo 'hint: apt-get install g++-mingw-w64-x86-64' >&2
	failed=1
elif has_target $windows; then check $windows; else failed=1; fi

macos=aarch64-apple-darwin
if [ -z "${MACOS_CC:-}" ] || [ -z "${MACOS_CXX:-}" ]; then
	echo 'hint: MACOS_CC and MACOS_CXX: commands of a compiler with macOS headers' >&2
	failed=1
elif has_target $macos; then
	# The command itself says for what it compiles: what Apple's own compiler is told besides is left out.
	for which in CC CXX; do
		eval "command=\$MACOS_$which"
		cat >"$work/$which" <<-WRAPPER
			#!/bin/bash
			kept=() skip=
			for argument in "\$@"; do
				if [ -n "\$skip" ]; then skip=; continue; fi
				case "\$argument" in
					-arch | -isysroot | -target) skip=1 ;;
					--target=* | -mmacosx-version-min=*) ;;
					*) kept+=("\$argument") ;;
				esac
			done
			exec $command "\${kept[@]}"
		WRAPPER
		chmod +x "$work/$which"
	done
	here=$(cd "$work" && pwd)
	export CC_aarch64_apple_darwin="$here/CC" CXX_aarch64_apple_darwin="$here/CXX" SDKROOT="$here" CRATE_CC_NO_DEFAULTS=
	check $macos
else failed=1; fi
exit $failed
