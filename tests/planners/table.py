#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A table of planners: each plans on the first half of a trace, and is measured on the second.

    table.py --out bench/results/planners.csv [--cadrectl build/bin/cadrectl] [--shapes r1 ...] [--planners cadre spectral ...] [--nodes 4 8 32] [--copies 0 0.125 0.25]
    table.py --trace RECORDED.ctr --out ...
    table.py --summary --out bench/results/planners.csv

Rows that are in the file already are not computed again. The summary says, for every trace, number of nodes and share of copies, which planner has the fewest nodes a
token among those whose load is at most 1.10 (or at most the lowest load that anyone reaches), and where Cadre stands.
"""
import argparse
import contextlib
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import baselines
import measure

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOAD_LIMIT = 1.10

# Shapes and seeds apart from those that the planner was tuned on. `best`: the generator knows a best placement.
COMMON = '--tasks 10 --task-skew 1.2 --locality 0.5'
SHAPES = {
    'r1': f'--experts 256 --top-k 8 --groups 8 --groups-kept 4 --communities 32 --strength 0.15 --zipf 0.55 --zipf-of-layer --drift 0.4 --seed 1011 {COMMON}',
    'qwen3': f'--experts 128 --top-k 8 --communities 64 --strength 0.15 --zipf 0.65 --zipf-of-layer --drift 0.3 --seed 1012 {COMMON}',
    'weak': f'--experts 256 --top-k 8 --communities 64 --strength 0.35 --zipf 0.4 --seed 1013 {COMMON}',
    'strong': f'--experts 128 --top-k 8 --communities 32 --strength 0.9 --zipf 0.6 --seed 1014 {COMMON}',
    'small': f'--experts 32 --top-k 4 --communities 16 --strength 0.25 --zipf 0.6 --zipf-of-layer --drift 0.2 --seed 1015 {COMMON}',
    'drift': f'--experts 64 --top-k 6 --communities 32 --strength 0.4 --zipf 0.5 --drift 0.7 --seed 1016 {COMMON}',
    'hot': f'--experts 160 --top-k 6 --groups 8 --groups-kept 3 --communities 32 --strength 0.3 --zipf 1.0 --zipf-of-layer --drift 0.2 --seed 1017 {COMMON}',
}
PLANTED = ('weak', 'strong')
FIELDS = ('trace', 'experts', 'top_k', 'nodes', 'copies', 'planner', 'policy', 'nodes_per_token', 'nodes_p99', 'nodes_per_token_worst_layer', 'bytes_per_token_layer', 'load_mean', 'load_worst',
          'batch_load_mean', 'activated_ratio', 'activated_max', 'slots_exceeded_by', 'copies_placed', 'seconds')


class Case:
    """A trace in two halves."""

    def __init__(self, name, trace, cadrectl, folder, groups=0):
        self.name, self.folder, self.groups = name, folder, groups
        self.halves = [folder / f'{name}-{half}.ctr' for half in (1, 2)]
        run(cadrectl, 'trace', 'split', trace, '--first', self.halves[0], '--second', self.halves[1])
        self.experts = json.loads(run(cadrectl, 'trace', 'show', trace, '-o', 'json'))['experts']
        self.first, self.second = (self.read(cadrectl, half) for half in self.halves)
        self.layers = {}             # nodes -> [baselines.Layer]

    def read(self, cadrectl, path):
        text = path.with_suffix('.csv')
        run(cadrectl, 'trace', 'export', path, '--output', text)
        return measure.Trace.read_csv(text, self.experts)

    def baseline(self, planner, nodes, copies):
        if nodes not in self.layers:
            self.layers[nodes] = [baselines.Layer(ids, self.experts, nodes, self.groups) for ids in self.first.ids]
        planned = [baselines.plan(planner, layer, copies) for layer in self.layers[nodes]]
        return {'nodes': nodes, 'slots_per_node': baselines.slots_for(self.experts, nodes, copies)[0],
                'layers': {str(name): {str(expert): held for expert, held in layer.items()} for name, layer in zip(self.first.layers, planned)}}


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def plan_command(case, cadrectl, nodes, copies, options):
    slots, _ = baselines.slots_for(case.experts, nodes, copies)
    return [str(part) for part in (cadrectl, 'plan', '--trace', case.halves[0], '--nodes', nodes, '--slots-per-node', slots, '--copies', f'{copies:.1%}', '-o', 'json', *options)]


def cadre_plan(case, cadrectl, nodes, copies, options):
    return json.loads(run(*plan_command(case, cadrectl, nodes, copies, options)))


def generated(shape, arguments, folder):
    trace = folder / f'{shape}.ctr'
    run(arguments.cadrectl, 'trace', 'generate', '--output', trace, '--layers', arguments.layers, '--tokens', arguments.tokens, *SHAPES[shape].split())
    words = SHAPES[shape].split()
    return Case(shape, trace, arguments.cadrectl, folder, int(words[words.index('--groups') + 1]) if '--groups' in words else 0)


def planted(shape, arguments, folder, nodes):
    """The placement that was planted, or None."""
    if shape not in PLANTED:
        return None
    best = folder / f'{shape}-{nodes}.json'
    run(arguments.cadrectl, 'trace', 'generate', '--output', folder / 'again.ctr', '--layers', arguments.layers, '--tokens', arguments.tokens, *SHAPES[shape].split(), '--best', best, '--nodes', nodes)
    return json.loads(best.read_text())


def policies(planner):
    return ('cover', 'even') if planner == 'eplb' else ('cover', 'guard') if planner == 'cadre' else ('cover',)


def fill(arguments, case, rows, add, best):
    for nodes in arguments.nodes:
        for copies in arguments.copies:
            for planner in arguments.planners:
                missing = [policy for policy in policies(planner) if (case.name, str(nodes), f'{copies:g}', planner, policy) not in rows]
                if not missing or (planner == 'planted' and copies):
                    continue
                began = time.monotonic()
                if planner == 'cadre':
                    placement = cadre_plan(case, arguments.cadrectl, nodes, copies, arguments.plan_options.split())
                elif planner == 'planted':
                    placement = best(nodes)
                else:
                    placement = case.baseline(planner, nodes, copies)
                seconds = time.monotonic() - began
                for policy in missing if placement else ():
                    found = measure.measure(case.second, placement, policy)
                    found['copies_placed'] = found.pop('copies')
                    add({'trace': case.name, 'experts': case.experts, 'top_k': case.second.ids.shape[2], 'nodes': nodes, 'copies': f'{copies:g}', 'planner': planner, 'policy': policy,
                         'seconds': f'{seconds:.2f}', **{name: f'{found[name]:.4f}' for name in FIELDS if name in found}})


@contextlib.contextmanager
def rows_in(path, fields, key):
    """A CSV file that is added to. -> the keys (tuples of the fields `key`) of rows that are in it already, and a function that adds one"""
    path = pathlib.Path(path)
    known = set()
    if path.exists():
        with path.open(encoding='utf-8') as file:
            known = {tuple(row[name] for name in key) for row in csv.DictReader(file)}
    with path.open('a', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, fields, lineterminator='\n')
        if path.stat().st_size == 0:
            writer.writeheader()

        def add(row):
            writer.writerow(row)
            file.flush()
            print(*row.values(), file=sys.stderr)

        yield known, add


def number(row, name):
    return float(row[name])


def compare(cell):
    """Rows of one trace, number of nodes and share of copies. -> the best of the others, ours, whether ours is not behind"""
    limit = max(LOAD_LIMIT, min(number(row, 'load_mean') for row in cell)) + 5e-4
    fit = sorted((row for row in cell if number(row, 'load_mean') <= limit), key=lambda row: number(row, 'nodes_per_token'))
    other = next((row for row in fit if row['planner'] != 'cadre'), None)
    ours = next((row for row in fit if row['planner'] == 'cadre'), None)
    ahead = ours and (not other or number(ours, 'nodes_per_token') <= number(other, 'nodes_per_token') + 5e-5)
    return other, ours or next((row for row in cell if row['planner'] == 'cadre'), None), ahead


def summary(path):
    with open(path, encoding='utf-8') as file:
        rows = [row for row in csv.DictReader(file) if number(row, 'slots_exceeded_by') == 0]
    cells = {}
    for row in rows:
        cells.setdefault((row['trace'], row['nodes'], row['copies']), []).append(row)
    behind = 0
    print(f'{"trace":8} {"nodes":>5} {"copies":>6}   {"best of the others":26} {"nodes/token":>11} {"load":>6}   {"cadre":>11} {"load":>6}')
    for key, cell in cells.items():
        other, ours, ahead = compare([row for row in cell if row['planner'] != 'planted'])
        behind += not ahead
        left = f'{other["planner"] + " " + other["policy"]:26} {other["nodes_per_token"]:>11} {other["load_mean"]:>6}' if other else f'{"nobody":26} {"":>11} {"":>6}'
        right = f'{ours["nodes_per_token"]:>11} {ours["load_mean"]:>6} {ours["policy"]:5}' if ours else f'{"":25}'
        print(f'{key[0]:8} {key[1]:>5} {key[2]:>6}   {left}   {right} {"" if ahead else "behind"}')
    print(f'load at most {LOAD_LIMIT}, or the lowest that anyone reaches; behind in {behind} of {len(cells)} cells\n')
    for key, cell in cells.items():
        best = {row['planner']: row for row in cell if row['policy'] == 'cover'}
        if 'planted' in best and 'cadre' in best:
            more = number(best['cadre'], 'nodes_per_token') / number(best['planted'], 'nodes_per_token') - 1
            print(f'{key[0]:8} {key[1]:>5} nodes: planted {best["planted"]["nodes_per_token"]} at load {best["planted"]["load_mean"]}, cadre {more:+.2%} at {best["cadre"]["load_mean"]}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True)
    parser.add_argument('--cadrectl', default=ROOT / 'build' / 'bin' / 'cadrectl')
    parser.add_argument('--shapes', nargs='+', choices=SHAPES, default=list(SHAPES))
    parser.add_argument('--trace', help='a recorded trace instead of the shapes')
    parser.add_argument('--planners', nargs='+', default=['planted', *baselines.GROUPINGS, *baselines.BALANCERS, 'cadre'])
    parser.add_argument('--nodes', nargs='+', type=int, default=[4, 8, 32])
    parser.add_argument('--copies', nargs='+', type=float, default=[0, 0.125, 0.25])
    parser.add_argument('--layers', type=int, default=3)
    parser.add_argument('--tokens', type=int, default=40000)
    parser.add_argument('--plan-options', default='', help='for cadrectl plan, in one word')
    parser.add_argument('--summary', action='store_true', help='only read the file and say who is ahead')
    arguments = parser.parse_args()
    if not arguments.summary:
        key = ('trace', 'nodes', 'copies', 'planner', 'policy')
        with rows_in(arguments.out, FIELDS, key) as (rows, add), tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            if arguments.trace:
                fill(arguments, Case(pathlib.Path(arguments.trace).stem, arguments.trace, arguments.cadrectl, folder), rows, add, lambda nodes: None)
            for shape in [] if arguments.trace else arguments.shapes:
                fill(arguments, generated(shape, arguments, folder), rows, add, lambda nodes, shape=shape: planted(shape, arguments, folder, nodes))
    summary(arguments.out)


if __name__ == '__main__':
    main()
