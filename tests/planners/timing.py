#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How good a plan is after 1, 10 and 60 seconds, beside spectral grouping, which takes as long as it takes.

    timing.py --out bench/results/plan-time-MACHINE.csv [--cadrectl build/bin/cadrectl] [--nodes 8 32 128 320] [--copies 0 0.125] [--seconds 1 10 60]

58 layers of 256 experts, 20,000 tokens to plan on and 20,000 to measure on (the shape `r1` of table.py under another seed). Seconds are of planning alone, as cadrectl says them; memory is
the whole process, with the trace. Rows that are in the file already are not computed again.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import measure
import table

SHAPE = table.SHAPES['r1'].replace('--seed 1011', '--seed 1018')
MEASURED = ('nodes_per_token', 'load_mean', 'load_worst')
FIELDS = ('nodes', 'copies', 'planner', 'limit_s', 'seconds', 'rounds', 'memory_mb', *MEASURED)


def run_plan(case, cadrectl, nodes, copies, limit):
    """-> the plan, MB at most"""
    command = table.plan_command(case, cadrectl, nodes, copies, ['--holdout', '0', '--time-limit', f'{limit}s'])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f'{command} failed')
    return json.loads(text), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True)
    parser.add_argument('--cadrectl', default=table.ROOT / 'build' / 'bin' / 'cadrectl')
    parser.add_argument('--nodes', nargs='+', type=int, default=[8, 32, 128, 320])
    parser.add_argument('--copies', nargs='+', type=float, default=[0, 0.125])
    parser.add_argument('--seconds', nargs='+', type=int, default=[1, 10, 60])
    parser.add_argument('--layers', type=int, default=58)
    parser.add_argument('--tokens', type=int, default=40000)
    arguments = parser.parse_args()
    with table.rows_in(arguments.out, FIELDS, ('nodes', 'copies', 'planner', 'limit_s')) as (known, add), tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        table.run(arguments.cadrectl, 'trace', 'generate', '--output', folder / 'big.ctr', '--layers', arguments.layers, '--tokens', arguments.tokens, *SHAPE.split())
        case = table.Case('big', folder / 'big.ctr', arguments.cadrectl, folder, 8)
        for nodes in arguments.nodes:
            for copies in arguments.copies:
                for limit in [*arguments.seconds, 0]:
                    began = time.monotonic()
                    row = {'nodes': nodes, 'copies': f'{copies:g}', 'planner': 'cadre' if limit else 'spectral', 'limit_s': limit or ''}
                    if tuple(map(str, row.values())) in known:
                        continue
                    if limit:
                        placement, memory = run_plan(case, arguments.cadrectl, nodes, copies, limit)
                        row |= {'seconds': f'{placement["seconds"]:.2f}', 'rounds': placement['rounds'], 'memory_mb': f'{memory:.0f}'}
                    else:
                        placement = case.baseline('spectral', nodes, copies)
                        row |= {'seconds': f'{time.monotonic() - began:.2f}'}
                    found = measure.measure(case.second, placement, 'cover')
                    row |= {name: f'{found[name]:.4f}' for name in MEASURED}
                    add(row)


if __name__ == '__main__':
    main()
