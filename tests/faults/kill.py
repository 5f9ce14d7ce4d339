# SPDX-License-Identifier: Apache-2.0
"""Processes that die: the kernel of their host tells."""
import signal

from rows import KERNEL, PLACEMENT_AND_NODE, RESUMED, TOLD, row
from world import until


@row(TOLD)
def nothing(world):
    """nothing: what the machine's own noise is"""
    yield


@row(KERNEL)
def stop_node(world):
    """SIGTERM of one of three expert nodes, 1 copy"""
    world.experts[1].kill(signal.SIGTERM)
    yield


@row(KERNEL, copies=(1, 2))
def kill_node(world):
    """kill -9 of one of three expert nodes"""
    world.experts[1].kill()
    yield


@row(KERNEL, copies=(1, 2))
def kill_two_nodes(world):
    """kill -9 of two of three expert nodes"""
    world.experts[0].kill()
    world.experts[1].kill()
    yield


@row(TOLD, copies=(1, 2))
def kill_all_nodes(world):
    """kill -9 of all expert nodes, restarted at once"""
    for node in world.experts:
        node.kill()
    for node in world.experts:
        world.restart(node)
    yield
    until(world.all_live, 15, 'every node is live and every expert placed')


@row(KERNEL, copies=(1, 2))
def kill_node_restarted(world):
    """kill -9 of one expert node, restarted at once under its id"""
    world.experts[1].kill()
    world.restart(world.experts[1])
    yield
    until(world.all_live, 15, 'every node is live and every expert placed')


@row(KERNEL, hold=3)
def kill_placement(world):
    """kill -9 of the placement service, restarted after 3 s"""
    world.placement.kill()
    yield
    world.restart(world.placement)
    until(world.all_live, 15, 'every node is live and every expert placed')


@row(PLACEMENT_AND_NODE, copies=(1, 2))
def kill_placement_and_node(world):
    """kill -9 of the placement service and one expert node, the service restarted at once"""
    world.placement.kill()
    world.experts[1].kill()
    world.restart(world.placement)
    yield
    until(lambda: world.live('expert') == 2 and world.status()['experts_unplaced'] == 0, 15, 'every expert is placed on the nodes that are left')


@row(RESUMED, routers=2, resumes=True)
def kill_router(world):
    """kill -9 of one of two routers, its clients resume at the other"""
    world.struck = {stream.index for stream in world.load.streams if stream.at == 0}
    world.routers[0].process.kill()
    yield


@row(RESUMED, routers=2, cadrectl=True)
def kill_router_cadrectl(world):
    """kill -9 of one of two routers, the clients are cadrectl"""
    world.struck = {stream.index for stream in world.load.streams if stream.at == 0}
    world.routers[0].process.kill()
    yield


@row(TOLD, routers=2, resumes=True)
def kill_all_routers(world):
    """kill -9 of both routers, restarted at once, clients resume"""
    for router in world.routers:
        router.process.kill()
    for router in world.routers:
        world.restart(router.process)
    yield
