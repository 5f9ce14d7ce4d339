#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: test_install.sh CMAKE BUILD VERSION
# Installs BUILD into an empty prefix, and looks at what is there: programs that start, pages that format and hold every
# option, completion, example configuration that the programs accept, units that systemd accepts. Tools that are not there are skipped.
set -eu

cmake=$1 build=$2 version=$3
model=$(dirname "$0")/../../models/demo # the examples name one that nobody has
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
failures=0

fail() {
	echo "FAIL: $*"
	failures=$((failures + 1))
}

# check SENTENCE COMMAND...: its output is shown when it fails
check() {
	sentence=$1
	shift
	if ! "$@" >"$prefix/output" 2>&1; then
		fail "$sentence"
		cat "$prefix/output"
	fi
}

DESTDIR='' "$cmake" --install "$build" --prefix "$prefix/usr" >/dev/null
usr=$prefix/usr
# The commit that was built: what the checkout is at may be newer.
commit=$(sed -n 's/^const char cad_commit\[\] = "\(.*\)";$/\1/p' "$build/commit/commit.c")
echo "$commit" | grep -qxE 'unknown|[0-9a-f]{12,40}(-dirty)?' || fail "the commit is '$commit'"
doc=$usr/share/doc/cadre

for file in LICENSE NOTICE README.md CHANGELOG.md; do
	check "no $file in share/doc/cadre" test -s "$doc/$file"
done

for program in cadre-placement cadre-router cadre-expert cadrectl; do
	check "$program does not start" "$usr/bin/$program" --help
	[ "$("$usr/bin/$program" --version)" = "$program $version ($commit)" ] || fail "$program --version is not $version ($commit)"
	page=$usr/share/man/man1/$program.1
	check "no page of $program" test -s "$page"
	! command -v groff >/dev/null || check "groff finds faults in $program.1" sh -c "! groff -man -ww -z '$page' 2>&1 | grep ."
	! command -v mandoc >/dev/null || check "mandoc finds faults in $program.1" mandoc -T lint -W warning "$page"
	check "no bash completion of $program" bash -n "$usr/share/bash-completion/completions/$program"
	check "no zsh completion of $program" grep -qx "#compdef $program" "$usr/share/zsh/site-functions/_$program"
done

# The library for GPUs, where nvcc is: it needs what every machine has, and no part of CUDA before a device is opened.
if grep -q '^CADRE_CUDA:STRING=\(ON\|AUTO\)$' "$build/CMakeCache.txt" && grep -q '^NVCC:FILEPATH=.*nvcc$' "$build/CMakeCache.txt" &&
	grep -q '^CADRE_SANITIZE:STRING=$' "$build/CMakeCache.txt"; then
	check "no library for GPUs" test -s "$usr/lib/cadre/libcadre-cuda.so"
	check "no NOTICE of the library for GPUs" test -s "$usr/share/doc/cadre-cuda/NOTICE"
	strangers=$(readelf -d "$usr/lib/cadre/libcadre-cuda.so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vE '^(libstdc\+\+|libm|libgcc_s|libc|ld-linux-x86-64|libdl|librt|libpthread)\.so' || true)
	[ -z "$strangers" ] || fail "libcadre-cuda.so needs $strangers"
fi
! find "$usr" -name 'libcadre-emu*' | grep . || fail "the emulated GPU is for tests alone"

# holds_options PROGRAM COMMAND...: every option of its --help is in the page, and completed
holds_options() {
	page=$usr/share/man/man1/$1.1 bash=$usr/share/bash-completion/completions/$1 zsh=$usr/share/zsh/site-functions/_$1
	shift
	"$@" --help | sed -n 's/^  --\([a-z0-9-]*\).*/\1/p' >"$prefix/options"
	[ -s "$prefix/options" ] || fail "'$*' has no options?"
	while read -r option; do
		sed 's/\\-/-/g' "$page" | grep -qF -e "\\fB--$option\\fR" || fail "--$option of '$*' is not in $page"
		grep -qw -e "--$option" "$bash" || fail "--$option of '$*' is not completed by bash"
		grep -q -e "'--${option}[=[]" "$zsh" || fail "--$option of '$*' is not completed by zsh"
	done <"$prefix/options"
}
for program in cadre-placement cadre-router cadre-expert; do holds_options $program "$usr/bin/$program"; done
"$usr/bin/cadrectl" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]* \{0,1\}[a-z]*\)  .*/\1/p' >"$prefix/commands"
[ "$(wc -l <"$prefix/commands")" -ge 10 ] || fail "cadrectl has fewer commands than it had"
while read -r command; do
	# shellcheck disable=SC2086  # a command may have two words
	holds_options cadrectl "$usr/bin/cadrectl" $command
done <"$prefix/commands"

for example in placement router router-alone expert; do
	program=cadre-${example%-alone}
	check "$program refuses examples/$example.yaml" "$usr/bin/$program" --config "$doc/examples/$example.yaml" --model "$model" --check-config
done

for unit in cadre-placement cadre-router cadre-router@ cadre-expert cadre-expert@; do
	file=$usr/lib/systemd/system/$unit.service
	check "no $unit.service" test -s "$file"
	# A placeholder that nobody filled in. SystemCallFilter has words with @ of its own.
	check "$unit.service has placeholders" sh -c "! grep -v ^SystemCallFilter '$file' | grep '@[A-Z]'"
	program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$file")
	check "$unit.service starts '$program', which is not there" test -x "$program"
done
check "no user for the services" grep -q '^u *cadre ' "$usr/lib/sysusers.d/cadre.conf"
if command -v systemd-analyze >/dev/null && getent passwd root >/dev/null; then
	# Of other units, which these wait for, nothing is installed here: only lines about ours count.
	systemd-analyze verify --man=no --recursive-errors=no "$usr"/lib/systemd/system/cadre-*[!@].service \
		>"$prefix/verify" 2>&1 || true
	check "systemd-analyze complains" sh -c "! grep -F '$usr/lib/systemd/system' '$prefix/verify'"
fi

# What is built for tests stays in the build.
check "something is installed outside of bin, share and lib" test "$(cd "$usr" && echo *)" = 'bin lib share'
check "more than the four programs are in bin" test "$(find "$usr/bin" -mindepth 1 | wc -l)" = 4

[ $failures = 0 ] && echo "installed and checked"
exit $failures
