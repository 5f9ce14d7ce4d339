# shellcheck shell=bash
# Every program in build/bench, or those whose names contain one of the words.

source "$ROOT/scripts/setup.sh"

bench() {
	local program name word wanted
	build release
	for program in "$(build_directory release)"/bench/bench_*; do
		[ -x "$program" ] || fail "there are no benchmarks"
		name=$(basename "$program")
		wanted=
		[ $# -gt 0 ] || wanted=yes
		for word in "$@"; do [[ $name != *"$word"* ]] || wanted=yes; done
		[ -n "$wanted" ] || continue
		say "$name"
		(cd "$ROOT" && "$program")
	done
}
