# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What all commands of ./cadre share. ROOT is the checkout.

say() { printf 'cadre: %s\n' "$*" >&2; }
fail() {
	say "$*"
	exit 1
}
fail_usage() {
	say "$*"
	exit 2
}

cores() { nproc; }
has_nvcc() { command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; }

# What a cluster runs, and the man pages and completion, which an installation takes along; tests and benchmarks are built only when they are asked for.
# shellcheck disable=SC2034  # used by scripts that source this one
PROGRAMS=(cadre-router cadre-expert cadre-placement cadrectl texts)

# The directory of a preset's build.
build_directory() {
	if [ "$1" = release ]; then echo "$ROOT/build"; else echo "$ROOT/build-$1"; fi
}
