# SPDX-License-Identifier: Apache-2.0
"""Planners to compare with, as they are published, and written again here. `plan` takes the routing of one layer and answers {expert: [nodes]}.

Those of GROUPINGS give every expert one node, and every node equally many experts; what room is left is then filled by `copy_hottest`, alike for all.
Those of BALANCERS decide about copies themselves.
"""
import math

import numpy as np
from scipy.optimize import linear_sum_assignment


class Layer:
    """ids [T, k] (-1: none), and the statistics that planners share. groups: of consecutive experts, 0: none."""

    def __init__(self, ids, experts, nodes, groups=0, seed=1):
        self.ids, self.experts, self.nodes, self.groups, self.seed = ids, experts, nodes, groups, seed
        self.load = np.bincount(ids[ids >= 0], minlength=experts).astype(float)
        self._pairs, self._groupings = None, {}

    @property
    def pairs(self):
        """[E, E]: tokens that select both; 0 on the diagonal."""
        if self._pairs is None:
            member = np.zeros((len(self.ids), self.experts), np.float32)
            for column in self.ids.T:
                member[np.flatnonzero(column >= 0), column[column >= 0]] = 1
            self._pairs = (member.T @ member).astype(float)
            np.fill_diagonal(self._pairs, 0)
        return self._pairs

    def grouping(self, name):
        """Of a planner of GROUPINGS; the same however many copies follow."""
        if name not in self._groupings:
            self._groupings[name] = GROUPINGS[name](self) if self.nodes > 1 else contiguous(self)
        return self._groupings[name]

    def rooms(self):
        """Experts of each node before there are copies: as even as can be."""
        return np.array([self.experts // self.nodes + (node < self.experts % self.nodes) for node in range(self.nodes)])


def slots_for(experts, nodes, copies):
    """Slots of a node, and copies over all nodes with the first of each expert: copies=0.125 means 12.5 % more copies than experts."""
    return math.ceil(experts * (1 + copies) / nodes), round(experts * (1 + copies))


def copy_hottest(layer, node_of, slots, copies_max):
    """Again and again a copy of the expert with most rows for each copy, on the least loaded node that has room and does not hold it. Rows are thought to be split evenly."""
    used = np.bincount(node_of, minlength=layer.nodes)
    held = {expert: [int(node)] for expert, node in enumerate(node_of)}
    stuck = set()
    for _ in range(copies_max - layer.experts):
        rows = np.zeros(layer.nodes)
        for expert, nodes in held.items():
            rows[nodes] += layer.load[expert] / len(nodes)
        while len(stuck) < layer.experts:
            expert = max((e for e in held if e not in stuck), key=lambda e: layer.load[e] / len(held[e]))
            free = [n for n in range(layer.nodes) if used[n] < slots and n not in held[expert]]
            if free:
                node = min(free, key=lambda n: rows[n])
                held[expert].append(node)
                used[node] += 1
                break
            stuck.add(expert)
    return held


def assign(cost, rooms):
    """Experts to nodes, rooms filled exactly, at the least sum of cost [E, N]."""
    columns = np.repeat(np.arange(len(rooms)), rooms)
    rows, chosen = linear_sum_assignment(cost[:, columns])
    node_of = np.zeros(len(cost), int)
    node_of[rows] = columns[chosen]
    return node_of


def repair(layer, node_of):
    """A partition that gives some node too many experts: each is moved where it has most partners, until rooms are kept."""
    rooms = layer.rooms()
    node_of = np.array(node_of)
    while True:
        used = np.bincount(node_of, minlength=layer.nodes)
        over, under = np.flatnonzero(used > rooms), np.flatnonzero(used < rooms)
        if not len(over):
            return node_of
        together = np.stack([layer.pairs[:, node_of == node].sum(1) for node in range(layer.nodes)], 1)
        experts = np.flatnonzero(np.isin(node_of, over))
        gain = together[experts][:, under] - together[experts, node_of[experts]][:, None]
        at = np.unravel_index(gain.argmax(), gain.shape)
        node_of[experts[at[0]]] = under[at[1]]


# ---- groupings: layer -> node of each expert ----

def contiguous(layer):
    return np.repeat(np.arange(layer.nodes), layer.rooms())


def random(layer):
    return np.random.default_rng(layer.seed).permutation(contiguous(layer))


def greedy_pairs(layer):
    """Node after node: the hottest expert that is left, then whichever has been selected most often together with those that are there."""
    node_of = np.full(layer.experts, -1)
    for node, room in enumerate(layer.rooms()):
        together = layer.load * 1e-9
        for _ in range(room):
            expert = int(np.where(node_of < 0, together, -np.inf).argmax())
            node_of[expert] = node
            together = together + layer.pairs[expert]
    return node_of


def spectral(layer):
    """In the manner of GRACE-MoE (arXiv 2509.25041): spectral clustering of co-activation, nodes filled evenly, then copies of the hottest experts."""
    from sklearn.cluster import KMeans
    degree = layer.pairs.sum(1) + 1e-9
    _, vectors = np.linalg.eigh(layer.pairs / np.sqrt(np.outer(degree, degree)))
    points = vectors[:, -layer.nodes:]
    points = points / (np.linalg.norm(points, axis=1, keepdims=True) + 1e-12)
    centers = KMeans(min(layer.nodes, layer.experts), n_init=10, random_state=layer.seed).fit(points).cluster_centers_
    return assign(((points[:, None] - centers[None]) ** 2).sum(2), layer.rooms())


def metis(layer):
    """k-way partition of the graph of pairs, weighted by how often they are selected together."""
    import pymetis
    weights = np.ceil(layer.pairs * (1e6 / max(layer.pairs.max(), 1))).astype(int)
    neighbours = [np.flatnonzero(row) for row in weights]
    starts = np.concatenate([[0], np.cumsum([len(n) for n in neighbours])])
    if starts[-1] == 0:
        return contiguous(layer)
    adjacent = np.concatenate(neighbours)
    edges = np.concatenate([weights[expert, n] for expert, n in enumerate(neighbours)])
    _, node_of = pymetis.part_graph(layer.nodes, adjacency=pymetis.CSRAdjacency(starts, adjacent), eweights=edges, recursive=False, options=pymetis.Options(seed=layer.seed, ufactor=1))
    return repair(layer, node_of)


_kahypar = None


def mt_kahypar(layer):
    """Connectivity minus one over the hyperedges of tokens: nodes touched, exactly, while there are no copies."""
    global _kahypar
    import mtkahypar
    if _kahypar is None:
        _kahypar = mtkahypar.initialize(2, print_warnings=False)
    mtkahypar.set_seed(layer.seed)
    sets, weights = np.unique(np.sort(layer.ids, axis=1), axis=0, return_counts=True)
    edges = [[int(e) for e in row if e >= 0] for row in sets]
    kept = [i for i, edge in enumerate(edges) if len(edge) > 1]
    if not kept:
        return contiguous(layer)
    context = _kahypar.context_from_preset(mtkahypar.PresetType.QUALITY)
    context.set_partitioning_parameters(layer.nodes, 0.001, mtkahypar.Objective.KM1)
    context.set_individual_target_block_weights([int(room) for room in layer.rooms()])
    context.logging = False
    graph = _kahypar.create_hypergraph(context, layer.experts, len(kept), [edges[i] for i in kept], [1] * layer.experts, [int(weights[i]) for i in kept])
    partition = graph.partition(context)
    return repair(layer, [partition.block_id(expert) for expert in range(layer.experts)])


GROUPINGS = {'contiguous': contiguous, 'random': random, 'greedy-pairs': greedy_pairs, 'spectral': spectral, 'metis': metis, 'mt-kahypar': mt_kahypar}


# ---- balancers: layer, slots of a node, copies in all -> {expert: [nodes]} ----

def pack(weights, bins, room):
    """Heaviest first, each to the lightest bin that has room (EPLB's balanced packing). -> bin of each"""
    chosen = np.zeros(len(weights), int)
    load, used = np.zeros(bins), np.zeros(bins, int)
    for item in np.argsort(-weights, kind='stable'):
        best = min((b for b in range(bins) if used[b] < room[b]), key=lambda b: load[b])
        chosen[item] = best
        load[best] += weights[item]
        used[best] += 1
    return chosen


def replicate(load, count):
    """EPLB: one copy more, again and again, for the expert with most rows for each copy. -> copies of each"""
    copies = np.ones(len(load), int)
    for _ in range(count - len(load)):
        copies[(load / copies).argmax()] += 1
    return copies


def eplb_global(layer, slots, copies_max):
    copies = replicate(layer.load, copies_max)
    held = {expert: [] for expert in range(layer.experts)}
    items = np.repeat(np.arange(layer.experts), copies)
    for expert, node in zip(items, pack(np.repeat(layer.load / copies, copies), layer.nodes, np.full(layer.nodes, slots))):
        if node not in held[expert]:      # two copies on one node are one, in EPLB too
            held[expert].append(int(node))
    return held


def eplb_hierarchical(layer, slots, copies_max):
    """Groups of experts to nodes first, then copies within each node, one GPU a node: for models whose groups the nodes divide; for others EPLB itself takes its global form."""
    if not layer.groups or layer.groups % layer.nodes:
        return eplb_global(layer, slots, copies_max)
    size, each = layer.experts // layer.groups, layer.groups // layer.nodes
    by_group = layer.load.reshape(layer.groups, size).sum(1)
    node_of = np.arange(layer.groups) if each == 1 else pack(by_group, layer.nodes, np.full(layer.nodes, each))
    return {expert: [int(node)] for expert, node in enumerate(np.repeat(node_of, size))}      # a node's copies of what it has change nothing


BALANCERS = {'eplb': eplb_global, 'eplb-hierarchical': eplb_hierarchical}


def plan(name, layer, copies):
    slots, copies_max = slots_for(layer.experts, layer.nodes, copies)
    if name in BALANCERS:
        return BALANCERS[name](layer, slots, copies_max)
    return copy_hottest(layer, layer.grouping(name), slots, copies_max)
