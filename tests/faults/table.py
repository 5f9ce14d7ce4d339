# SPDX-License-Identifier: Apache-2.0
"""What the programs have in common that measure rows and print a table: their options, which rows are chosen, and the end."""
import argparse
import fnmatch
import signal
import sys


def chosen(rows, patterns):
    """Those that a name or pattern names. Without any: all that are not `long`."""
    if not patterns:
        return [row for row in rows if not getattr(row, 'long', False)]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(row.name, pattern) for row in rows):
            print(f"there is no row '{pattern}'; --list names them all", file=sys.stderr)
            sys.exit(2)
    return [row for row in rows if any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]


def parser(doc, repeat):
    made = argparse.ArgumentParser(description=doc.split('\n', 1)[0])
    made.add_argument('rows', nargs='*', metavar='ROW', help='names or patterns; all rows without any')
    made.add_argument('--repeat', type=int, default=repeat, help=f'how often each row is measured (default {repeat})')
    made.add_argument('--json', metavar='FILE', help='also write everything to a file')
    made.add_argument('--list', action='store_true', help='list the rows')
    return made


def print_list(rows):
    print('\n'.join(f'{row.name:32} {row.title}' for row in rows))


def run(row, report, measured):
    """`measured(row)` is its entry in the report."""
    missing = next(filter(None, (need() for need in row.needs)), None)
    if missing:
        report.skip(row, missing)
        print(f'{row.name} is skipped: {missing}', file=sys.stderr, flush=True)
        return
    entry = measured(row)
    print(report.line(entry), *[f'    {sentence}' for sentence in ([] if entry['held'] else entry['failures'] + entry['why'])], sep='\n', file=sys.stderr, flush=True)


def interrupted(*_):
    raise KeyboardInterrupt


def produce(rows, report, measured, json_file):
    """Measures the rows, prints the table, and returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):   # SIGINT is ignored where a shell started this in its background
        signal.signal(number, interrupted)
    code = 0
    try:
        for row in rows:
            run(row, report, measured)
    except KeyboardInterrupt:
        print('interrupted; everything is stopped', file=sys.stderr)
        code = 130
    print(report.markdown(), flush=True)
    if json_file:
        report.write_json(json_file)
    good, missed, skipped = report.counts()
    print(f'\n{good} held, {missed} missed, {skipped} skipped')
    return code or int(missed > 0)
