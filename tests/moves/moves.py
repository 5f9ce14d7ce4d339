# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of moves: what is done to a cluster under load while users are watched.

A row is a function of a running cluster that returns when everything has come to rest. Its doc string is its text in the table.
"""
import signal
import time

from cluster import metric
from moving import MovingWorld, share_done, shifted
from world import until

QUARTER = 0.25
HUNG_S = 3
ROWS = []


class Row:
    long, needs, kind = False, (), 'moves'

    def __init__(self, act, title, aims, options):
        self.act, self.name, self.title, self.aims, self.options = act, act.__name__.replace('_', '-'), title, aims, options

    def make_world(self, **more):
        return MovingWorld(**{**self.options, **more})


def row(aims=True, **options):
    """Makes a function a row. `options` go to its cluster. Without `aims`, p99 and the longest gap are told."""
    def decorate(act):
        ROWS.append(Row(act, act.__doc__, aims, options))
        return act
    return decorate


def ring(world):
    """Each node and the next one."""
    names = [node.name for node in world.experts]
    return list(zip(names, names[1:] + names[:1]))


@row(experts=4)
def nothing(world):
    """nothing, for as long as the others take: the machine's own noise"""
    world.watch(world.pace_s)


@row(experts=4, share=QUARTER)
def experts_move(world):
    """a quarter of the experts moves, each node's to the next one: `map apply`"""
    before = world.holders()
    wanted = shifted(before, ring(world), QUARTER)
    world.operate('map', 'apply', world.plan_file(wanted))
    world.count(before, world.settle(wanted.__eq__))


@row(experts=4, share=1 / 5)
def node_joins(world):
    """an expert node joins four"""
    before = world.holders()
    name = world.newcomer(world.add_expert).name
    world.count(before, world.settle(lambda now: sum(name in nodes for nodes in now.values()) >= 0.85 * len(before) / 5))


@row(experts=5, share=1 / 5)
def node_drains(world):
    """one of five expert nodes is emptied: `drain --wait`"""
    before, name = world.holders(), world.experts[-1].name
    world.operate('drain', name, '--wait')
    world.count(before, world.settle(lambda now: not any(name in nodes for nodes in now.values())))
    world.stop(world.experts[-1])


# ---- a rebalance is killed half-way ----


def half_way(world, kill):
    """Half of the first node's experts goes to the second one, half of the third's to the fourth; `kill` strikes when half of them have."""
    before, names = world.holders(), [node.name for node in world.experts]
    wanted = shifted(before, [names[:2], names[2:]], 0.5)
    world.operate('map', 'apply', world.plan_file(wanted))
    until(lambda: share_done(world.holders(), before, wanted) >= 0.5, 10 * world.pace_s, 'half of the experts are where they go')
    kill()
    world.count(before, world.settle(wanted.__eq__))


def again(world, process):
    """Killed, and restarted as its supervisor would."""
    process.kill()
    world.restart(process)


@row(experts=4, share=QUARTER, aims=False)
def source_killed(world):
    """experts move, half-way kill -9 of a node that they come from, restarted at once"""
    half_way(world, lambda: again(world, world.experts[0]))


@row(experts=4, share=QUARTER, aims=False)
def target_killed(world):
    """experts move, half-way kill -9 of a node that they go to, restarted at once"""
    half_way(world, lambda: again(world, world.experts[1]))


@row(experts=4, share=QUARTER)
def placement_killed(world):
    """experts move, half-way kill -9 of the placement service, restarted at once"""
    half_way(world, lambda: again(world, world.placement))


@row(experts=4, share=QUARTER, routers=2, resumes=True)
def router_killed(world):
    """experts move, half-way kill -9 of one of two routers, restarted at once; its own streams resume at the other one, and do not count"""
    def kill():
        world.struck = world.load.running_at(0)
        again(world, world.routers[0].process)
    half_way(world, kill)


# ---- a node hangs ----


COUNTED = ('cadre_router_expert_calls_total', 'cadre_router_expert_calls_late_total', 'cadre_router_expert_calls_hedged_total', 'cadre_router_hedges_won_total',
           'cadre_router_hedge_calls_total', 'cadre_router_hedges_refused_total', 'cadre_router_rows_diverted_total', 'cadre_router_breakers_opened_total')


def hang(world):
    """SIGSTOP of one of four nodes, all of whose experts have a copy elsewhere; what the router did about it is told."""
    router, node = world.routers[0], world.experts[1]
    before = {name: metric(router.http, name) for name in COUNTED}
    node.kill(signal.SIGSTOP)
    time.sleep(HUNG_S)
    counted = [metric(router.http, name) - before[name] for name in COUNTED]
    world.told.append('of {:.0f} calls {:.0f} were late and {:.0f} hedged, {:.0f} of these with success, by {:.0f} calls; --hedge-max forbade it {:.0f} times; {:.0f} rows were kept from it, and a breaker opened {:.0f} times'.format(*counted))
    node.kill(signal.SIGCONT)
    world.settle(lambda now: all(len(nodes) == 2 for nodes in now.values()))


@row(aims=False, experts=4, copies=2)
def node_hangs(world):
    """SIGSTOP of one of four expert nodes for 3 s, 2 copies"""
    hang(world)


@row(aims=False, experts=4, copies=2, router_options=['--hedge-max', '0'])
def node_hangs_unhedged(world):
    """the same without hedging: `--hedge-max 0`"""
    hang(world)
