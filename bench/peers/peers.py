#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cadre beside other engines on the same weights, in turn, in one run; bench/peers.sh prepares what this needs.

usage: peers.py WORK [--only ROW ...] [--peers NAME ...] [--rounds 3] [--json FILE]

WORK has `model` (a checkpoint), its q8_0.gguf and q4_0.gguf, the virtual environments `llama` and `vllm`, and `missing`: a line for each peer that could not be had. In a row, all
engines have loaded the weights and wait; then each works once a round. Medians over the rounds, with the lowest and the highest. The machine's limits are probed before each turn
of Cadre. CADRE_PEERS may name a folder with llama-batched-bench of another build: that is the peer 'build'.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
BUILD = ROOT / 'build'
REST_SECONDS = 0.5  # until threads of the engine before have gone to sleep


@dataclass
class Row:
    name: str
    kind: str           # decode, prefill or first
    size: int           # sequences, or tokens
    bits: int           # of weights
    context: int = 16
    options: tuple = () # of Cadre
    packed: bool = False  # Cadre reads a packed model, as peers read theirs


ROWS = [
    Row('decode-1', 'decode', 1, 8),
    Row('decode-4', 'decode', 4, 8),
    Row('decode-16', 'decode', 16, 8),
    Row('decode-32', 'decode', 32, 8),
    Row('decode-1-int4', 'decode', 1, 4),
    Row('decode-1-int4-router8', 'decode', 1, 4, options=('--router-numerics', 'int8')),
    Row('prefill-512', 'prefill', 512, 8),
    Row('prefill-2048', 'prefill', 2048, 8),
    Row('prefill-8192', 'prefill', 8192, 8),
    Row('decode-1-at-8192', 'decode', 1, 8, context=8192, options=('--kv', 'bf16')),
    Row('first-token', 'first', 1, 8),
    Row('first-token-packed', 'first', 1, 8, packed=True),
    Row('first-token-packed-int4', 'first', 1, 4, packed=True),
]


def what(row):
    """The arguments that bench programs of peers share."""
    if row.kind == 'first':
        return ['--first']
    return ['--prefill', row.size] if row.kind == 'prefill' else ['--decode', row.size, '--context', row.context]


