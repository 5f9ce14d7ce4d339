#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of a model on its held-out text, by llama.cpp or ik_llama.cpp: what models/train/profiles.py says of Cadre.

usage: quality.py llama_cpp|ik_llama_cpp DIR FILE.gguf ... --heldout DIR [--threads N]
DIR is the checkpoint that the files were made of: its tokenizer makes the tokens. The first file is what the others are compared with.
"""
import argparse
import pathlib
import sys

import llama
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'models' / 'train'))
import heldout  # noqa: E402


def bits_per_byte(engine, model, directory):
    bits, size = 0.0, 0
    for domain in heldout.domains(directory):
        windows, of_domain = heldout.sequences(model, directory / f'{domain}.txt')
        size += of_domain
        for ids in windows:
            engine.decode(ids, range(len(ids)), [0] * len(ids), range(len(ids)))
            bits += heldout.bits(numpy.stack([engine.logits(i) for i in range(len(ids))]), ids)
            engine.forget(0, 0)
    return bits / size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('engine', choices=('llama_cpp', 'ik_llama_cpp'))
    parser.add_argument('model', type=pathlib.Path)
    parser.add_argument('files', type=pathlib.Path, nargs='+')
    parser.add_argument('--heldout', type=pathlib.Path, required=True)
    parser.add_argument('--threads', type=int, default=2)
    a = parser.parse_args()
    print('| weights | bits per byte | more than the first |\n|---|---|---|')
    exact = None
    for path in a.files:
        bits = bits_per_byte(llama.Engine(a.engine, path, a.threads, heldout.LENGTH, 1), a.model, a.heldout)
        exact = exact or bits
        print(f'| {path.stem} | {bits:.4f} | {bits / exact - 1:.2%} |', flush=True)


if __name__ == '__main__':
    main()
