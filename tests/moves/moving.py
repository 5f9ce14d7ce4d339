# SPDX-License-Identifier: Apache-2.0
"""Clusters whose experts move, and what a row of the table of moves is.

A row is a function of a running cluster under load that does something to it and returns when everything has come to rest. Its doc string is
its text in the table.
"""
import math
import time

import reflect
from cluster import metric
from world import World, until

ROWS = []
REST_S = 0.5       # nothing changes for so long: it has come to rest
SETTLE_S = 120
POLL_S = 0.25


class Row:
    long, needs = False, ()

    def __init__(self, act, options):
        self.act, self.options = act, options
        self.name, self.title = act.__name__.replace('_', '-'), act.__doc__

    def make_world(self, **more):
        return MovingWorld(**{**self.options, **more})


def row(**options):
    """Makes a function a row. `options` go to its cluster."""
    def decorate(act):
        ROWS.append(Row(act, options))
        return act
    return decorate


class MovingWorld(World):
    def __init__(self, **options):
        super().__init__(**options)
        self.told = []
        self.moves = self.bytes = 0

    def __enter__(self):
        super().__enter__()
        self.server = reflect.Server(self.placement_grpc)
        self.settle()
        return self

    def __exit__(self, *_):
        if hasattr(self, 'server'):
            self.server.close()
        super().__exit__()

    def call(self, method, timeout=5, **fields):
        return self.server.method('cadre.v1.Placement', method)(self.server.message(f'cadre.v1.{method}Request', **fields), timeout=timeout)

    def holders(self):
        """{(layer, expert): ids of the nodes that hold it}, by the map in force."""
        found = self.call('GetMap')
        return {(layer.layer, expert): frozenset(found.nodes[i].id for i in replicas.nodes) for layer in found.layers for expert, replicas in enumerate(layer.experts)}

    def held(self):
        """Copies that each live node has in its memory, those on their way out included."""
        return [metric(node.http, 'cadre_expert_held') for node in self.experts if node.alive()]

    def settle(self):
        """Until nodes have held just what the map says for REST_S. Returns it, as `holders` does."""
        end, since, last = time.monotonic() + SETTLE_S, time.monotonic(), None
        while time.monotonic() - since < REST_S:
            assert time.monotonic() < end, f'experts still move after {SETTLE_S} s'
            time.sleep(POLL_S)
            now = self.holders(), self.held()
            if now != last or sum(map(len, now[0].values())) != sum(now[1]):
                since, last = time.monotonic(), now
        assert all(last[0].values()), 'an expert is on no node'
        return last[0]

    def count(self, before, after):
        """What was moved between two maps: copies that were not there."""
        node = self.experts[0]
        self.moves = sum(len(after[cell] - before[cell]) for cell in before)
        self.bytes = self.moves * metric(node.http, 'cadre_expert_weights_bytes') / metric(node.http, 'cadre_expert_held')


# ---- rows ----


@row(experts=4)
def nothing(world):
    """nothing, for as long as the others take: the machine's own noise"""
    time.sleep(15)


@row(experts=4)
def node_joins(world):
    """an expert node joins four"""
    before = world.holders()
    node = world.newcomer(world.add_expert)
    until(lambda: not world.holds_nothing(node.name), 10, 'the new node has experts')
    after = world.settle()
    world.count(before, after)
    share = sum(node.name in copies for copies in after.values()) / len(after)
    assert math.isclose(share, 1 / 5, abs_tol=0.05), f'the new node holds {share:.0%} of the experts'