class Waiting:
    """A process that says "ready", and answers each line with one."""

    def __init__(self, command):
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := self.process.stdout.readline()) != 'ready\n':
            assert line, f'{command[0]} ended before it was ready'

    def turn(self):
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        return [float(field) for field in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Once:
    """A process for each turn, which is measured from outside: [seconds, bytes]."""

    def __init__(self, command):
        self.command = [str(c) for c in command]

    def turn(self):
        began = time.monotonic()
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f'{self.command} failed'
        return [time.monotonic() - began, usage.ru_maxrss * 1024]

    def close(self):
        pass


class Telling(Once):
    """A process for each turn, whose last line is [seconds, bytes]: without the time that Python takes to start."""

    def turn(self):
        out = subprocess.run(self.command, stdout=subprocess.PIPE, text=True, check=True).stdout
        return [float(field) for field in out.splitlines()[-1].split()]


class Build(Once):
    """llama-batched-bench of a folder, a process for each turn."""

    def __init__(self, folder, file, row, threads):
        prompt, sequences = (row.size, 1) if row.kind == 'prefill' else (row.context, row.size)
        super().__init__([pathlib.Path(folder) / 'llama-batched-bench', '-m', file, '-c', sequences * (prompt + 64), '-b', 2048, '-ub', 512, '-npp', prompt, '-ntg', 24, '-npl', sequences,
                          '-t', threads, '--output-format', 'jsonl'])
        self.field = 'speed_pp' if row.kind == 'prefill' else 'speed_tg'

    def turn(self):
        out = subprocess.run(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        return [json.loads([line for line in out.splitlines() if line.startswith('{')][-1])[self.field]]


def model(work, row):
    """Packed once, and kept."""
    if not row.packed:
        return work / 'model'
    packed = work / f'model-int{row.bits}'
    if not packed.exists():
        subprocess.run([BUILD / 'bin' / 'cadrectl', 'model', 'pack', work / 'model', packed, '--numerics', f'int{row.bits}'], check=True, stderr=subprocess.DEVNULL)
    return packed


def cadre(work, row, rounds, threads):
    common = ['--model', model(work, row), '--numerics', f'int{row.bits}', *row.options, '--threads', threads]
    if row.kind == 'first':
        return Once([BUILD / 'bin' / 'cadrectl', 'generate', *common, '--tokens', ','.join(map(str, range(1, 17))), '--max-tokens', 1, '--ignore-eos', '--format', 'json'])
    mode = ['--mode', 'prefill', '--prompt', row.size] if row.kind == 'prefill' else ['--mode', 'decode', '--sequences', row.size, '--context', row.context]
    return Waiting([BUILD / 'bench' / 'bench_engine', *common, *mode, '--repeats', rounds, '--lockstep'])


def peer(name, work, row, threads):
    """None: it does not do this row."""
    python = work / ('vllm' if name == 'vllm' else 'llama') / 'bin' / 'python'
    kind = Telling if row.kind == 'first' else Waiting
    if name == 'vllm':  # whose 8-bit weights would need a checkpoint of another form
        return kind([python, HERE / 'vllm_cpu.py', work / 'model', *what(row), '--threads', threads]) if row.bits == 8 else None
    file = work / f'q{row.bits}_0.gguf'
    if name == 'build':
        return Build(os.environ['CADRE_PEERS'], file, row, threads) if row.kind != 'first' else None
    return kind([python, HERE / 'llama.py', name, file, *what(row), '--threads', threads])


def measure(row, names, work, rounds, threads):
    """{engine: [what each turn gave]}"""
    engines = {}
    try:
        engines['cadre'] = cadre(work, row, rounds, threads)
        for name in names:
            engine = peer(name, work, row, threads)
            if engine:
                engines[name] = engine
        turns = {name: [] for name in engines}
        for _ in range(rounds):
            for name, engine in engines.items():
                time.sleep(REST_SECONDS)
                turns[name].append(engine.turn())
        return turns
    finally:
        for engine in engines.values():
            engine.close()


def column(turns, i):
    return [turn[i] for turn in turns]


def middle(values):
    return statistics.median(values)


def cell(values, places):
    return f'{middle(values):.{places}f} ({min(values):.{places}f} to {max(values):.{places}f})'


def ratio(row, turns):
    """Cadre over the best peer: above 1 is ahead, of rates and of times alike."""
    ours, peers = middle(column(turns['cadre'], 0)), [middle(column(t, 0)) for name, t in turns.items() if name != 'cadre']
    if not peers:
        return '-'
    return f'{min(peers) / ours:.2f}' if row.kind == 'first' else f'{ours / max(peers):.2f}'


def line(row, turns, names):
    """A line of the table."""
    if row.kind == 'first':
        def show(t):
            return f'{middle(column(t, 0)):.2f} s, {max(column(t, 1)) / 1e9:.2f} GB'
        limit, probes = '', ''
    else:
        def show(t):
            return cell(column(t, 0), 1)
        ours = turns['cadre']
        limit = f'{middle(column(ours, 1)):.0f}'
        probes = f'{middle(column(ours, 2)):.0f} GB/s, {middle(column(ours, 3)):.0f}, {middle(column(ours, 4)):.0f}'
    cells = [show(turns[name]) if name in turns else '' for name in ('cadre', *names)]
    return '| ' + ' | '.join([row.name, probes, limit, *cells, ratio(row, turns)]) + ' |'


def processor():
    for text in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
        if text.startswith('model name'):
            return f'{text.split(":")[1].strip()}, {os.cpu_count()} cores'
    return platform.machine()


def had(work):
    names = [name for name, module in (('llama_cpp', 'llama'), ('ik_llama_cpp', 'llama'), ('vllm', 'vllm'))
             if subprocess.run([work / module / 'bin' / 'python', '-c', f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{name}') is None)"], check=False).returncode == 0
             ] if (work / 'llama').exists() else []
    return names + ['build'] * ('CADRE_PEERS' in os.environ)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=pathlib.Path)
    parser.add_argument('--only', nargs='+', choices=[row.name for row in ROWS], help='rows')
    parser.add_argument('--peers', nargs='*', choices=('llama_cpp', 'ik_llama_cpp', 'vllm', 'build'), help='default: all that are there')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument('--json', type=pathlib.Path)
    a = parser.parse_args()
    names = had(a.work) if a.peers is None else a.peers
    results = {'processor': processor(), 'rounds': a.rounds, 'threads': a.threads, 'missing': (a.work / 'missing').read_text().splitlines() if (a.work / 'missing').exists() else [], 'rows': {}}
    print(f'{results["processor"]}, {a.threads} threads, {a.rounds} rounds. Tokens per second, or seconds from start to first token and most memory; ratio: Cadre over the best peer.')
    for text in results['missing']:
        print(f'Not had: {text}')
    print(f"\n| row | read, FMA (GFLOP/s), 8 bits (GOP/s) | limit | Cadre | {' | '.join(names)} | ratio |\n|{'---|' * (len(names) + 5)}", flush=True)
    for row in ROWS:
        if not a.only or row.name in a.only:
            turns = measure(row, names, a.work, a.rounds, a.threads)
            results['rows'][row.name] = turns
            print(line(row, turns, names), flush=True)
            if a.json:
                a.json.write_text(json.dumps(results, indent=1) + '\n')


if __name__ == '__main__':
    sys.exit(main())
