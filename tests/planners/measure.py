# SPDX-License-Identifier: Apache-2.0
"""What a placement does with recorded routing: the definitions of docs/TRACES.md in Python, apart from the planner's own code so that each can be held against the other.

    measure.py TRACE.csv PLACEMENT.json --experts E [--policy cover|even|guard]
"""
import argparse
import json

import numpy as np
from numba import njit

ROW_BYTES = 8192
LANES = 64
BATCH = 64
COVER, EVEN, GUARD = 0, 1, 2
POLICIES = {'cover': COVER, 'even': EVEN, 'guard': GUARD}
GUARD_AFTER_TOKENS = 200      # before that, loads are noise
GUARD_LOAD = 1.03             # over the mean
GUARD_WEIGHT = 20             # experts that a node over GUARD_LOAD seems to hold less, for each mean of load above it


class Trace:
    """ids [layer, token, k], request [token]; experts: of a layer."""

    def __init__(self, ids, request, experts, layers=None):
        self.ids, self.request, self.experts = ids, request, experts
        self.layers = list(range(len(ids))) if layers is None else layers

    @classmethod
    def read_csv(cls, path, experts):
        table = np.loadtxt(path, delimiter=',', skiprows=1, dtype=np.int64, ndmin=2)
        layers = []
        while len(layers) < len(table) and (not layers or table[len(layers), 2] > layers[-1]):
            layers.append(int(table[len(layers), 2]))
        cells = table[:, 3:].reshape(-1, len(layers), table.shape[1] - 3)
        assert (table[:, 2].reshape(-1, len(layers)) == layers).all() and cells.max() < experts
        return cls(np.ascontiguousarray(cells.transpose(1, 0, 2)), table[::len(layers), 0], experts, layers)


def decode_order(request):
    """Tokens as continuous batching meets them: every request goes to the shortest of 64 lanes, a step takes a token of each lane, while all have one."""
    lanes = [[] for _ in range(LANES)]
    begins = np.flatnonzero(np.concatenate([[True], request[1:] != request[:-1]]))
    ends = np.append(begins[1:], len(request))
    for begin, end in zip(begins, ends):
        min(lanes, key=len).extend(range(begin, end))
    steps = min(map(len, lanes))
    full = [lane[step] for step in range(steps) for lane in lanes]
    rest = [token for lane in lanes for token in lane[steps:]]
    return np.array(full + rest, np.int64)


@njit(cache=True)
def points(covers, load, fair, guarded):
    if guarded and load > GUARD_LOAD * fair:
        return covers - GUARD_WEIGHT * (load / fair - GUARD_LOAD)
    return float(covers)


@njit(cache=True)
def route(ids, copies, holders, nodes, order, policy):
    """ids [T, k], copies [E], holders [E, most copies]: node ids ascending. -> node [T, k] that runs each expert, rows of each node"""
    tokens, k = ids.shape
    home = np.full((tokens, k), -1)
    load = np.zeros(nodes, np.int64)
    turn = np.zeros(len(copies), np.int64)
    covers = np.zeros(nodes, np.int64)
    chosen = np.zeros(nodes, np.bool_)
    for walked in range(len(order)):
        token = order[walked]
        if policy == EVEN:
            for j in range(k):
                expert = ids[token, j]
                if expert >= 0:
                    home[token, j] = holders[expert, turn[expert] % copies[expert]]
                    turn[expert] += 1
                    load[home[token, j]] += 1
            continue
        fair = walked * k / nodes
        guarded = policy == GUARD and walked > GUARD_AFTER_TOKENS
        covers[:] = 0
        chosen[:] = False
        open_slots = ids[token] >= 0
        for j in range(k):
            if open_slots[j]:
                for c in range(copies[ids[token, j]]):
                    covers[holders[ids[token, j], c]] += 1
        while open_slots.any():
            best = -1
            best_points = 0.0
            for j in range(k):
                if not open_slots[j]:
                    continue
                for c in range(copies[ids[token, j]]):
                    node = holders[ids[token, j], c]
                    value = points(covers[node], load[node], fair, guarded)
                    if best < 0 or value > best_points or (value == best_points and (load[node], node) < (load[best], best)):
                        best, best_points = node, value
            chosen[best] = True
            for j in range(k):
                if not open_slots[j]:
                    continue
                expert = ids[token, j]
                held = False
                for c in range(copies[expert]):
                    held = held or holders[expert, c] == best
                if held:
                    open_slots[j] = False
                    for c in range(copies[expert]):
                        covers[holders[expert, c]] -= 1
        for j in range(k):
            expert = ids[token, j]
            if expert < 0:
                continue
            best = -1
            for c in range(copies[expert]):
                node = holders[expert, c]
                if chosen[node] and (best < 0 or (load[node], node) < (load[best], best)):
                    best = node
            home[token, j] = best
            load[best] += 1
    return home, load


