# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Tests: each kind adds its counts, the last line sums them up.

source "$ROOT/scripts/setup.sh"
source "$ROOT/scripts/python.sh"

PASSED=0 FAILED=0 SKIPPED=0
FUZZ_SECONDS=${CADRE_FUZZ_SECONDS:-10}

count() {
	PASSED=$((PASSED + $1))
	FAILED=$((FAILED + $2))
	SKIPPED=$((SKIPPED + $3))
}

# count_junit FILE: adds up the totals of a JUnit file. A file that is missing or reports no test counts as one failure.
count_junit() {
	local tests=0 bad=0 skipped=0
	[ ! -f "$1" ] || read -r tests bad skipped < <(
		awk 'BEGIN { RS = ">" }
		     /<testsuite[[:space:]]/ {
			sub(/.*<testsuite/, "")
			n = split($0, part, "\"")   # name=, value, name=, value, ...
			for (i = 1; i < n; i += 2) { gsub(/[^a-z]/, "", part[i]); total[part[i]] += part[i + 1] }
		     }
		     END { print total["tests"] + 0, total["failures"] + total["errors"], total["skipped"] + total["disabled"] }' "$1"
	)
	[ "$tests" -gt 0 ] || bad=1 tests=1
	count $((tests - bad - skipped)) "$bad" "$skipped"
}

# run_ctest PRESET [CTEST-OPTION...]
run_ctest() {
	local preset=$1 directory junit
	shift
	if ! (build "$preset"); then
		say "the preset '$preset' does not compile"
		count 0 1 0
		return
	fi
	directory=$(build_directory "$preset")
	junit=$directory/junit.xml
	rm -f "$junit"
	(cd "$ROOT" && ctest --test-dir "$directory" -j "$(cores)" --output-on-failure --output-junit "$junit" "$@") || true
	count_junit "$junit"
}

test_unit() { run_ctest release; }
with_asan() { ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1} LSAN_OPTIONS=suppressions=$ROOT/tests/lsan.supp:print_suppressions=0 "$@"; }
test_asan() { with_asan run_ctest asan -L unit; }
test_tsan() {
	TSAN_OPTIONS=${TSAN_OPTIONS:-suppressions=$ROOT/tests/tsan.supp:second_deadlock_stack=1} run_ctest tsan -L unit
}

test_clang() { run_ctest clang -L unit; }   # the other compiler: its warnings are errors too

# cluster_of PRESET: cluster tests with that preset's programs. They wait half of their time, so two run at once.
cluster_of() {
	local junit directory
	if ! (build "$1" "${PROGRAMS[@]}"); then
		say "the programs of preset '$1' do not compile"
		count 0 1 0
		return
	fi
	choose_python
	directory=$(build_directory "$1")
	junit=$directory/junit-cluster.xml
	rm -f "$junit"
	(cd "$ROOT" && CADRE_BIN=$directory/bin "$PYTHON" -m pytest -q -p no:cacheprovider -n 2 --junitxml "$junit" tests/cluster) || true
	count_junit "$junit"
}

test_cluster() { cluster_of release; }
test_late() { cluster_of late; }   # programs whose device does nothing before it is waited for
test_cluster_asan() { with_asan cluster_of asan; }

# python_tests FOLDER TARGET...: those of tests/FOLDER, which need these programs, and packages of PyPI; without them this is one skipped test.
python_tests() {
	local junit
	if ! (build release "${@:2}" && make_venv "tests/$1"); then
		say "skipped: tests/$1, whose packages cannot be installed"
		count 0 0 1
		return
	fi
	junit=$(build_directory release)/junit-$1.xml
	rm -f "$junit"
	(cd "$ROOT" && CADRE_BIN=$(build_directory release)/bin "$VENV/bin/python" -m pytest -q -p no:cacheprovider --junitxml "$junit" "tests/$1") || true
	count_junit "$junit"
}

test_tokenizers() { python_tests tokenizers cadrectl; }             # published ones and random ones, against the library that defines them
test_checkpoints() { python_tests checkpoints cadrectl; }           # random ones, against transformers; not among the tests that run without a name: it installs torch
test_planners() { python_tests planners cadrectl; }                 # what plans are compared with and measured by
test_kubernetes() { python_tests kubernetes "${PROGRAMS[@]}"; }     # the manifests, against the API's schemas, the programs, and each other

