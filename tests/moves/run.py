# SPDX-License-Identifier: Apache-2.0
"""Produces the table of moves: what users notice while experts move, under open-loop load.

    ./cadre test moves [ROW ...] [--model DIR] [--repeat N] [--json FILE]      ROW may be a pattern: 'kill-*'
    ./cadre test moves --list
"""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'faults'), str(HERE.parent / 'cluster')]
sys.dont_write_bytecode = True

import moving  # noqa: E402
import paired  # noqa: E402
import table  # noqa: E402
from world import MODEL  # noqa: E402


def main():
    parser = table.parser(__doc__, repeat=3)
    parser.add_argument('--model', type=pathlib.Path, default=MODEL, help='checkpoint whose experts move (default models/demo)')
    parser.add_argument('--tokens', type=int, default=100, help='tokens of an answer (default 100)')
    parser.add_argument('--period', type=float, default=0.2, metavar='SECONDS', help='time from one request to the next (default 0.2)')
    parser.add_argument('--window', type=float, default=10, metavar='SECONDS', help='how long users are watched before and after (default 10)')
    a = parser.parse_args()
    if a.list:
        return table.print_list(moving.ROWS)
    wanted, flow = table.chosen(moving.ROWS, a.rows), paired.Flow(a.model, a.tokens, a.period)
    report = paired.MoveReport(flow, a.window)
    return table.produce(wanted, report, lambda row: report.add(row, [paired.measure(row, flow, a.window) for _ in range(a.repeat)]), a.json)


if __name__ == '__main__':
    sys.exit(main())
