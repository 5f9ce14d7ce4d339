#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A machine without AVX2, which QEMU plays: every program starts, those that compute end with a sentence, and those that do not compute work.
# usage: test_no_avx2.sh FOLDER_OF_PROGRAMS CHECKPOINT
set -u
BIN=$1 MODEL=$2
SENTENCE='this machine lacks AVX2, FMA or F16C'

if ! command -v qemu-x86_64 >/dev/null; then
	echo "skipped: there is no qemu-x86_64 (Debian: qemu-user)"
	exit 0
fi
# As if the program had started itself again, which would be on the real processor.
export CADRE_UCX_STARTED_AGAIN=1

failures=0

# expect EXIT_CODE TEXT PROGRAM [ARGUMENT...]
expect() {
	local code=$1 text=$2 said ended
	shift 2
	said=$(timeout 20 qemu-x86_64 -cpu Nehalem "$BIN/$1" "${@:2}" 2>&1 </dev/null)
	ended=$?
	if [ $ended != "$code" ] || [[ $said != *"$text"* ]]; then
		printf '%s\n  ended with %s, not %s, and said, without "%s":\n%s\n' "$*" $ended "$code" "$text" "$said"
		failures=$((failures + 1))
	fi
}

here=(--http 127.0.0.1:0)
expect 0 cadrectl cadrectl --version
expect 1 'Connection refused' cadrectl status --placement 127.0.0.1:1
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT
expect 0 '' cadrectl trace generate --experts 8 --communities 2 --top-k 2 --tokens 2000 --layers 1 --output "$trace"
expect 0 '"format"' cadrectl plan --trace "$trace" --nodes 2 --rounds 1 --threads 1 -o json
expect 1 "$SENTENCE" cadrectl generate --model "$MODEL" --tokens 1,2 --max-tokens 1
for isa in ref avx2; do
	expect 1 "$SENTENCE" cadre-router --local-experts --model "$MODEL" --isa $isa --grpc 127.0.0.1:0 "${here[@]}"
done
expect 1 'this machine lacks AVX' cadre-router --local-experts --model "$MODEL" --isa avx512 --grpc 127.0.0.1:0 "${here[@]}"
expect 1 "$SENTENCE" cadre-expert --placement 127.0.0.1:1 --model "$MODEL" "${here[@]}"
expect 1 "$SENTENCE" cadre-placement --model "$MODEL" --grpc 127.0.0.1:0 "${here[@]}"
exit $((failures > 0))
