# SPDX-License-Identifier: Apache-2.0
"""Measures what users notice of something that is done to a cluster under open-loop load: two windows before it, one while it is done, one after.

The two before it are alike but for chance, which is what the others are compared with.
"""
import os
import statistics
import time

from cluster import embedded, metric
from load import prompt
from measure import running
from openloop import OpenLoop
from report import digests, held, summary
from stillness import Stillness

PROMPTS = 8
WARM_S, TAIL_S = 3, 1              # no longer than a window
P99_AIM, LONGEST_AIM = 1.05, 2.0   # p99 while it is done over that before; the longest gap over p50
FOREIGN_MAX = 0.05                 # of the machine, by other programs: above, it is told
WINDOWS = ('before', 'again', 'during', 'after')
HEAD = '''| row | what is done | failed | digests | moves | MB | s | before | again | during | after | p99 during / before (pairs) | longest / p50 | |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|'''


class Flow:
    """What users ask for, again and again: so many tokens, a request every `period_s`. They are watched for windows of `window_s`; moves take `pace_s`."""

    def __init__(self, model, tokens, period_s, window_s, pace_s):
        self.model, self.tokens, self.period_s, self.window_s, self.pace_s = model, tokens, period_s, window_s, pace_s
        self.digests = [embedded(model, prompt(i), tokens)['digest'] for i in range(PROMPTS)]   # of a quiet process of its own

    def ask(self, k):
        return {'prompt': prompt(k % PROMPTS), 'tokens': self.tokens, 'digest': self.digests[k % PROMPTS]}


def seconds_busy():
    """Of all cores, since the machine started."""
    with open('/proc/stat') as stat:
        values = [int(value) for value in stat.readline().split()[1:9]]
    return (sum(values) - values[3] - values[4]) / os.sysconf('SC_CLK_TCK')   # idle, and waiting for disks


def seconds_used(processes):
    """By the cluster and this process, those that have ended included."""
    total = sum(os.times()[:4])
    for process in processes:
        if process.alive():
            with open(f'/proc/{process.popen.pid}/stat') as stat:
                total += sum(map(int, stat.read().rsplit(')', 1)[1].split()[11:13])) / os.sysconf('SC_CLK_TCK')
    return total


class Measurement:
    """One repetition of one row."""

    def __init__(self):
        self.windows, self.requests, self.failed, self.unequal, self.why, self.told = {}, 0, [], 0, [], []
        self.moves = self.bytes = self.seconds = 0
        self.foreign = 0.0   # share of the machine that other programs took

    def strike(self, row, world, window_s):
        """When the windows begin and end, one after the other. Whatever does not hold becomes a sentence."""
        times = [time.monotonic()]
        for _ in range(2):
            world.watch(window_s)
            times.append(time.monotonic())
        try:
            row.act(world)
        except AssertionError as error:
            self.why.append(str(error))
        times.append(time.monotonic())
        world.watch(window_s)
        times.append(time.monotonic())
        self.seconds = times[3] - times[2]
        time.sleep(min(TAIL_S, window_s))
        return times


def measure(row, flow):
    result = Measurement()
    with running(row, model=flow.model, pace_s=flow.pace_s) as world:
        with Stillness() as stillness, OpenLoop(world, flow.ask, flow.period_s) as load:
            world.load = load
            time.sleep(min(WARM_S, flow.window_s))
            began, foreign = time.monotonic(), seconds_busy() - seconds_used(world.processes())
            times = result.strike(row, world, flow.window_s)
            result.foreign = (seconds_busy() - seconds_used(world.processes()) - foreign) / (time.monotonic() - began) / os.cpu_count()
        result.windows = {name: load.window(a, b, world.struck, stillness.spans) for name, a, b in zip(WINDOWS, times, times[1:])}
        result.requests, result.failed, result.unequal = len(load.requests), load.failed, load.unequal
        result.moves, result.bytes = world.moves, world.bytes
        result.told = [*world.told, *([stillness.sentence()] if stillness.spans else [])]
        result.why += world.ended_badly()
    if result.failed or result.unequal or result.why:
        result.why.append(f'logs: {world.directory}')
    else:
        world.forget()
    return result


def spread(results):
    """Of p99 between the two windows before: how far apart they were at most."""
    return max(max(a / b, b / a) for a, b in ((r.windows['before'].p99, r.windows['again'].p99) for r in results))


def figures(windows):
    """Of repetitions: medians, and the longest gap and first wait of all."""
    return {'p50_s': statistics.median(w.p50 for w in windows), 'p99_s': statistics.median(w.p99 for w in windows), 'longest_s': max(w.longest for w in windows),
            'first_s': max(w.first for w in windows), 'all': [w.as_dict() for w in windows]}


def before(result):
    """p99 of the two windows before, together."""
    return statistics.mean(result.windows[name].p99 for name in WINDOWS[:2])


def entry(row, results):
    windows = {name: figures([r.windows[name] for r in results]) for name in WINDOWS}
    ratio, noise = statistics.median(r.windows['during'].p99 / before(r) for r in results), spread(results)
    longest = statistics.median(r.windows['during'].longest / r.windows['before'].p50 for r in results)
    made = {
        'row': row.name, 'title': row.title, 'kind': row.kind, 'repetitions': len(results), 'requests': sum(r.requests for r in results), 'failed': sum(len(r.failed) for r in results),
        'unequal': sum(r.unequal for r in results), 'moves': statistics.median(r.moves for r in results), 'bytes': statistics.median(r.bytes for r in results),
        'seconds': statistics.median(r.seconds for r in results), 'windows': windows, 'p99_ratio': ratio, 'p99_spread': noise, 'longest_over_p50': longest,
        'p99_as_aimed': not row.aims or ratio <= max(P99_AIM, noise), 'longest_as_aimed': not row.aims or longest <= LONGEST_AIM,
        'failures': summary([f for r in results for f in r.failed]), 'why': [why for r in results for why in r.why], 'told': [sentence for r in results for sentence in r.told],
    }
    made['foreign'] = max(r.foreign for r in results)
    if made['foreign'] > FOREIGN_MAX:
        made['told'].append(f'other programs took up to {made["foreign"]:.0%} of the machine: figures are too high')
    made['held'] = not made['failed'] and not made['unequal'] and not made['why']
    return made


def line(e):
    cells = [f'`{e["row"]}`', e['title'], f'{e["failed"]} of {e["requests"]}', digests(e), f'{e["moves"]:.0f}', f'{e["bytes"] / 1e6:.1f}', f'{e["seconds"]:.1f}',
             *[milliseconds(e['windows'][name]) for name in WINDOWS], f'{e["p99_ratio"]:.2f} ({e["p99_spread"]:.2f}){missed(e["p99_as_aimed"])}',
             f'{e["longest_over_p50"]:.1f}{missed(e["longest_as_aimed"])}', held(e)]
    return f'| {" | ".join(cells)} |'


def milliseconds(window):
    return ' / '.join(f'{window[key] * 1000:.1f}' for key in ('p50_s', 'p99_s', 'longest_s', 'first_s'))


def missed(as_aimed):
    return '' if as_aimed else ' **above the aim**'
