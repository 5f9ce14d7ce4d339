# SPDX-License-Identifier: Apache-2.0
"""Produces the table of faults: each row on a cluster of its own, several times, under load.

    ./cadre test faults [ROW ...] [--repeat N] [--json FILE]      ROW may be a pattern: 'kill-*'
    ./cadre test faults --list
"""
import argparse
import fnmatch
import pathlib
import signal
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'cluster')]
sys.dont_write_bytecode = True

import load  # noqa: E402
import rows  # noqa: E402
from measure import measure  # noqa: E402
from report import Report, line  # noqa: E402
import kill, pause, clients, strangers, state, names, clocks, cuts, held  # noqa: E402,E401,F401  the rows, in their order: quick ones first


def chosen(patterns):
    if not patterns:
        return rows.ROWS
    for pattern in patterns:
        if not any(fnmatch.fnmatch(row.name, pattern) for row in rows.ROWS):
            sys.exit(f"there is no row '{pattern}'; --list names them all")
    return [row for row in rows.ROWS if any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]


def run(row, repeat, digests, report):
    missing = next(filter(None, (need() for need in row.needs)), None)
    if missing:
        report.skip(row, missing)
        print(f'{row.name} is skipped: {missing}', file=sys.stderr, flush=True)
        return
    entry = report.add(row, [measure(row, digests) for _ in range(repeat)])
    print(line(entry), *[f'    {sentence}' for sentence in ([] if entry['held'] else entry['failures'] + entry['why'])], sep='\n', file=sys.stderr, flush=True)


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('rows', nargs='*', metavar='ROW', help="names or patterns; all rows without any")
    parser.add_argument('--repeat', type=int, default=3, help='how often each row is measured (default 3)')
    parser.add_argument('--json', metavar='FILE', help='also write everything to a file')
    parser.add_argument('--list', action='store_true', help='list the rows')
    arguments = parser.parse_args()
    if arguments.list:
        print('\n'.join(f'{row.name:32} {row.title}' for row in rows.ROWS))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):   # SIGINT is ignored where a shell started this in its background
        signal.signal(number, interrupted)
    report, digests, code = Report(), load.expected_digests(), 0
    try:
        for row in chosen(arguments.rows):
            run(row, arguments.repeat, digests, report)
    except KeyboardInterrupt:
        print('interrupted; everything is stopped', file=sys.stderr)
        code = 130
    print(report.markdown(), flush=True)
    if arguments.json:
        report.write_json(arguments.json)
    good, missed, skipped = report.counts()
    print(f'\n{good} held, {missed} missed, {skipped} skipped')
    return code or int(missed > 0)


if __name__ == '__main__':
    sys.exit(main())
