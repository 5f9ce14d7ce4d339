# SPDX-License-Identifier: Apache-2.0
"""The mix of domains drifts, and automatic mode follows: what it does, what is gained, and what would have been.

Half an hour: the mix stands still, goes once around the domains, and stands still again. For each window of it, nodes per token and load are
told three times: as measured (of the placement in force, by automatic mode), of the placement that automatic mode began with, had it stayed
(`frozen`), and of a plan made for just this window's tokens afterwards (`oracle`). The last two are computed from the routing that comes
back with the answers. So is the cost, by which automatic mode decides: nodes per token, and what load above a tenth adds.
"""
import json
import math
import random
import subprocess
import tempfile
import threading
import time

from cluster import BIN
from measure import running
from moving import MovingWorld
from openloop import OpenLoop
from report import held, summary
from texts import DOMAINS, prompts, usage
from world import MODEL

MINUTES, STILL = 30, 5       # of which so many at the beginning and at the end stand still
WINDOW_S = 60
WIDTH = 1.0                  # of the mix, in domains
PROMPT, GENERATED, PERIOD_S = 96, 32, 0.25
AUTO = ('--every', '30s', '--gain-min', '3%')
HALF_LIFE = '60s'            # of the routing that plans are made from: it is usually ten minutes
LOOK_S = 2                   # how often the map is looked at
SAMPLE_S = 90                # traffic before the first plan
LAST_S = 10                  # after a window, until its last answers have come
BACK_S = 600                 # an expert that returns to a node sooner has swung

LOAD_WEIGHT, LOAD_FREE = 0.75, 1.1   # of the cost by which automatic mode decides (docs/PLANNER.md)
PLACEMENTS = ('automatic', 'frozen', 'oracle')

HEAD = '''| minute | domain | cost: automatic | frozen | oracle | nodes per token: automatic | frozen | oracle | load: automatic | frozen | oracle | moves |
|---|---|---|---|---|---|---|---|---|---|---|---|'''


class Row:
    name, title, long, needs, kind = 'drift', f'{MINUTES} minutes in which the mix of domains drifts, with `auto on {" ".join(AUTO)}`', True, (), 'drift'

    def make_world(self, **more):
        return MovingWorld(model=MODEL, experts=4, placement_options=['--routing-half-life', HALF_LIFE], **more)


def centre(minute):
    """Where the mix is, in domains."""
    share = min(max((minute - STILL) / (MINUTES - 2 * STILL), 0), 1)
    return share * len(DOMAINS)


class Drift:
    """Each request is of a domain near the centre of the mix."""

    def __init__(self):
        self.prompts, self.random, self.began, self.asked = prompts(PROMPT), random.Random(1), time.monotonic(), [0] * len(DOMAINS)

    def ask(self, k):
        at = centre((time.monotonic() - self.began) / 60)
        i = round(self.random.gauss(at, WIDTH)) % len(DOMAINS)
        self.asked[i] += 1
        mine = self.prompts[DOMAINS[i]]
        return {'prompt': mine[self.asked[i] % len(mine)], 'tokens': GENERATED, 'keep': True, 'fields': {'return_routing': True}}


