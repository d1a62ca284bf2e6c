#!/bin/sh
# Regenerates the documents that are made from code. One line per document.
set -eu
cd "$(dirname "$0")/.."

# generate FILE COMMAND...: the command's stdout becomes the file, whole or not at all.
generate() {
    file=$1
    shift
    mkdir -p "$(dirname "$file")"
    "$@" >"$file.new" || { rm -f "$file.new"; echo "docs: failed: $*" >&2; exit 1; }
    mv "$file.new" "$file"
    echo "docs: $file"
}

generate docs/cli.md cargo run --quiet -p tieline -- reference
generate docs/openapi.json cargo run --quiet -p tieline-server --example openapi
generate docs/routes.txt cargo run --quiet -p tieline-server --example openapi -- routes
