# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Every program in build/bench and bench/serve.py, or those whose names contain one of the words. What needs a model gets one of about 1 B parameters, with random
# weights, written once (1.9 GB in run/).

source "$ROOT/scripts/setup.sh"
source "$ROOT/scripts/python.sh"

# Known before anything is built.
bench_names() { (cd "$ROOT/bench" && for name in bench_*.c serve.py; do printf '%s ' "${name%.c}"; done); }

bench() {
	local program name word wanted model=$ROOT/run/model-1b
	local -a arguments interpreter
	for word in "$@"; do
		[[ $(bench_names) == *"$word"* ]] || fail_usage "there is no benchmark with '$word' in its name: $(bench_names)"
	done
	build release
	for program in "$(build_directory release)"/bench/bench_* "$ROOT/bench/serve.py"; do
		[ -x "$program" ] || fail "there are no benchmarks"
		name=$(basename "$program")
		wanted=
		[ $# -gt 0 ] || wanted=yes
		for word in "$@"; do [[ $name != *"$word"* ]] || wanted=yes; done
		[ -n "$wanted" ] || continue
		arguments=()
		if [[ $name == bench_engine || $name == serve.py ]]; then
			[ -f "$model/model.safetensors" ] || "$ROOT/tests/tools/make_checkpoint.py" "$model" --shape 1b
			arguments=(--model "$model")
		fi
		interpreter=()
		case $name in
			bench_exchange) install_packages ucx-utils ;;
			serve.py) choose_python && interpreter=("$PYTHON") ;;
		esac
		say "$name"
		(cd "$ROOT" && "${interpreter[@]}" "$program" "${arguments[@]}")
	done
}