def first_met(places):
    """places [T, k]; -1: none. -> [T, k] whether none of the token's slots before has this place"""
    new = places >= 0
    for j in range(1, places.shape[1]):
        new[:, j] &= (places[:, :j] != places[:, j:j + 1]).all(axis=1)
    return new


@njit(cache=True)
def batches(ids, home, order, nodes, experts):
    """Batches of 64 tokens in decode order. -> distinct experts of the busiest node and of the mean node, rows of the busiest over the mean: means over batches"""
    count = len(order) // BATCH
    if count == 0:
        return 0.0, 0.0, 0.0
    busiest = mean = uneven = 0.0
    seen = np.full((nodes, experts), -1)
    for batch in range(count):
        active = np.zeros(nodes, np.int64)
        rows = np.zeros(nodes, np.int64)
        for token in order[batch * BATCH:(batch + 1) * BATCH]:
            for j in range(ids.shape[1]):
                node, expert = home[token, j], ids[token, j]
                if expert < 0:
                    continue
                rows[node] += 1
                if seen[node, expert] != batch:
                    seen[node, expert] = batch
                    active[node] += 1
        busiest += active.max()
        mean += active.mean()
        uneven += rows.max() / rows.mean()
    return busiest / count, mean / count, uneven / count


def measure(trace, placement, policy='cover'):
    """placement: {'nodes', 'slots_per_node', 'layers': {layer: {expert: [nodes]}}, 'racks': [of each node, where there are any]}, all keys as in JSON. -> metrics"""
    nodes, slots = placement['nodes'], placement['slots_per_node']
    order = decode_order(trace.request)
    source = np.unique(trace.request, return_inverse=True)[1] % nodes
    racks = np.array(placement.get('racks', [0] * nodes) + [-1])     # the last: of a slot without a node
    touched, remote, fresh, in_racks, load, active, active_mean, uneven, exceeded, extra, before = [], [], [], [], [], [], [], [], 0, [], None
    for ids, layer in zip(trace.ids, trace.layers):
        held = [sorted(set(placement['layers'][str(layer)][str(expert)])) for expert in range(trace.experts)]
        assert all(held) and max(map(max, held)) < nodes, 'an expert without a node'
        copies = np.array([len(h) for h in held])
        holders = np.zeros((trace.experts, copies.max()), np.int64)
        for expert, h in enumerate(held):
            holders[expert, :len(h)] = h
        used = np.bincount(np.concatenate(held), minlength=nodes)
        home, rows = route(ids, copies, holders, nodes, order, POLICIES[policy])
        new = first_met(home)
        a, m, u = batches(ids, home, order, nodes, trace.experts)
        touched.append(new.sum(axis=1))
        remote.append((new & (home != source[:, None])).sum(axis=1).mean())
        in_racks.append(first_met(racks[home]).sum(axis=1).mean())
        if before is not None:
            fresh.append((new & (home[:, :, None] != before[:, None, :]).all(axis=2)).sum(axis=1).mean())
        before = home
        load.append(rows.max() / rows.mean())
        active.append(a)
        active_mean.append(a / m if m else 0)
        uneven.append(u)
        exceeded = max(exceeded, int(used.max()) - slots)
        extra.append(used.sum() / trace.experts - 1)
    return {'nodes_per_token': float(np.mean(touched)), 'nodes_p99': float(np.percentile(touched, 99)), 'nodes_per_token_worst_layer': float(np.mean(touched, axis=1).max()),
            'bytes_per_token_layer': float(np.mean(remote)) * ROW_BYTES, 'load_mean': float(np.mean(load)), 'load_worst': float(np.max(load)), 'batch_load_mean': float(np.mean(uneven)),
            'activated_ratio': float(np.mean(active_mean)), 'activated_max': float(np.mean(active)), 'slots_exceeded_by': max(exceeded, 0), 'copies': float(np.mean(extra)),
            'racks_per_token': float(np.mean(in_racks)), 'fresh_nodes_per_token': float(np.mean(fresh)) if fresh else 0.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('trace')
    parser.add_argument('placement')
    parser.add_argument('--experts', type=int, required=True)
    parser.add_argument('--policy', choices=POLICIES, default='cover')
    arguments = parser.parse_args()
    with open(arguments.placement, encoding='utf-8') as file:
        placement = json.load(file)
    print(json.dumps(measure(Trace.read_csv(arguments.trace, arguments.experts), placement, arguments.policy), indent=1))


if __name__ == '__main__':
    main()