# table_of FOLDER [ARGUMENT...]: what tests/FOLDER/run.py prints of the programs.
table_of() {
	local code=0
	(build release "${PROGRAMS[@]}")
	choose_python
	(cd "$ROOT" && CADRE_BIN=$(build_directory release)/bin exec "$PYTHON" "tests/$1/run.py" "${@:2}") || code=$?
	return $code
}

# test_faults [ROW...] [OPTION...]: the table of faults, see tests/faults/run.py. Not among the tests that run without a name: it takes an hour.
test_faults() {
	install_packages faketime
	table_of faults "$@"
}

# test_moves [ROW...] [OPTION...]: what users notice while experts move, see tests/moves/run.py. Not among the tests that run without a name.
test_moves() { table_of moves "$@"; }

# test_attempts: the table of attempts, see tests/attempts/run.py. Its quick rows are among the cluster tests.
test_attempts() { table_of attempts; }

# test_deploy [--keep]: containers, see tests/deploy/run.py. Not among the tests that run without a name: it takes ten minutes, and a container engine.
test_deploy() {
	local code=0
	choose_python
	if [ "$(id -u)" = 0 ] && ! docker info >/dev/null 2>&1; then
		install_packages docker.io docker-compose containerd runc iptables debootstrap || true
	fi
	(cd "$ROOT" && exec "$PYTHON" tests/deploy/run.py "$@") || code=$?
	[ $code != 77 ] || code=0
	return $code
}

# What `./cadre package` makes, on a fresh Debian 12 and a bare Debian 13, see tests/package/run.sh. Not among the tests that run without a
# name: the first run makes these systems, which takes minutes.
test_package() {
	local out log code=0
	local -a kinds=(bundle deb bundle-cuda deb-cuda)
	if [ "$(id -u)" != 0 ]; then
		say "skipped: tests/package, which needs root"
		count 0 0 1
		return
	fi
	has_nvcc || kinds=(bundle deb)
	if ! (install_packages debootstrap && "$ROOT/cadre" package "${kinds[@]}"); then
		say "the packages cannot be made"
		count 0 1 0
		return
	fi

	out=$(build_directory release)/package
	log=$out/test.log
	"$ROOT/tests/package/run.sh" "$out" "$out/roots" "$ROOT/models/demo" | tee "$log" || code=$?
	count "$(grep -c '^ok ' "$log" || true)" "$(grep -c '^FAIL ' "$log" || true)" 0
	case $code in
		0) ;;
		77) count 0 0 1 ;;
		*) grep -q '^FAIL ' "$log" || count 0 1 0 ;;
	esac
}

# count_lines LOG CODE: of a program that prints "ok NAME", "FAIL NAME" and "skipped: NAME"; one that fails without saying what counts as one failure.
count_lines() {
	count "$(grep -c '^ok ' "$1" || true)" "$(grep -c '^FAIL ' "$1" || true)" "$(grep -c '^skipped: ' "$1" || true)"
	[ "$2" = 0 ] || grep -q '^FAIL ' "$1" || count 0 1 0
}

# lines_of LOG COMMAND...: runs it, and counts what it prints, which LOG keeps.
lines_of() {
	local code=0
	"${@:2}" | tee "$1" || code=$?
	count_lines "$1" $code
}

# What the emulated GPU can show and takes too long for every day: all cases in six orders, in both builds and for three families of GPUs; that each
# mutant of the kernels is noticed; clusters on it; and the script for real GPUs. Not among the tests that run without a name: it takes half an hour.
test_emu() {
	local directory log code=0
	directory=$(build_directory release)
	log=$directory/test-emu
	if ! (build release); then
		say "the preset 'release' does not compile"
		count 0 1 0
		return
	fi
	lines_of "$log-orders.log" "$ROOT/tests/cuda/orders.py" "$directory"

	"$ROOT/tests/cuda/mutants.py" "$directory" | tee "$log-mutants.log" || code=$?
	count "$(grep -cE ' (fast|checking)  ' "$log-mutants.log" || true)" "$(grep -c 'NOT NOTICED$' "$log-mutants.log" || true)" 0
	[ $code = 0 ] || grep -q 'NOT NOTICED$' "$log-mutants.log" || count 0 1 0

	# With PyPI's cuobjdump, where it can be had: the table of docs/GPU.md.
	(make_venv tests/cuda) || true
	PATH=$(echo "$VENV"/lib/python3*/site-packages/nvidia/cu*/bin):$PATH lines_of "$log-code.log" "$ROOT/tests/cuda/machine_code.py" "$directory"

	choose_python
	rm -f "$directory/junit-emu.xml"
	# shellcheck disable=SC2046  # names of files without spaces
	(cd "$ROOT" && CADRE_TEST_ALL=1 CADRE_BIN=$directory/bin "$PYTHON" -m pytest -q -p no:cacheprovider -n 2 --junitxml "$directory/junit-emu.xml" \
		$(grep -l "'emu" tests/cluster/test_*.py)) || true
	count_junit "$directory/junit-emu.xml"

	lines_of "$log-gpu.log" "$ROOT/tests/gpu/run.sh" --device emu "$directory/gpu-results"
}

