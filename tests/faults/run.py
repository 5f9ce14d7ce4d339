# SPDX-License-Identifier: Apache-2.0
"""Produces the table of faults: each row on a cluster of its own, several times, under load.

    ./cadre test faults [ROW ...] [--repeat N] [--json FILE]      ROW may be a pattern: 'kill-*'
    ./cadre test faults --list
"""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'cluster')]
sys.dont_write_bytecode = True

import load  # noqa: E402
import rows  # noqa: E402
import table  # noqa: E402
from measure import measure  # noqa: E402
from report import FaultReport  # noqa: E402
import kill, pause, clients, strangers, state, names, clocks, cuts, held  # noqa: E402,E401,F401  the rows, in their order: quick ones first


def main():
    arguments = table.parser(__doc__, repeat=3).parse_args()
    if arguments.list:
        return table.print_list(rows.ROWS)
    wanted, report, digests = table.chosen(rows.ROWS, arguments.rows), FaultReport(), load.expected_digests()
    return table.produce(wanted, report, lambda row: report.add(row, [measure(row, digests) for _ in range(arguments.repeat)]), arguments.json)


if __name__ == '__main__':
    sys.exit(main())
