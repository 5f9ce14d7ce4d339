#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What becomes of a build where nvcc is, is too old, or is not.
# usage: test_nvcc.sh CMAKE CUDA_CMAKE
set -u
CMAKE=$1 FILE=$2
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
failures=0

# nvcc TEXT: one that says that of its version
nvcc() {
	printf '#!/bin/sh\necho "%s"\n' "$1" >"$FOLDER/nvcc"
	chmod +x "$FOLDER/nvcc"
}

# expect EXIT_CODE CADRE_CUDA TEXT
expect() {
	local said ended
	said=$("$CMAKE" -DNVCC="$NVCC" -DCADRE_CUDA="$2" -DCADRE_SANITIZE= -P "$FILE" 2>&1)
	ended=$?
	said=$(xargs <<<"${said//\'/}") # in one line
	if [ $ended != "$1" ] || [[ $said != *"$3"* ]]; then
		printf '%s\n  ended with %s, not %s, and said, without "%s":\n%s\n' "$2" $ended "$1" "$3" "$said"
		failures=$((failures + 1))
	fi
}

NVCC=$FOLDER/nvcc
for version in 13.0 13.2 14.1; do
	nvcc "Cuda compilation tools, release $version, V$version.88"
	expect 0 AUTO "CUDA: found $NVCC"
	expect 0 ON "CUDA: found $NVCC"
	expect 0 OFF 'CUDA: off'
done
nvcc 'Cuda compilation tools, release 12.9, V12.9.41'
expect 0 AUTO "CUDA: $NVCC is of CUDA 12.9, and 13.0 or later is needed: the backend for GPUs is not built"
expect 1 ON "CADRE_CUDA is ON, but $NVCC is of CUDA 12.9"
expect 0 OFF 'CUDA: off'
nvcc 'something else'
expect 0 AUTO 'does not say of which CUDA it is'
expect 1 ON 'does not say of which CUDA it is'

[ $failures = 0 ]
