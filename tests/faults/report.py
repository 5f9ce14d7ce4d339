# SPDX-License-Identifier: Apache-2.0
"""Tables of what was measured, as Markdown and as JSON."""
import collections
import json
import os
import platform
import statistics

from load import STREAMS


def machine():
    with open('/proc/cpuinfo') as lines:
        model = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), platform.machine())
    return f'{model}, {os.cpu_count()} cores, Linux {platform.release()}'


def p95(values):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def seconds(value):
    return '' if value is None else f'{value * 1000:.0f} ms' if value < 1 else f'{value:.2f} s'


def summary(failed):
    """What requests failed with, each sentence once."""
    return [f'{count} x {sentence}' for sentence, count in collections.Counter(failed).most_common()]


class Report:
    """Entries are dicts with at least row, held, failures, why and told; the last three are lists of sentences."""
    command, head = '', ''

    def __init__(self):
        self.entries, self.skipped = [], []

    def skip(self, row, why):
        self.skipped.append({'row': row.name, 'title': row.title, 'why': why})

    def counts(self):
        held = sum(e['held'] for e in self.entries)
        return held, len(self.entries) - held, len(self.skipped)

    def line(self, entry):
        raise NotImplementedError

    def table(self):
        return [self.head, *[self.line(e) for e in self.entries]]

    def markdown(self):
        return '\n'.join([f'Measured with {self.command}: {machine()}.', '', *self.table(), *self.remarks()])

    def remarks(self):
        remarks = [f'- {e["row"]}: {sentence}' for e in self.entries if not e['held'] for sentence in dict.fromkeys(e['failures'] + e['why'])]
        remarks += [f'- {e["row"]}: {sentence}' for e in self.entries for sentence in e['told']]
        remarks += [f'- {s["row"]} is skipped: {s["why"]}' for s in self.skipped]
        return ['', *remarks] if remarks else []

    def write_json(self, path):
        with open(path, 'w') as file:
            json.dump({'machine': machine(), 'rows': self.entries, 'skipped': self.skipped}, file, indent=1)
            file.write('\n')


class FaultReport(Report):
    command = f'`./cadre test faults` under {STREAMS} streams on models/demo'
    head = '''| row | fault | failed | digests | gap p50 | p95 | max | aim | |
|---|---|---|---|---|---|---|---|---|'''

    def add(self, row, results):
        gaps = [r.gap for r in results]
        entry = {
            'row': row.name, 'fault': row.title, 'aim_s': row.aim, 'held': all(r.held(row.aim) for r in results), 'repetitions': len(results),
            'requests': sum(r.requests for r in results), 'failed': sum(len(r.failed) for r in results), 'unequal': sum(r.unequal for r in results),
            'gap_s': {'p50': statistics.median(gaps), 'p95': p95(gaps), 'max': max(gaps), 'all': gaps},
            'gap_of_others_s': max((r.gap_of_others for r in results if r.gap_of_others is not None), default=None),
            'failures': summary([f for r in results for f in r.failed]), 'why': [why for r in results for why in r.why],
            'told': [r.told for r in results if r.told],
        }
        self.entries.append(entry)
        return entry

    def line(self, e):
        gap = e['gap_s']
        others = f' (others {seconds(e["gap_of_others_s"])})' if e['gap_of_others_s'] is not None else ''
        return (f'| `{e["row"]}` | {e["fault"]} | {e["failed"]} of {e["requests"]} | {digests(e)} | {seconds(gap["p50"])} | {seconds(gap["p95"])} | {seconds(gap["max"])}{others} '
                f'| {"told" if e["aim_s"] is None else "≤ " + seconds(e["aim_s"])} | {held(e)} |')


def digests(entry):
    return 'equal' if not entry['unequal'] else f'{entry["unequal"]} unequal'


def held(entry):
    return 'held' if entry['held'] else '**missed**'
