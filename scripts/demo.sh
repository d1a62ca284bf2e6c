#!/bin/sh
# Builds Tieline, pulls a small model and asks it one question.
# With no terminal on stdout: quiet, the build's output goes to a log, the answer is JSON.
set -eu
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
tieline=$target/release/tieline
log=$target/demo.log
question='What is the capital of France?'
# A small model: under a vaguer system prompt a hair decides whether it answers in English.
system='You answer in one short English sentence.'
mkdir -p "$target"

quietly() {
    "$@" >>"$log" 2>&1 && return
    status=$?
    echo "demo: failed: $*; the end of $log:" >&2
    tail -n 40 "$log" >&2
    exit "$status"
}

: >"$log"
if [ -t 1 ]; then
    "${MAKE:-make}" --no-print-directory build
    "$tieline" pull smollm2
    exec "$tieline" run smollm2 --greedy --max-tokens 48 --stats --system "$system" "$question"
fi
quietly "${MAKE:-make}" --no-print-directory build
quietly "$tieline" pull smollm2
exec "$tieline" run smollm2 --greedy --max-tokens 48 --stats --json --system "$system" "$question"
