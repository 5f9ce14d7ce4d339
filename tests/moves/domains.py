# SPDX-License-Identifier: Apache-2.0
"""The demo model under prompts of ten domains: does a rebalance bring what it predicts, and what the model's card says?

The first placement is blocks of consecutive experts, which the card measures, too. Prompts of before and after are different texts.
"""
import concurrent.futures
import time

from cluster import embedded
from measure import running
from moving import MovingWorld
from openloop import OpenLoop
from report import held, summary
from texts import DOMAINS, prompts, usage
from world import MODEL

CARD = 2.815, 2.258          # nodes per token in blocks, and planned for nodes with any number of experts (models/demo/README.md)
AIM = 0.05                   # how far measured may be from predicted
PROMPT, GENERATED = 96, 32   # tokens
PERIOD_S = 0.125             # 1,024 tokens per second
BEFORE_S = 65                # `measured.before` is of the last minute
CHECKED = 4                  # answers of each domain and half whose digests are computed again

HEAD = '''| row | tokens | failed | digests | nodes per token: card | before | predicted | after | bytes per token: before | predicted | after | load, max / mean: before | predicted | after | moves | MB | s | |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|'''


class Row:
    name, title, long, needs, kind = 'domains', 'ten domains, then `rebalance --wait`: measured beside predicted, and beside the card of models/demo', False, (), 'domains'

    def make_world(self, **more):
        return MovingWorld(model=MODEL, experts=4, **more)


class Mixture:
    """All domains in turn; of each, every other prompt until `second`, and from then on the others."""

    def __init__(self):
        self.prompts, self.second = prompts(PROMPT), False

    def ask(self, k):
        domain = DOMAINS[k % len(DOMAINS)]
        mine = self.prompts[domain][self.second::2]
        return {'prompt': mine[k // len(DOMAINS) % len(mine)], 'tokens': GENERATED, 'label': (domain, self.second), 'keep': True}


def unequal(requests):
    """Of some answers, computed again in one process: how many differ."""
    sample = {}
    for request in requests:
        if request.messages and len(sample.setdefault(request.label, [])) < CHECKED:
            sample[request.label].append(request)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda r: embedded(MODEL, r.prompt, r.tokens_max)['digest'] != r.messages[-1].digest, sum(sample.values(), [])))


def measure(row):
    mixture = Mixture()
    entry = {'row': row.name, 'title': row.title, 'kind': row.kind, 'why': [], 'told': []}
    with running(row) as world:
        with OpenLoop(world, mixture.ask, PERIOD_S) as load:
            time.sleep(BEFORE_S)
            mixture.second = True
            first = len(load.requests)
            entry['rebalance'] = made = world.operate('rebalance', '--wait')
        entry['status'] = world.status()
        entry['history'] = world.operate('history')
        entry.update(requests=len(load.requests), failed=len(load.failed), failures=summary(load.failed), unequal=unequal(load.requests))
        last_minute = [r for r in load.requests if r.began > load.requests[-1].began - 20]
        entry['clients'] = {'before': usage(load.requests[:first]), 'after': usage(last_minute)}
    entry['why'] += misses(made, entry['clients'])
    entry['held'] = not entry['failed'] and not entry['unequal'] and not entry['why']
    return entry


def misses(made, clients):
    """Sentences about what is not as it should be."""
    predicted, measured = made['predicted'], made['measured']

    def apart(name, is_, should):
        if abs(is_ / should - 1) > AIM:
            yield f'{name}: {is_:.3f}, {is_ / should - 1:+.1%} from {should:.3f}'
    for key in ('nodes_per_token', 'bytes_per_token'):
        yield from apart(f'measured.after.{key} and predicted', measured['after'][key], predicted['after'][key])
    yield from apart('nodes per token of the first placement and the card', measured['before']['nodes_per_token'], CARD[0])
    yield from apart('nodes per token after it and the card', measured['after']['nodes_per_token'], CARD[1])
    for when, (nodes, *_) in clients.items():
        yield from apart(f'nodes per token {when}, as the service measures and as answers say', measured[when]['nodes_per_token'], nodes)


def line(e):
    predicted, measured = e['rebalance']['predicted'], e['rebalance']['measured']

    def cells(key, form):
        return [form.format(effect[key]) for effect in (measured['before'], predicted['after'], measured['after'])]
    made = e['rebalance']
    shown = [f'`{e["row"]}`', f'{made.get("tokens_planned_on", 0)}', f'{e["failed"]} of {e["requests"]}', 'equal' if not e['unequal'] else f'{e["unequal"]} unequal', f'{CARD[0]} to {CARD[1]}',
             *cells('nodes_per_token', '{:.3f}'), *cells('bytes_per_token', '{:.0f}'), *cells('load_max_over_mean', '{:.2f}'),
             f'{made["moves"]}', f'{made["bytes"] / 1e6:.1f}', f'{made["seconds"]:.1f}', held(e)]
    return f'| {" | ".join(shown)} |'
