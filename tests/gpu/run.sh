#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: run.sh [--device cuda|emu] [OUT]
# What a GPU has to show, in one go of at most five minutes: the operators' cases, NVIDIA's checkers over some of them, the bits of the CPU at
# shapes of real models, speed beside what the GPU gives at best and beside other software, and a cluster whose two expert nodes are on it. It
# needs the driver; compute-sanitizer, and Python with torch and triton, where they happen to be installed. Nothing is fetched.
#
# Run it from a checkout that is built (./cadre test gpu) or from gpu/ of the bundle. OUT (default gpu-results) gets logs, and CSV files that
# are named after the GPU: the first that CUDA_VISIBLE_DEVICES lets through. `--device emu` shows here that all of it runs. What cannot run is skipped by name; the last line counts.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEVICE=cuda
if [ "${1:-}" = --device ]; then
	DEVICE=${2:?run.sh --device needs a device}
	shift 2
fi
OUT=${1:-gpu-results}
ROOT=$(cd "$HERE/.." && pwd) # of the bundle
TEST=$HERE/test_cuda_device BENCH=$HERE/bench_cuda PEERS=$HERE/peers.py BIN=$ROOT/bin
if [ ! -x "$BENCH" ]; then
	ROOT=$(cd "$HERE/../.." && pwd) # of the checkout
	BUILD=${CADRE_BUILD:-$ROOT/build}
	TEST=$BUILD/tests/test_cuda_device BENCH=$BUILD/bench/bench_cuda PEERS=$ROOT/bench/gpu/peers.py BIN=$BUILD/bin
fi
MODEL=$ROOT/models/demo
TESTS='operators memcheck racecheck synccheck bits-and-speed peers cluster'
PASSED=0 FAILED=0 SKIPPED=0

ok() { echo "ok $1 ($SECONDS s)" && PASSED=$((PASSED + 1)); }
failed() { echo "FAIL $1 ($SECONDS s): $2" && FAILED=$((FAILED + 1)); }
skipped() { echo "skipped: $1: $2" && SKIPPED=$((SKIPPED + 1)); }

# judge NAME CODE: of a command whose log is OUT/NAME.log
judge() {
	if [ "$2" = 0 ]; then
		ok "$1"
	else
		tail -n 20 "$OUT/$1.log"
		failed "$1" "exit code $2, see $OUT/$1.log"
	fi
}

# run NAME SECONDS COMMAND...
run() {
	local code=0
	timeout -k 5 "$2" "${@:3}" >"$OUT/$1.log" 2>&1 || code=$?
	judge "$1" "$code"
}

finish() {
	echo "$PASSED passed, $FAILED failed, $SKIPPED skipped, $SECONDS s; $OUT has logs and results"
	[ "$FAILED" = 0 ]
}

# ---- tests ----

# The three tools side by side, over the cases of the ffn.
sanitizers() {
	local tool why=''
	local -A running=()
	[[ $DEVICE != emu ]] || why='for a GPU; the emulation has checks of its own (build/lib/cadre-check)'
	[ -n "$why" ] || command -v compute-sanitizer >/dev/null || why='there is no compute-sanitizer here'
	for tool in memcheck racecheck synccheck; do
		if [ -n "$why" ]; then
			skipped $tool "$why"
			continue
		fi
		timeout -k 5 90 compute-sanitizer --tool $tool --error-exitcode 9 "$TEST" "$DEVICE" 'ffn*' >"$OUT/$tool.log" 2>&1 &
		running[$tool]=$!
	done
	for tool in "${!running[@]}"; do
		local code=0
		wait "${running[$tool]}" || code=$?
		judge "$tool" $code
	done
}

bits_and_speed() {
	local how=()
	[[ $DEVICE != emu ]] || how=(--quick)
	run bits-and-speed 120 "$BENCH" --device "$DEVICE" --csv "$OUT" "${how[@]}"
	sed 's/^/    /' "$OUT/bits-and-speed.log"
}

peers() {
	local why
	if [[ $DEVICE == emu ]]; then
		skipped peers 'for a GPU'
	elif ! why=$(python3 "$PEERS" --help 2>&1 >/dev/null); then
		skipped peers "${why##*$'\n'}"
	elif why=$(timeout -k 5 120 python3 "$PEERS" "$OUT" 2>&1 | tee "$OUT/peers.log"); [[ $why == skipped:* ]]; then
		skipped peers "${why#skipped: peers: }"
	else
		sed 's/^/    /' "$OUT/peers.log"
		if grep -q ratio "$OUT/peers.log"; then ok peers; else failed peers "see $OUT/peers.log"; fi
	fi
}

# digest OPTION...: of an answer in profile int8
digest() {
	"$BIN/cadrectl" generate "$@" --max-tokens 24 --temperature 0.6 --seed 1 --ignore-eos 'CREATE TABLE t1 (' 2>&1 | sed -n 's/.*digest \([0-9a-f]*\).*/\1/p'
}

# A router on the CPU, two expert nodes on the GPU: which must give the bits of one process on the CPU.
cluster_answers() {
	local state port expected got i
	state=$(mktemp -d)
	port=$((20000 + $$ % 5000 * 2))
	expected=$(digest --model "$MODEL" --numerics int8)
	PIDS=()
	"$BIN/cadre-placement" --model "$MODEL" --numerics int8 --grpc "127.0.0.1:$port" --http 127.0.0.1:0 --state "$state/state.db" --experts-min 2 >"$OUT/placement.log" 2>&1 &
	PIDS+=($!)
	for i in 0 1; do
		"$BIN/cadre-expert" --model "$MODEL" --placement "127.0.0.1:$port" --id "expert-$i" --http 127.0.0.1:0 --device "$DEVICE" --memory 256M --threads 1 --speed 1 >"$OUT/expert-$i.log" 2>&1 &
		PIDS+=($!)
	done
	"$BIN/cadre-router" --model "$MODEL" --placement "127.0.0.1:$port" --id router-0 --http 127.0.0.1:0 --grpc "127.0.0.1:$((port + 1))" --kv-memory 64M >"$OUT/router.log" 2>&1 &
	PIDS+=($!)
	if "$BIN/cadrectl" wait --placement "127.0.0.1:$port" --experts 2 --routers 1 --timeout 60s; then
		got=$(digest --router "127.0.0.1:$((port + 1))")
	else
		tail -n 3 "$OUT"/{placement,expert-0,expert-1,router}.log
	fi
	kill "${PIDS[@]}" 2>/dev/null || true
	wait
	rm -rf "$state"
	echo "digest '$expected' on the CPU, '${got:-}' with two expert nodes on $DEVICE"
	[ -n "$expected" ] && [ "$expected" = "${got:-}" ]
}

cluster() {
	local code=0
	cluster_answers >"$OUT/cluster.log" 2>&1 || code=$?
	judge cluster "$code"
}

# ---- all of them ----

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
for program in "$TEST" "$BENCH" "$BIN/cadrectl"; do
	[ -x "$program" ] || { echo "$program is not there: './cadre test gpu' builds it" && exit 1; }
done
{ nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv 2>&1 || true; } >"$OUT/gpu.log"

if missing=$("$TEST" "$DEVICE" 'no case' 2>/dev/null | grep -m1 '^skipped: '); then
	for name in $TESTS; do skipped "$name" "${missing#skipped: }"; done
	finish
	exit 0
fi
run operators 150 "$TEST" "$DEVICE"
sanitizers
bits_and_speed
peers
cluster
finish
