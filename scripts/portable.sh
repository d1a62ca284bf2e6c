#!/bin/sh
# Builds the runner with a kernel library for every processor and collects it in $DIST.
# Called by `make portable`, which has put cmake and libclang in place.
set -eu
cd "$(dirname "$0")/.."

: "${PORTABLE_TARGET:?}" "${DIST:?}"
case $(uname -s) in
    Darwin) origin=@loader_path pattern='*.dylib' ;;
    *) origin='$ORIGIN' pattern='*.so*' ;;
esac

# No target-cpu here: the kernels are chosen at run time. The runner finds its libraries beside itself.
export RUSTFLAGS="-C link-arg=-Wl,-rpath,$origin"
# So do the libraries; the build script hands CMAKE_ names on.
export CMAKE_INSTALL_RPATH="$origin"
# The build script links its libraries into these folders and, run again, stumbles over its own dangling links.
for folder in "$PORTABLE_TARGET/release" "$PORTABLE_TARGET/release/deps" "$PORTABLE_TARGET/release/examples"; do
    if [ -d "$folder" ]; then find "$folder" -maxdepth 1 -name "$pattern" -type l -delete; fi
done
cargo build --release -p tieline-runner --no-default-features --features dynamic-backends --target-dir "$PORTABLE_TARGET"
env -u RUSTFLAGS cargo build --release -p tieline

# The build script's folder that this build used: the newest.
out=$(ls -td "$PORTABLE_TARGET"/release/build/llama-cpp-sys-2-*/out | head -n 1)
rm -rf "$DIST"
mkdir -p "$DIST"
cp "$PORTABLE_TARGET/release/tieline-runner" "${CARGO_TARGET_DIR:-target}/release/tieline" "$DIST/"
for folder in "$out/lib" "$out/lib64" "$out/backends"; do
    [ -d "$folder" ] || continue
    find "$folder" -maxdepth 1 -name "$pattern" -exec cp -P {} "$DIST/" \;
done
# Not the one for AMX: GCC before 14 compiles it so that it ends the process (scripts/toolchain.sh). The next best is taken.
find "$DIST" -name '*ggml-cpu-sapphirerapids*' -delete
cp LICENSE-APACHE LICENSE-MIT "$DIST/"
# llama.cpp is shipped too, and its licence with it: MIT asks for that.
manifest=$(cargo metadata --format-version 1 --features tieline-runner/dynamic-backends \
    | sed -n 's/.*"manifest_path":"\([^"]*\/llama-cpp-sys-2-[^"]*\)\/Cargo.toml".*/\1/p')
cp "$manifest/llama.cpp/LICENSE" "$DIST/LICENSE-llama.cpp"
count=$(find "$DIST" -name '*ggml-cpu-*' | wc -l)
[ "$count" -gt 1 ] || { echo "portable: only $count kernel libraries in $DIST" >&2; exit 1; }
echo "portable: $DIST has the runner and $count kernel libraries"
