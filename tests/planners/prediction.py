#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How good predictions are: `cadrectl plan` plans on the first half of a trace, of which it holds the last tenth out to predict from; measure.py measures the plan on the second half.

    prediction.py --out bench/results/prediction.csv [--cadrectl build/bin/cadrectl] [--shapes still ...] [--tokens 2500 10000 20000] [--nodes 4 8 32] [--copies 0 0.125 0.25]
    prediction.py --summary --out bench/results/prediction.csv

In the file: what the plan has on the tokens that it was made for (trained), on those held out (held), and on the second half (measured); of load, what it says is to be expected.
Rows that are in the file already are not computed again. Plans are made by a number of rounds, so that the figures do not depend on the machine.
"""
import argparse
import csv
import pathlib
import sys
import tempfile

import measure
import table

# Two without drift, the second of which comes again with drift, and one with much of it.
COMMON = '--experts 128 --top-k 8 --communities 32 --tasks 10 --locality 0.5 --request-tokens 64'
SHAPES = {
    'even': f'--strength 0.4 --zipf 0.4 --task-skew 0.5 --seed 3011 {COMMON}',
    'still': f'--strength 0.2 --zipf 0.6 --zipf-of-layer --task-skew 1.2 --seed 3012 {COMMON}',
    'drift-0.3': f'--strength 0.2 --zipf 0.6 --zipf-of-layer --task-skew 1.2 --drift 0.3 --seed 3012 {COMMON}',
    'drift-0.7': f'--strength 0.4 --zipf 0.5 --task-skew 1.2 --drift 0.7 --seed 3013 {COMMON}',
}
FIGURES = {'nodes': 'nodes_per_token', 'bytes': 'bytes_per_token_layer', 'load': 'load_mean'}
FIELDS = ('trace', 'tokens', 'nodes', 'copies', *(f'{figure}_{what}' for figure in FIGURES for what in ('trained', 'held', 'measured')), 'load_expected')
PREDICTIONS = {'nodes': 'nodes_held', 'bytes': 'bytes_held', 'load': 'load_expected', 'load, held': 'load_held'}
LIMIT = 0.02


def rows_of(arguments, shape, tokens, folder, known):
    wanted = [(nodes, copies) for nodes in arguments.nodes for copies in arguments.copies if (shape, str(tokens), str(nodes), f'{copies:g}') not in known]
    if not wanted:
        return
    trace = folder / f'{shape}-{tokens}.ctr'
    table.run(arguments.cadrectl, 'trace', 'generate', '--output', trace, '--layers', arguments.layers, '--tokens', 2 * tokens, *SHAPES[shape].split())
    case = table.Case(trace.stem, trace, arguments.cadrectl, folder)
    for nodes, copies in wanted:
        plan = table.cadre_plan(case, arguments.cadrectl, nodes, copies, ['--rounds', arguments.rounds, '--time-limit', '10h'])
        found = measure.measure(case.second, plan)
        row = {'trace': shape, 'tokens': tokens, 'nodes': nodes, 'copies': f'{copies:g}'}
        for figure, name in FIGURES.items():
            row |= {f'{figure}_trained': f'{plan["trained"][name]:.4f}', f'{figure}_held': f'{plan["predicted"][name]:.4f}', f'{figure}_measured': f'{found[name]:.4f}'}
        row['load_expected'] = f'{plan["expected"]["load_mean"]:.4f}'
        yield row


def off(row, name):
    """By how much a prediction is above what was measured."""
    return float(row[PREDICTIONS[name]]) / float(row[f'{name.split(",")[0]}_measured']) - 1


def summary(path):
    with open(path, encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    print('plans whose prediction is within 2 %, and the most that one is off:')
    print(f'{"trace":12} {"tokens":>8} {"plans":>6} ' + ' '.join(f'{name:>14}' for name in PREDICTIONS))
    for trace, tokens in dict.fromkeys((row['trace'], row['tokens']) for row in rows):
        group = [row for row in rows if (row['trace'], row['tokens']) == (trace, tokens)]
        cells = []
        for name in PREDICTIONS:
            errors = [off(row, name) for row in group]
            cells.append(f'{sum(abs(error) <= LIMIT for error in errors):>6} {max(errors, key=abs):>+7.1%}')
        print(f'{trace:12} {tokens:>8} {len(group):>6} ' + ' '.join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True)
    parser.add_argument('--cadrectl', default=table.ROOT / 'build' / 'bin' / 'cadrectl')
    parser.add_argument('--shapes', nargs='+', choices=SHAPES, default=list(SHAPES))
    parser.add_argument('--tokens', nargs='+', type=int, default=[2500, 10000, 20000], help='of a layer, to plan on; as many to measure on')
    parser.add_argument('--nodes', nargs='+', type=int, default=[4, 8, 32])
    parser.add_argument('--copies', nargs='+', type=float, default=[0, 0.125, 0.25])
    parser.add_argument('--layers', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=8)
    parser.add_argument('--summary', action='store_true', help='only read the file')
    arguments = parser.parse_args()
    if not arguments.summary:
        with table.rows_in(arguments.out, FIELDS, ('trace', 'tokens', 'nodes', 'copies')) as (known, add), tempfile.TemporaryDirectory() as scratch:
            for shape in arguments.shapes:
                for tokens in arguments.tokens:
                    for row in rows_of(arguments, shape, tokens, pathlib.Path(scratch), known):
                        add(row)
    summary(arguments.out)


if __name__ == '__main__':
    main()
