#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything from nothing: environment, corpus, tokenizer, training, checkpoints, measurements. Every part leaves out what is there already, and the
# training goes on where it stopped, so that the same command may be given again.
#
# usage: models/train/make.sh WORK [STEPS [DECAY]]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
models=$(dirname "$here")
[ $# -ge 1 ] || { echo "usage: $0 WORK [STEPS [DECAY]]" >&2; exit 2; }
work=$1 steps=${2:-1364} decay=${3:-280}
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ]; then
	python3 -m venv "$work/venv"
	"$work/venv/bin/pip" install -q -r "$here/requirements.txt"
fi
run() { "$work/venv/bin/python" "$here/$1.py" "${@:2}"; }
run corpus "$work" --heldout "$models/demo/heldout"
run tokenizer "$work"
run train "$work" --steps 151 --auxiliary 0.0017      # as models/demo was made: a sixth of the weight, until experts were seen to starve
run train "$work" --steps "$steps"
run train "$work" --steps "$steps" --decay "$decay"
run export "$work" "$models/demo"
run collapse "$work"
run export "$work" "$models/collapsed" --state collapsed.pt
run golden "$models/demo" --heldout "$models/demo/heldout" --output "$models/../tests/golden/qwen3moe-demo"
for name in demo collapsed; do run evaluate "$models/$name" --heldout "$models/demo/heldout" --cadrectl "$models/../build/bin/cadrectl"; done
