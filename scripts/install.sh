#!/bin/sh
# Installs both programs, completions and the manual page, or takes them away: install.sh [--remove] FOLDER
# FOLDER holds `tieline` and `tieline-runner` (and the runner's libraries, of a portable build).
#
# PREFIX    where to, ~/.local where not said
# DESTDIR   a folder that stands for /, for makers of packages
set -eu

remove=false
[ "${1:-}" != --remove ] || { remove=true; shift; }
prefix=${DESTDIR:-}${PREFIX:-$HOME/.local}
# The program looks for the runner beside itself, wherever links lead: one folder for both, with nothing else in it.
home=$prefix/lib/tieline
bash=$prefix/share/bash-completion/completions/tieline
zsh=$prefix/share/zsh/site-functions/_tieline
fish=$prefix/share/fish/vendor_completions.d/tieline.fish
manual=$prefix/share/man/man1/tieline.1

fail() { printf '%s\n' "install: $1" "hint: $2" >&2; exit 1; }

if $remove; then
    # Models and state stay: they are the user's.
    rm -f "$home/tieline" "$home/tieline-runner" "$home"/tieline-runner-* "$home"/lib*.so* "$prefix/bin/tieline" "$bash" "$zsh" "$fish" "$manual"
    [ ! -d "$home" ] || rmdir "$home"
    echo "removed from $prefix; models and state stay where they are"
    exit
fi

from=${1:?the folder of both programs}
for program in tieline tieline-runner; do
    [ -x "$from/$program" ] || fail "no $from/$program" 'run `make build` first'
done
for file in "$home/tieline" "$bash" "$zsh" "$fish" "$manual"; do
    mkdir -p "${file%/*}" || fail "cannot make ${file%/*}" 'choose another PREFIX, or ask for the rights'
done
mkdir -p "$prefix/bin"
# Under another name first: what runs now keeps its own file, and nothing is ever half there.
put() { cp "$1" "$2.new" && mv -f "$2.new" "$2"; }
for file in "$from/tieline" "$from/tieline-runner" "$from"/tieline-runner-[a-z]* "$from"/lib*.so*; do
    [ ! -f "$file" ] || put "$file" "$home/${file##*/}"
done
say() { "$home/tieline" "$@" >"$target.new" && mv -f "$target.new" "$target"; }
target=$bash say completions bash
target=$zsh say completions zsh
target=$fish say completions fish
target=$manual say man
ln -sf ../lib/tieline/tieline "$prefix/bin/tieline"
echo "installed $prefix/bin/tieline"
case ":$PATH:" in
    *":${PREFIX:-$HOME/.local}/bin:"*) ;;
    *) echo "hint: put ${PREFIX:-$HOME/.local}/bin into your PATH" ;;
esac
