#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a checkpoint on held-out text in each numerics profile: bits per byte over all domains, and how many more than in f32.

usage: profiles.py DIR --heldout DIR --cadrectl PATH
"""
import argparse
import json
import pathlib

import heldout

SETTINGS = [[], ['--kv', 'bf16'], ['--kv', 'int8'], ['--numerics', 'bf16'], ['--numerics', 'int8', '--router-numerics', 'f32'], ['--numerics', 'int8'],
            ['--numerics', 'int4', '--router-numerics', 'f32'], ['--numerics', 'int4', '--router-numerics', 'int8'], ['--numerics', 'int4']]


def bits_per_byte(run, model, directory, experts):
    parts = [heldout.measure(run, model, directory / f'{domain}.txt', experts)[0] for domain in heldout.domains(directory)]
    return sum(p['bits_per_byte'] * p['bytes'] for p in parts) / sum(p['bytes'] for p in parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=pathlib.Path)
    parser.add_argument('--heldout', type=pathlib.Path, required=True)
    parser.add_argument('--cadrectl', required=True)
    a = parser.parse_args()
    experts = json.loads((a.model / 'config.json').read_text())['num_experts']
    print('| settings | bits per byte | more than f32 |\n|---|---|---|')
    exact = None
    for options in SETTINGS:
        bits = bits_per_byte(heldout.by_cadre(a.model, a.cadrectl, *options), a.model, a.heldout, experts)
        exact = exact or bits
        print(f"| {' '.join(options) or 'f32'} | {bits:.4f} | {bits / exact - 1:.2%} |", flush=True)


if __name__ == '__main__':
    main()
