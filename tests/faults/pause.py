# SPDX-License-Identifier: Apache-2.0
"""Processes that stand still and go on: only their silence tells."""
import functools
import signal

from rows import HEDGED, KERNEL, SILENCE, TOLD, add


def pause(choose, world):
    process = choose(world)
    process.kill(signal.SIGSTOP)
    yield
    process.kill(signal.SIGCONT)


def node(world):
    return world.experts[1]


def router(world):
    world.struck = {stream.index for stream in world.load.streams if stream.at == 0}
    return world.routers[0].process


def placement(world):
    return world.placement


for seconds in (3, 5):
    add(functools.partial(pause, node), f'pause-node-{seconds}s-1', f'SIGSTOP of one of three expert nodes for {seconds} s, 1 copy', SILENCE, hold=seconds)
    add(functools.partial(pause, node), f'pause-node-{seconds}s-2', f'SIGSTOP of one of three expert nodes for {seconds} s, 2 copies', HEDGED, hold=seconds, copies=2)
    add(functools.partial(pause, node), f'pause-node-{seconds}s-2-unhedged', 'the same, routers with --hedge-max 0', SILENCE, hold=seconds, copies=2, router_options=['--hedge-max', '0'])
    add(functools.partial(pause, router), f'pause-router-{seconds}s', f'SIGSTOP of one of two routers for {seconds} s; its own streams wait for it', TOLD, hold=seconds, routers=2)
    add(functools.partial(pause, router), f'pause-router-{seconds}s-cadrectl', f'SIGSTOP of one of two routers for {seconds} s, the clients are cadrectl', SILENCE, hold=seconds, routers=2, cadrectl=True)
    add(functools.partial(pause, placement), f'pause-placement-{seconds}s', f'SIGSTOP of the placement service for {seconds} s', KERNEL, hold=seconds)