# What a GPU has to show, see tests/gpu/run.sh. Not among the tests that run without a name; without a GPU, each is skipped by name.
test_gpu() {
	local directory
	directory=$(build_directory release)
	if ! (build release); then
		say "the preset 'release' does not compile"
		count 0 1 0
		return
	fi
	lines_of "$directory/test-gpu.log" "$ROOT/tests/gpu/run.sh" "$directory/gpu-results"
}

# fuzz_one FUZZER: for a few seconds, from its seeds where it has any: tests/fuzz/corpus/NAME. Its log is corpus/NAME.log.
fuzz_one() {
	local name directory corpus
	local -a seeds=()
	name=$(basename "$1")
	directory=$(build_directory fuzz)
	corpus=$directory/corpus/$name
	mkdir -p "$corpus"
	[ ! -d "$ROOT/tests/fuzz/corpus/$name" ] || seeds=("$ROOT/tests/fuzz/corpus/$name")
	cd "$directory" || exit 1
	exec "$1" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$directory/" "$corpus" "${seeds[@]}" >"$corpus.log" 2>&1
}

# reap PID FUZZER: waits for one, and counts it.
reap() {
	if wait "$1"; then
		count 1 0 0
	else
		tail -n 40 "$(build_directory fuzz)/corpus/$2.log" >&2
		say "$2 failed; the input is in $(build_directory fuzz), the log in corpus/$2.log there"
		count 0 1 0
	fi
}

# As many fuzzers at once as there are cores; all take the same time, so the oldest ends first.
test_fuzz() {
	local fuzzer
	local -a running=()
	if ! (build fuzz fuzzers); then
		say "the fuzzers do not compile"
		count 0 1 0
		return
	fi
	for fuzzer in "$(build_directory fuzz)"/fuzz/fuzz_*; do
		[ -f "$fuzzer" ] || continue
		[ ${#running[@]} -lt $((2 * $(cores))) ] || {
			reap "${running[@]:0:2}"
			running=("${running[@]:2}")
		}
		say "$(basename "$fuzzer") for $FUZZ_SECONDS s"
		fuzz_one "$fuzzer" &
		running+=($! "$(basename "$fuzzer")")
	done
	while [ ${#running[@]} -gt 0 ]; do
		reap "${running[@]:0:2}"
		running=("${running[@]:2}")
	done
}

run_tests() {
	local kind
	case ${1:-} in   # these have arguments of their own, and end with a table; who compiles something installs what that takes
		faults | moves | attempts | deploy)
			[ "$1" != attempts ] || [ $# = 1 ] || fail_usage "test attempts takes no arguments"
			install_packages "${TEST_PACKAGES[@]}"
			"test_$1" "${@:2}"
			return
			;;
	esac
	[ $# -gt 0 ] || set -- unit asan tsan clang cluster tokenizers planners kubernetes fuzz
	for kind in "$@"; do
		case $kind in
			unit | asan | tsan | clang | cluster | cluster-asan | late | package | tokenizers | checkpoints | planners | kubernetes | fuzz | emu | gpu) ;;
			faults | moves | attempts | deploy) fail_usage "'$kind' runs by itself: ./cadre test $kind" ;;
			*) fail_usage "there are no tests called '$kind': unit, asan, tsan, clang, cluster, cluster-asan, late, package, tokenizers, checkpoints, planners, kubernetes, fuzz, emu, gpu; and by themselves faults, moves, attempts, deploy" ;;
		esac
	done
	install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
	for kind in "$@"; do "test_${kind//-/_}"; done
	echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
	[ "$FAILED" = 0 ]
}
