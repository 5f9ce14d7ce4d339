#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: run.sh [--device cuda|emu] [OUT]
# What a GPU has to show, in one go of at most five minutes: the operators' cases, NVIDIA's checkers over some of them, the bits of the CPU at
# shapes of real models, speed beside what the GPU gives at best and beside other software, and a cluster whose two expert nodes are on it. It
# needs the driver; compute-sanitizer, and Python with torch and triton, where they happen to be installed. Nothing is fetched.
#
# Run it from a checkout that is built (./cadre test gpu) or from gpu/ of the bundle. OUT (default gpu-results) gets logs, and CSV files that
# are named after the GPU: the first that CUDA_VISIBLE_DEVICES lets through. `--device emu` shows here that all of it runs. What cannot run is
# skipped by name; a GPU that is there and cannot be used is a failure. The last line counts.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEVICE=cuda OUT=
while [ $# -gt 0 ]; do
	case $1 in
		-h | --help)
			sed -n '3,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
			exit 0
			;;
		--device=*) DEVICE=${1#*=} ;;
		--device)
			DEVICE=${2:-}
			[ $# = 1 ] || shift
			;;
		-* | '') echo "run.sh has no option '$1': see --help" >&2 && exit 2 ;;
		*)
			[ -z "$OUT" ] || { echo "run.sh takes one folder, not '$OUT' and '$1': see --help" >&2 && exit 2; }
			OUT=$1
			;;
	esac
	shift
done
OUT=${OUT:-gpu-results}
SLOW=1 # what limits of time are for a GPU, times this
case $DEVICE in
	cuda) ;;
	emu) SLOW=6 ;;
	*) echo "run.sh --device '$DEVICE': use cuda or emu" >&2 && exit 2 ;;
esac

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
PIDS=()

ok() { echo "ok $1 ($SECONDS s)" && PASSED=$((PASSED + 1)); }
failed() { echo "FAIL $1 ($SECONDS s): $2" && FAILED=$((FAILED + 1)); }
skipped() { echo "skipped: $1: $2" && SKIPPED=$((SKIPPED + 1)); }

# within SECONDS COMMAND...: which is killed if it takes longer. All limits together are five minutes.
within() { timeout -k 5 $(($1 * SLOW)) "${@:2}"; }

# judge NAME CODE: of a command whose log is OUT/NAME.log; 77: it cannot run, as a line of it says
judge() {
	local why
	if [ "$2" = 0 ]; then
		ok "$1"
	elif [ "$2" = 77 ] && why=$(grep -m1 '^skipped: ' "$OUT/$1.log"); then
		skipped "$1" "${why#skipped: }"
	else
		tail -n 20 "$OUT/$1.log"
		failed "$1" "exit code $2, see $OUT/$1.log"
	fi
}

# run NAME SECONDS COMMAND...
run() {
	local code=0
	within "$2" "${@:3}" >"$OUT/$1.log" 2>&1 || code=$?
	judge "$1" "$code"
}

show() { sed 's/^/    /' "$OUT/$1.log"; }

finish() {
	echo "$PASSED passed, $FAILED failed, $SKIPPED skipped, $SECONDS s; $OUT has logs and results"
	[ "$FAILED" = 0 ]
}

# ---- tests ----

# Whether there is a GPU, and it can be opened. If not, nothing else runs.
opens() {
	local code=0 name why
	within 15 "$TEST" "$DEVICE" 'no case' >"$OUT/device.log" 2>&1 || code=$?
	[ $code != 0 ] || return 0
	why='the GPU cannot be used'
	if [ $code = 77 ] && why=$(grep -m1 '^skipped: ' "$OUT/device.log"); then
		why=${why#skipped: }
	else
		judge device "$code"
	fi
	for name in $TESTS; do skipped "$name" "$why"; done
	return 1
}

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
		within 45 compute-sanitizer --tool $tool --error-exitcode 9 "$TEST" "$DEVICE" 'ffn*' >"$OUT/$tool.log" 2>&1 &
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
	run bits-and-speed 60 "$BENCH" --device "$DEVICE" --csv "$OUT" "${how[@]}"
	show bits-and-speed
}

peers() {
	if [[ $DEVICE == emu ]]; then
		skipped peers 'for a GPU'
	elif ! command -v python3 >/dev/null; then
		skipped peers 'there is no python3 here'
	else
		run peers 45 python3 "$PEERS" "$OUT"
		show peers
	fi
}

# digest OPTION...: of an answer in profile int8
digest() {
	within 10 "$BIN/cadrectl" generate "$@" --max-tokens 24 --temperature 0.6 --seed 1 --ignore-eos 'CREATE TABLE t1 (' 2>&1 | sed -n 's/.*digest \([0-9a-f]*\).*/\1/p'
}

# start NAME PROGRAM OPTION...: until `stop`, a minute at most; its log is OUT/NAME.log
start() {
	timeout -k 5 $((60 * SLOW)) "$BIN/$2" --model "$MODEL" --http 127.0.0.1:0 "${@:3}" >"$OUT/$1.log" 2>&1 &
	PIDS+=($!)
}
stop() {
	[ ${#PIDS[@]} = 0 ] || kill "${PIDS[@]}" 2>/dev/null || true
	wait
	PIDS=()
}

# grpc_of NAME: where a program that was started serves, once it says so
grpc_of() {
	local i
	for ((i = 0; i < 50 * SLOW; i++)); do
		sed -n 's/.* msg=\(serving\|ready\) .*grpc=\([^ ]*\).*/\2/p' "$OUT/$1.log" | grep -m1 . && return
		sleep 0.1
	done
	echo "$1 does not serve" >&2
	tail -n 3 "$OUT/$1.log" >&2
	return 1
}

# A router on the CPU, two expert nodes on the GPU: which must give the bits of one process on the CPU.
cluster_answers() {
	local expected got='' placement i
	expected=$(digest --model "$MODEL" --numerics int8)
	rm -f "$OUT"/state.db*
	start placement cadre-placement --numerics int8 --grpc 127.0.0.1:0 --state "$OUT/state.db" --experts-min 2
	placement=$(grpc_of placement) || return
	for i in 0 1; do
		start "expert-$i" cadre-expert --placement "$placement" --id "expert-$i" --device "$DEVICE" --memory 256M --threads 1 --speed 1
	done
	start router cadre-router --placement "$placement" --id router-0 --grpc 127.0.0.1:0 --kv-memory 64M
	if "$BIN/cadrectl" wait --placement "$placement" --experts 2 --routers 1 --timeout "$((20 * SLOW))s"; then
		got=$(digest --router "$(grpc_of router)")
	else
		tail -n 3 "$OUT"/{placement,expert-0,expert-1,router}.log
	fi
	echo "digest '$expected' on the CPU, '$got' with two expert nodes on $DEVICE"
	[ -n "$expected" ] && [ "$expected" = "$got" ]
}

cluster() {
	local code=0
	cluster_answers >"$OUT/cluster.log" 2>&1 || code=$?
	stop
	judge cluster "$code"
}

# ---- all of them ----

for program in "$TEST" "$BENCH" "$BIN/cadrectl"; do
	[ -x "$program" ] || { echo "$program is not there: './cadre test gpu' builds it" && exit 1; }
done
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
trap stop EXIT
{ nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv 2>&1 || true; } >"$OUT/gpu.log"

if opens; then
	run operators 90 "$TEST" "$DEVICE"
	sanitizers
	bits_and_speed
	peers
	cluster
fi
finish