class Looking(threading.Thread):
    """Sees the map change: moves, and which of them led back."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.moves, self.swings, self.left = world, [], 0, {}   # left: when an expert left a node
        self.stopping = threading.Event()

    def run(self):
        last = self.world.holders()
        while not self.stopping.wait(LOOK_S):
            now, when = self.world.holders(), time.monotonic()
            for cell in now:
                for node in now[cell] - last[cell]:
                    self.moves.append(when)
                    self.swings += when - self.left.get((cell, node), -BACK_S) < BACK_S
                for node in last[cell] - now[cell]:
                    self.left[cell, node] = when
            last = now


# ---- what placements cost, computed ----


def chosen(requests):
    """Of each token and layer: the experts. Routing comes with the messages; that of the last token need not."""
    return [(number, token.position, layer.layer, tuple(layer.experts)) for number, request in enumerate(requests) for message in request.messages for token in message.routing for layer in token.layers]


def cost(holders, selected):
    """(nodes per token and layer, load of the busiest node over the mean: mean over layers) of a placement without copies."""
    touched, load, names = 0, {}, sorted(frozenset().union(*holders.values()))
    for _, _, layer, experts in selected:
        nodes = [next(iter(holders[layer, expert])) for expert in experts]
        touched += len(set(nodes))
        counts = load.setdefault(layer, dict.fromkeys(names, 0))
        for node in nodes:
            counts[node] += 1
    return touched / len(selected), sum(max(c.values()) / (sum(c.values()) / len(c)) for c in load.values()) / len(load)


def oracle(selected, cells):
    """A plan for just these tokens, which it is measured on, too: nobody can know it beforehand."""
    with tempfile.NamedTemporaryFile('w', suffix='.csv') as file:
        k = len(selected[0][3])
        file.write(','.join(['request', 'position', 'layer', *(f'e{i}' for i in range(k))]) + '\n')
        file.writelines(f'{request},{position},{layer},{",".join(map(str, experts))}\n' for request, position, layer, experts in sorted(selected))
        file.flush()
        experts = 1 + max(expert for _, expert in cells)
        done = subprocess.run([BIN / 'cadrectl', 'plan', '--trace', file.name, '--experts', str(experts), '--nodes', '4', '--slots-per-node', str(experts), '--copies', '0', '--holdout', '0',
                               '--rounds', '12', '-o', 'json'], check=True, capture_output=True, text=True)
    return {(int(layer), int(expert)): frozenset(nodes) for layer, found in json.loads(done.stdout)['layers'].items() for expert, nodes in found.items()}


# ---- the row ----


def watch(world, entry):
    """Runs it all, and fills the entry."""
    drift = Drift()
    with OpenLoop(world, drift.ask, PERIOD_S) as load:
        time.sleep(SAMPLE_S)
        world.operate('rebalance', '--wait')   # automatic mode begins where somebody has left it
        first = world.settle()
        looking = Looking(world)
        looking.start()
        world.operate('auto', 'on', *AUTO)
        drift.began = began = time.monotonic()
        for i in range(MINUTES * 60 // WINDOW_S):
            time.sleep(began + (i + 1) * WINDOW_S + LAST_S - time.monotonic())   # its last answers have come
            since = began + i * WINDOW_S
            requests = [r for r in load.requests if since <= r.began < since + WINDOW_S]
            entry['windows'].append(window_figures(i, requests, first, sum(since <= when < since + WINDOW_S for when in looking.moves)))
            for request in load.requests:
                if request.began < since + WINDOW_S:
                    request.messages = []
        world.operate('auto', 'off')
        looking.stopping.set()
        looking.join()
    entry['history'] = world.operate('history')
    entry.update(requests=len(load.requests), failed=len(load.failed), failures=summary(load.failed), moves=len(looking.moves), swings=looking.swings)


def measure(row):
    entry = {'row': row.name, 'title': row.title, 'kind': row.kind, 'why': [], 'told': [], 'windows': []}
    with running(row) as world:
        watch(world, entry)
    entry['told'].append(summed_up(entry))
    entry['held'] = not entry['failed'] and not entry['why']
    return entry


def window_figures(i, requests, first, moves):
    selected = chosen(requests)
    return {'minute': i * WINDOW_S / 60, 'domain': DOMAINS[round(centre((i + 0.5) * WINDOW_S / 60)) % len(DOMAINS)], 'moves': moves, 'automatic': (usage(requests)[0], load_of(requests)),
            'frozen': cost(first, selected), 'oracle': cost(oracle(selected, first), selected)}


def load_of(requests):
    """Of the nodes that answered."""
    layers = {}
    for request in requests:
        for message in request.messages:
            for token in message.routing:
                for layer in token.layers:
                    counts = layers.setdefault(layer.layer, {})
                    for node in layer.nodes:
                        counts[node] = counts.get(node, 0) + 1
    return sum(max(c.values()) / (sum(c.values()) / len(c)) for c in layers.values()) / len(layers)


def price(nodes, load):
    return nodes * (1 + LOAD_WEIGHT * max(0, load - LOAD_FREE))


def means(windows):
    """Of cost, nodes per token and load, for each of PLACEMENTS."""
    values = [[(price(*w[which]), *w[which]) for w in windows] for which in PLACEMENTS]
    return [[sum(v[i] for v in of_one) / len(windows) for of_one in values] for i in range(3)]


def summed_up(entry):
    cost_of, nodes, load = means(entry['windows'])
    return (f'cost {cost_of[0]:.3f} with automatic mode, {cost_of[1]:.3f} had the placement stayed, {cost_of[2]:.3f} of the oracle; nodes per token {nodes[0]:.3f}, {nodes[1]:.3f}, {nodes[2]:.3f}; '
            f'load {load[0]:.2f}, {load[1]:.2f}, {load[2]:.2f}; {entry["moves"]} moves, of which {entry["swings"]} back to where the expert was less than {BACK_S // 60} minutes before')


def line(e):
    """A line for each five minutes."""
    lines = []
    for i in range(0, len(e['windows']), 5):
        part = e['windows'][i:i + 5]
        costs, nodes, loads = means(part)
        cells = [f'{part[0]["minute"]:.0f} to {part[-1]["minute"] + 1:.0f}', f'{part[0]["domain"]} to {part[-1]["domain"]}', *(f'{value:.3f}' for value in costs + nodes),
                 *(f'{value:.2f}' for value in loads), str(sum(w['moves'] for w in part))]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)
