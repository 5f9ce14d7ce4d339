#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what the tables of docs/PERFORMANCE.md say, and prints their rows as they stand there: the part of its limit that each operator and each stage of a step reaches.

usage: performance.py [operators] [attention] [step] [--model DIR] [--repeats 7]
Without names: all three. The model of `step` is tests/tools/make_checkpoint.py's 1b, written into a temporary folder unless --model names it. The tables beside
other engines are bench/peers.sh's.
"""
import argparse
import csv
import os
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
BENCH = ROOT / 'build' / 'bench'
WEIGHTS = {'f32': ' bf16', 'int8': ' bf16 to int8', 'int4': ' bf16 to int4'}
KEYS = {'f32': ' f32', 'bf16': ' f32 kv bf16', 'int8': ' f32 kv int8'}
OPERATORS = [(f'linear, {rows} row{"s" * (rows > 1)}', f'linear rows {rows} ') for rows in (1, 4, 8, 16, 32, 512)] + [
    ('ffn, 1 row, top 8 of 64', 'ffn rows 1 '), ('ffn, 16 rows', 'ffn rows 16 '), ('ffn, 512 rows', 'ffn rows 512 ')]
OTHERS = [('rmsnorm, 512 rows', 'rmsnorm rows 512 n 2048'), ('unpacking rows from the wire', 'rows_unpack'), ('packing rows for the wire', 'rows_pack'), ('combine: pack', 'combine_pack'),
          ('combine: add', 'combine_add'), ('combine: finish', 'combine_finish'), ('rope', 'rope rows'), ('gate', 'gate'), ('residual add', 'add')]
ATTENTION = [('decode, 8,192 keys, no heads share', 'attend rows 1 .* heads 16 .* keys 8192'), ('decode, 8,192 keys, 8 heads share', 'attend rows 1 .* heads 32 .* keys 8192'),
             ('decode, 16 sequences of 2,048 keys', 'attend rows 16 .* heads 16 .* keys 2048'), ('prefill, 512 rows, 512 keys', 'attend rows 512 .* keys 512'),
             ('prefill, 512 rows, 2,048 keys', 'attend rows 512 .* keys 2048'), ('prefill, 512 rows, 8,192 keys, 8 heads share', 'attend rows 512 .* keys 8192')]


def kernels(text, repeats):
    """Rows of bench_kernels whose description contains the text, in the best form."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([BENCH / 'bench_kernels', '--filter', text, '--threads', str(os.cpu_count()), '--repeats', str(repeats), '--csv', directory], check=True, stdout=subprocess.DEVNULL)
        rows = list(csv.DictReader(next(pathlib.Path(directory).glob('*.csv')).open()))
    return [row for row in rows if row['form'] == rows[-1]['form']]


def ratio(rows, pattern, ending):
    """Of the largest operator that fits."""
    fitting = [row for row in rows if re.match(pattern, row['case']) and row['case'].endswith(ending)]
    return f"{float(max(fitting, key=lambda row: float(row['gbs']) * float(row['us']))['ratio']):.2f}" if fitting else ''


def operators(a):
    rows = kernels('linear', a.repeats) + kernels('ffn', a.repeats)
    print('| operator | f32 | int8 | int4 |\n|---|---|---|---|')
    for name, pattern in OPERATORS:
        print(f'| {name} | ' + ' | '.join(ratio(rows, pattern, ending) for ending in WEIGHTS.values()) + ' |')
    for name, pattern in OTHERS:
        print(f'| {name} | {ratio(kernels(pattern, a.repeats), pattern, "")} | | |', flush=True)


def attention(a):
    rows = kernels('attend', a.repeats)
    print('| attention | KV f32 | KV bf16 | KV int8 |\n|---|---|---|---|')
    for name, pattern in ATTENTION:
        print(f'| {name} | ' + ' | '.join(ratio(rows, pattern + '.*', ending) for ending in KEYS.values()) + ' |')


def step_of(model, numerics, repeats):
    out = subprocess.run([BENCH / 'bench_engine', '--model', model, '--numerics', numerics, '--repeats', str(repeats)], check=True, stdout=subprocess.PIPE, text=True).stdout
    for mode in re.split(r'\n(?=\w)', out)[1:]:
        name, rate, limit, read = re.match(r'(\w+(?: x\d+)?) +([\d.]+) .*limit ([\d.]+) +read ([\d.]+)', mode).groups()
        stages = {stage: f'{float(value):.2f}' for stage, value in re.findall(r'\n +(\w+) .*ratio ([\d.]+)', mode)}
        yield f"| {numerics}, {name} | {float(rate):.0f} | {float(rate) / float(limit):.2f} | {' | '.join(stages.get(s, '') for s in ('attention', 'experts', 'head'))} | {float(read):.0f} GB/s |"


def step(a):
    print('| 1 B model | tokens/s | of the limit | attention | experts | head | read rate |\n|---|---|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as directory:
        if not a.model:
            subprocess.run([ROOT / 'tests' / 'tools' / 'make_checkpoint.py', directory, '--shape', '1b'], check=True, stdout=subprocess.DEVNULL)
        for numerics in ('f32', 'int8', 'int4'):
            for line in step_of(a.model or directory, numerics, a.repeats):
                print(line, flush=True)


TABLES = {'operators': operators, 'attention': attention, 'step': step}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tables', nargs='*', choices=[*TABLES, []], default=[])
    parser.add_argument('--model')
    parser.add_argument('--repeats', type=int, default=7)
    a = parser.parse_args()
    for name, table in TABLES.items():
        if not a.tables or name in a.tables:
            table(a)
            print(flush=True)


if __name__ == '__main__':
    main()
