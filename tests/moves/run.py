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

import domains  # noqa: E402
import drift  # noqa: E402
import moves  # noqa: E402
import moving  # noqa: E402
import paired  # noqa: E402
import table  # noqa: E402
from report import Report  # noqa: E402
from world import MODEL  # noqa: E402

KINDS = {'moves': paired, 'domains': domains, 'drift': drift}   # what has a table of its own
ROWS = [*moves.ROWS, domains.Row(), drift.Row()]


class MovesReport(Report):
    def __init__(self, a):
        super().__init__()
        self.command = f'`./cadre test moves`, for moves with a request for {a.tokens} tokens of {a.model.name} every {a.period * 1000:.0f} ms, windows of {a.window:g} s, and moves that take {a.pace:g} s'

    def add(self, entry):
        self.entries.append(entry)
        return entry

    def line(self, entry):
        return KINDS[entry['kind']].line(entry)

    def table(self):
        lines = []
        for kind, module in KINDS.items():
            entries = [e for e in self.entries if e['kind'] == kind]
            lines += ['', module.HEAD, *map(module.line, entries)] if entries else []
        return lines[1:]


def main():
    parser = table.parser(__doc__, repeat=3)
    parser.add_argument('--model', type=pathlib.Path, default=MODEL, help='checkpoint whose experts move, in the first table (default models/demo)')
    parser.add_argument('--tokens', type=int, default=100, help='tokens of an answer (default 100)')
    parser.add_argument('--period', type=float, default=0.2, metavar='SECONDS', help='time from one request to the next (default 0.2)')
    parser.add_argument('--window', type=float, default=10, metavar='SECONDS', help='how long users are watched before and after (default 10)')
    parser.add_argument('--pace', type=float, default=moving.PACE_S, metavar='SECONDS', help='how long moves take, by their byte rate (default 10)')
    a = parser.parse_args()
    if a.list:
        return table.print_list(ROWS)
    wanted, report, flow = table.chosen(ROWS, a.rows), MovesReport(a), paired.Flow(a.model.resolve(), a.tokens, a.period, a.window, a.pace)

    def measured(row):
        if row.kind != 'moves':
            return report.add(KINDS[row.kind].measure(row))
        return report.add(paired.entry(row, [paired.measure(row, flow) for _ in range(a.repeat)]))
    return table.produce(wanted, report, measured, a.json)


if __name__ == '__main__':
    sys.exit(main())
