#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Inside of a bare Debian, as root: run.sh calls it. The bundle is in a folder with a space in its name, which nobody may write to.
set -eu

DIGEST=dcc6c3fefb63f238dc66ee309c0e2247 # of models/demo, as in the README
BUNDLE=$(echo /srv/some\ folder/cadre-*)

fail() {
	echo "$*"
	exit 1
}
NOBODY='setpriv --reuid 65534 --regid 65534 --clear-groups'

# generates OPTION...
generates() {
	$NOBODY "$BUNDLE/bin/cadrectl" generate "$@" --max-tokens 24 --temperature 0.6 --seed 1 --ignore-eos 'CREATE TABLE t1 (' >/tmp/answer 2>&1 || true
	grep -q "digest $DIGEST" /tmp/answer || fail "the answer has not the digest $DIGEST: $(cat /tmp/answer)"
}

# refuses SENTENCE OPTION...: cadre-start exits with 2
refuses() {
	sentence=$1
	shift
	code=0
	$NOBODY "$BUNDLE/bin/cadre-start" "$@" >/tmp/refusal 2>&1 || code=$?
	grep -q "$sentence" /tmp/refusal || code=0
	[ $code = 2 ] || fail "cadre-start $*: $code, $(cat /tmp/refusal)"
}

chmod -R a-w "$BUNDLE"
! command -v dpkg >/dev/null || ! dpkg -l | grep -E ' lib(grpc|ucx|ssl3 )' || fail "libraries of the bundle are installed"
LD_LIBRARY_PATH=/nowhere generates --model "$BUNDLE/models/demo"

refuses 'from 1 to 512' --experts 0
refuses 'needs a value' --model
refuses 'no config.json' --model /srv
refuses 'is not an option' --expert 3

$NOBODY "$BUNDLE/bin/cadre-start" --experts 2 -- --step-tokens 64 >/tmp/start 2>&1 &
start=$!
for _ in $(seq 150); do
	! grep -q 'cadre: ready' /tmp/start || break
	kill -0 $start || fail "cadre-start ended: $(cat /tmp/start)"
	sleep 0.2
done
generates --router 127.0.0.1:7100
# Every library that a process of it has mapped is the bundle's, or glibc's.
for process in /proc/[0-9]*; do
	case $(readlink "$process/exe" || true) in
		"$BUNDLE"/*) cat "$process/maps" ;;
	esac
done >/tmp/maps
grep -qF "$BUNDLE/lib/ucx/libuct_cma.so" /tmp/maps || fail "UCX has not loaded its modules from the bundle"
strangers=$(grep -F '.so' /tmp/maps | grep -vF "$BUNDLE/lib/" | grep -oE '/[^/]*$' | sort -u | grep -vE '^/(ld-linux-x86-64|libc|libm)\.so' || true)
[ -z "$strangers" ] || fail "libraries of the system are used: $strangers"

kill -TERM $start
code=0
wait $start || code=$?
[ $code = 143 ] || fail "cadre-start exits with $code: $(cat /tmp/start)"
! grep -h cadre /proc/[0-9]*/comm || fail "processes are left"
[ -z "$(find /tmp -user 65534)" ] || fail "files are left: $(find /tmp -user 65534)"
