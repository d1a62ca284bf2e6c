#!/bin/sh
# Finds or installs what the C++ runner needs to build: a C++ compiler, cmake and libclang.
# Needs no root. Prints shell lines for the caller: eval "$(scripts/toolchain.sh)"
#
# TIELINE_TOOLCHAIN=system   use the system's tools or fail
# TIELINE_TOOLCHAIN=private  use the private ones even where the system has its own
set -eu

here=$(cd "$(dirname "$0")" && pwd)
requirements=$here/toolchain-requirements.txt
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tieline/toolchain
mode=${TIELINE_TOOLCHAIN:-auto}

say() { printf '%s\n' "toolchain: $*" >&2; }

advise() {
    say "$1"
    cat >&2 <<'TEXT'
hint: install what is missing, then try again
  Debian, Ubuntu  apt install g++ make cmake libclang-dev python3 python3-venv
  Fedora          dnf install gcc-c++ make cmake clang-devel python3
  Arch            pacman -S gcc make cmake clang python
  macOS           xcode-select --install && brew install cmake llvm python
TEXT
    exit 1
}

# Quotes a word for the shell.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

compiler() {
    for name in "${CC:-cc}" cc gcc clang; do
        command -v "$name" >/dev/null 2>&1 && { echo "$name"; return; }
    done
    return 1
}

cc=$(compiler) || advise 'no C compiler'
command -v "${CXX:-c++}" >/dev/null 2>&1 || advise 'no C++ compiler'
command -v make >/dev/null 2>&1 || command -v ninja >/dev/null 2>&1 || advise 'no make'

# The compiler's own headers (stddef.h and its like): a bare libclang has none.
builtin_include() {
    dir=$("$cc" -print-file-name=include 2>/dev/null || true)
    case $dir in /*) [ -f "$dir/stddef.h" ] && { echo "$dir"; return; } ;; esac
    dir=$("$cc" -print-resource-dir 2>/dev/null || true)/include
    [ -f "$dir/stddef.h" ] && { echo "$dir"; return; }
    return 1
}

has_headers() {
    for file in "$1"/clang/*/include/stddef.h "$1"/../lib/clang/*/include/stddef.h; do
        [ -f "$file" ] && return 0
    done
    return 1
}

# Folders with a libclang, best first. clang-sys looks in the same places.
libclang_folders() {
    [ -n "${LIBCLANG_PATH:-}" ] && echo "$LIBCLANG_PATH"
    for config in "${LLVM_CONFIG_PATH:-llvm-config}" llvm-config; do
        command -v "$config" >/dev/null 2>&1 && "$config" --libdir
    done
    ls -d /usr/lib/llvm-*/lib /usr/lib64/llvm*/lib /usr/local/llvm*/lib 2>/dev/null | sort -rV
    [ -d /opt/homebrew/opt/llvm/lib ] && echo /opt/homebrew/opt/llvm/lib
    [ -d /usr/local/opt/llvm/lib ] && echo /usr/local/opt/llvm/lib
    [ -d /Library/Developer/CommandLineTools/usr/lib ] && echo /Library/Developer/CommandLineTools/usr/lib
    for dir in /usr/lib64 /usr/lib /usr/lib/*-linux-gnu /usr/local/lib; do echo "$dir"; done
}

find_libclang() {
    libclang_folders | while read -r dir; do
        for file in "$dir"/libclang.so "$dir"/libclang.so.* "$dir"/libclang-*.so* "$dir"/libclang.dylib; do
            [ -f "$file" ] && { echo "$dir"; return; }
        done
    done
}

# llama.cpp's kernels for AMX are left out: GCC before 14 drops the stores of what their `ldtilecfg` reads, so that they
# end the process at the first product; and they lay weights out anew, where ours read them as they lie in the file.
# Flags of the compiler win over what -march=native turns on.
without_amx() {
    grep -qsw amx_int8 /proc/cpuinfo || return 0
    flags='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'
    # shellcheck disable=SC2086  # Each is a word.
    echo | "$cc" $flags -E - >/dev/null 2>&1 || return 0
    printf 'export CFLAGS="${CFLAGS:-} %s" CXXFLAGS="${CXXFLAGS:-} %s"\n' "$flags" "$flags"
}

print_result() { # PATH to put in front, LIBCLANG_PATH
    without_amx
    [ -z "$1" ] || printf 'export PATH=%s:"$PATH"\n' "$(quote "$1")"
    # What the build finds by itself is not named: a changed variable means a new C++ build,
    # and a plain `cargo build` has none.
    case $1$(uname -s) in Linux) ;; *) printf 'export LIBCLANG_PATH=%s\n' "$(quote "$2")" ;; esac
    # The compiler's headers stand in only where this libclang has none of its own.
    if ! has_headers "$2" && include=$(builtin_include); then
        printf 'export BINDGEN_EXTRA_CLANG_ARGS=%s\n' "$(quote "-I$include")"
    fi
}

if [ "$mode" != private ]; then
    libclang=$(find_libclang)
    if command -v cmake >/dev/null 2>&1 && [ -n "$libclang" ]; then
        print_result '' "$libclang"
        exit 0
    fi
    [ "$mode" != system ] || advise 'no cmake or no libclang on this system'
fi

# The private tools. The folder's name carries the list's checksum: a changed list is a new folder.
python=
for name in python3 python; do
    command -v "$name" >/dev/null 2>&1 && "$name" -c 'import venv, ensurepip' 2>/dev/null && { python=$name; break; }
done
[ -n "$python" ] || advise 'no cmake or no libclang, and no python with venv and pip to fetch them'

venv=$cache/$(cksum <"$requirements" | cut -d' ' -f1)
if [ ! -f "$venv/complete" ]; then
    say "installing cmake and libclang into $venv (once, 55 MB)"
    rm -rf "$venv"
    mkdir -p "$cache"
    "$python" -m venv "$venv" >&2 || advise 'python cannot make a virtual environment'
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes -r "$requirements" >&2 \
        || advise 'pip could not install cmake and libclang'
    touch "$venv/complete"
fi
libclang=$("$venv/bin/python" -c 'import clang, os; print(os.path.join(list(clang.__path__)[0], "native"))')
# Only cmake goes in front of PATH, not the environment's python.
mkdir -p "$venv/tools"
ln -sf "$venv/bin/cmake" "$venv/tools/cmake"
print_result "$venv/tools" "$libclang"
