#!/bin/sh
# What the server itself costs, in front of a model that answers at once (crates/tieline-server/examples/overhead.rs).
# Needs wrk. Usage: bench/serve/run.sh [ROUNDS]. Prints one line for each round and case.
set -eu
cd "$(dirname "$0")/../.."
rounds=${1:-3}
cargo build --quiet --release -p tieline-server --example overhead
program=${CARGO_TARGET_DIR:-target}/release/examples/overhead
told=$(mktemp)
"$program" >"$told" &
server=$!
trap 'kill "$server"; rm -f "$told"' EXIT
while ! grep -q http "$told"; do kill -0 "$server"; done
read -r url KEY <"$told"
export KEY
idle=$(awk '/VmRSS/ {print $2}' "/proc/$server/status")
echo "idle ${idle} kB"
round=1
while [ "$round" -le "$rounds" ]; do
    for case in "mock false 1" "mock false 8" "chunks true 1" "chunks true 8"; do
        set -- $case
        export MODEL=$1 STREAM=$2
        wrk -t1 -c"$3" -d8s --latency -s bench/serve/post.lua "$url/v1/chat/completions" |
            awk -v case="$1 $3 connections" '/50%/ {p50=$2} /99%/ {p99=$2} /Requests\/sec/ {rps=$2} /Non-2xx/ {bad=" BAD " $0}
                END {print case ": p50 " p50 " p99 " p99 ", " rps " requests/s" bad}'
    done
    round=$((round + 1))
done
echo "after load $(awk '/VmRSS/ {print $2}' "/proc/$server/status") kB"
