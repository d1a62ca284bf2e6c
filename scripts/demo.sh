#!/bin/sh
# Builds Tieline, pulls a small model, asks it one question, and shows who would answer two others by a policy.
# With no terminal on stdout: quiet, the build's output goes to a log, what comes is JSON, a line each.
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

# Who would answer what, by an example of a policy. Nobody is asked, so no real key is needed.
explain() {
    OPENAI_API_KEY=${OPENAI_API_KEY:-none} "$tieline" --policy packaging/policy/demo.toml route explain "$@"
}
personal='Write to anna.muster@example.org that her card 4111 1111 1111 1111 is blocked.'
hard='Prove that there are infinitely many primes p with p = 3 mod 4.'

: >"$log"
if [ -t 1 ]; then
    "${MAKE:-make}" --no-print-directory build
    "$tieline" pull smollm2
    "$tieline" run smollm2 --greedy --max-tokens 48 --stats --system "$system" "$question"
    printf '\nWho would answer: %s\n' "$personal"
    explain "$personal"
    printf '\nWho would answer: %s\n' "$hard"
    explain "$hard"
    exit
fi
quietly "${MAKE:-make}" --no-print-directory build
quietly "$tieline" pull smollm2
"$tieline" run smollm2 --greedy --max-tokens 48 --stats --json --system "$system" "$question"
explain "$personal" --json
explain "$hard" --json
