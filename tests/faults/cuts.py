# SPDX-License-Identifier: Apache-2.0
"""Links that carry nothing, one way or both, or badly: only silence tells, and each pair of processes hears another one."""
import functools
import time

from network import NetworkWorld
from rows import KERNEL, SILENCE, TOLD, add, row
from world import until

CUT_S = 8   # longer than the lease, so that everybody has drawn conclusions

PAIRS = {   # whose link, and what the clients may notice of it
    'router-node': ('router-0', 'expert-1', SILENCE),
    'node-placement': ('expert-1', 'placement', KERNEL),
    'router-placement': ('router-0', 'placement', KERNEL),
}


def healed(world):
    world.network.heal()
    until(world.all_live, 20, 'every node is live and every expert placed, after the link is whole')


def cut(ways, world):
    for a, b in ways:
        world.network.rule('cut', a, b)
    yield
    healed(world)


@row(TOLD, world=NetworkWorld, routers=2)
def cut_router_from_all_nodes(world):
    """one of two routers cut off from all nodes for 4 s; its own streams wait, the others' may not"""
    world.struck = {stream.index for stream in world.load.streams if stream.at == 0}
    began = time.monotonic()
    for node in world.experts:
        world.network.both_ways('cut', 'router-0', node.name)
    time.sleep(4)
    others = world.load.longest_gap(began, world.struck)
    world.network.heal()
    yield
    assert others <= KERNEL, f'the other router has a gap of {others:.2f} s'
    healed(world)


def worsen(verb, value, world):
    """Every link of one expert node: to routers, to the placement service."""
    for other in ('router-0', 'placement'):
        world.network.both_ways(verb, 'expert-1', other, value)
    yield
    healed(world)


def add_cuts():
    for pair, (a, b, aim) in PAIRS.items():
        for name, words, ways in ((f'{pair}', f'between {a} and {b}', [(a, b), (b, a)]), (f'{pair}-there', f'from {a} to {b}', [(a, b)]), (f'{pair}-back', f'from {b} to {a}', [(b, a)])):
            for copies in (1, 2) if pair == 'router-node' else (1,):
                add(functools.partial(cut, ways), f'cut-{name}-{copies}', f'link cut {words} for {CUT_S} s, {copies} {"copy" if copies == 1 else "copies"}', aim,
                    hold=CUT_S, world=NetworkWorld, copies=copies)


add(functools.partial(cut, []), 'relay', 'nothing, over the relay: its own noise', TOLD, world=NetworkWorld)
add_cuts()
add(functools.partial(worsen, 'delay', 200), 'delay-200ms', '200 ms more for every packet from and to one expert node, for 8 s', TOLD, hold=8, world=NetworkWorld)
add(functools.partial(worsen, 'lose', 2), 'loss-2pct', '2 % of the packets from and to one expert node lost, for 8 s', TOLD, hold=8, world=NetworkWorld)
