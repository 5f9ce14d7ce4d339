#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How the two programs end that run.sh asks about a GPU; and what it makes of how programs end, in a bundle whose programs only end.
# usage: test_run.sh TEST_CUDA_DEVICE BENCH_CUDA
set -u
TEST=$1 BENCH=$2
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BUNDLE=$(mktemp -d)
trap 'rm -rf "$BUNDLE"' EXIT
failures=0

# Each ends with the code that CODES has for its name, 0 where it has none; the test binary, which is asked whether there is a GPU, with that
# of `opens` then.
mkdir "$BUNDLE"/{bin,gpu,tools}
cp "$HERE/run.sh" "$BUNDLE/gpu"
cat >"$BUNDLE/program" <<'PROGRAM'
#!/bin/sh
name=$(basename "$0")
case "$*" in *'no case'*) name=opens ;; esac
case "$name $*" in
	cadre-placement*) echo "time=0 level=info component=placement msg=serving grpc=127.0.0.1:1 http=127.0.0.1:2" ;;
	cadre-router*) echo "time=0 level=info component=router msg=ready grpc=127.0.0.1:3 http=127.0.0.1:4" ;;
	*--router*) echo "digest ${ROUTER_DIGEST:-abc0}" ;;
	*generate*) echo "digest abc0" ;;
esac
code=$(echo " ${CODES:-}" | sed -n "s/.* $name=\([0-9]*\).*/\1/p")
[ "$code" != 77 ] || echo "skipped: there is no such thing"
exit "${code:-0}"
PROGRAM
chmod +x "$BUNDLE/program"
for program in bin/cadre{-placement,-expert,-router,ctl} gpu/{test_cuda_device,bench_cuda,peers.py} tools/{compute-sanitizer,python3}; do
	cp "$BUNDLE/program" "$BUNDLE/$program"
done
export PATH=$BUNDLE/tools:$PATH

# expect EXIT_CODE TEXT [OPTION...]
expect() {
	local code=$1 text=$2 said ended
	shift 2
	said=$("$BUNDLE/gpu/run.sh" "$@" "$BUNDLE/out" 2>&1)
	ended=$?
	if [ $ended != "$code" ] || [[ $said != *"$text"* ]]; then
		printf 'CODES=%s %s\n  ended with %s, not %s, and said, without "%s":\n%s\n' "${CODES:-}" "$*" $ended "$code" "$text" "$said"
		failures=$((failures + 1))
	fi
}

# ends EXIT_CODE TEXT PROGRAM...
ends() {
	local code=$1 text=$2 said ended
	shift 2
	said=$("$@" 2>&1)
	ended=$?
	if [ $ended != "$code" ] || [[ $said != "$text"* ]]; then
		printf '%s\n  ended with %s, not %s, and said, not "%s":\n%s\n' "$*" $ended "$code" "$text" "$said"
		failures=$((failures + 1))
	fi
}

export CADRE_BACKENDS=$BUNDLE/backends
ends 77 "skipped: there is no device 'cuda'" "$TEST" cuda
ends 77 "skipped: there is no device 'cuda'" "$BENCH"
mkdir "$CADRE_BACKENDS"
echo 'no library' >"$CADRE_BACKENDS/libcadre-cuda.so"
ends 1 "FAIL: device 'cuda': its library cannot be opened" "$TEST" cuda
ends 1 "FAIL: device 'cuda': its library cannot be opened" "$BENCH"

expect 0 '7 passed, 0 failed, 0 skipped'
expect 0 '3 passed, 0 failed, 4 skipped' --device emu
CODES='opens=77' expect 0 '0 passed, 0 failed, 7 skipped'
CODES='opens=77' expect 0 'skipped: cluster: there is no such thing'
CODES='opens=1' expect 1 '0 passed, 1 failed, 7 skipped'
CODES='opens=139' expect 1 'FAIL device'
CODES='test_cuda_device=1' expect 1 'FAIL operators'
CODES='compute-sanitizer=9' expect 1 '4 passed, 3 failed, 0 skipped'
CODES='bench_cuda=1' expect 1 'FAIL bits-and-speed'
CODES='python3=1' expect 1 'FAIL peers'
CODES='python3=77' expect 0 'skipped: peers: there is no such thing'
ROUTER_DIGEST=abc1 expect 1 'FAIL cluster'
CODES='cadrectl=1' expect 1 'FAIL cluster'

expect 0 'usage: run.sh' --help
expect 2 "no option '--devise'" --devise emu
expect 2 "--device 'gpu': use cuda or emu" --device gpu
expect 2 'one folder' another

[ $failures = 0 ]
