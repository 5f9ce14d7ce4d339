# SPDX-License-Identifier: Apache-2.0
"""Clients that do harm, on purpose or not: nobody else may notice."""
import contextlib
import socket
import time

import grpc

from cluster import http, metric
from rows import KERNEL, row
from unread import Unread
from world import until

UNREAD = 64         # as many as a router has slots
CONNECTIONS = 200   # more than an admin port keeps
LONG = 17_000       # bytes; gRPC's own limit for all metadata of a call is about 16,000


@row(KERNEL, hold=5)
def unread_streams(world):
    """64 streams on one HTTP/2 connection whose client reads nothing, from when on they stand still"""
    router, began = world.routers[0], time.monotonic()
    client = Unread(router.grpc)
    for i in range(UNREAD):
        client.generate(router.request(tokens=[1 + i, 2, 3], max_tokens=1500, ignore_eos=True, return_routing=True))
    until(lambda: metric(router.http, 'cadre_router_sequences_paused') >= UNREAD, 30, 'all of them stand still')
    world.since = time.monotonic()
    world.told = f'until then, when they compute like all others and wait for the same slots, the longest gap is {world.load.longest_gap(began) * 1000:.0f} ms'
    yield
    client.close()


def admin_ports(world):
    return [world.placement_http, *[node.http for node in world.experts], *[router.http for router in world.routers]]


def connect(address):
    host, port = address.rsplit(':', 1)
    return socket.create_connection((host, int(port)), timeout=5)


def hold_admin_ports(world, prepare):
    """Each of them has CONNECTIONS open that ask for nothing whole; whoever comes next is answered."""
    with contextlib.ExitStack() as stack:
        for address in admin_ports(world):
            for _ in range(CONNECTIONS):
                prepare(stack.enter_context(connect(address)))
        for address in admin_ports(world):
            try:
                http(address, '/healthz', timeout=2)
            except OSError as error:
                raise AssertionError(f'/healthz at {address} does not answer: {error}') from error
        yield


@row(KERNEL, hold=1)
def idle_admin_connections(world):
    """200 idle connections to the HTTP port of every process"""
    yield from hold_admin_ports(world, lambda connection: None)


@row(KERNEL, hold=1)
def half_closed_admin_connections(world):
    """200 half-closed connections to the HTTP port of every process"""
    yield from hold_admin_ports(world, lambda connection: connection.shutdown(socket.SHUT_WR))


@row(KERNEL, hold=1)
def half_admin_requests(world):
    """200 connections with half a request to the HTTP port of every process"""
    yield from hold_admin_ports(world, lambda connection: connection.sendall(b'GET /healthz HTTP/1.1\r\nHost: '))


@row(KERNEL)
def oversize_metadata(world):
    """a call with 17 kB of metadata on the connection of all streams"""
    client = world.load.clients[0]
    request = client.Request(max_tokens=1)
    request.tokens.ids.append(1)
    try:
        list(client.generate(request, metadata=(('x-long', 'v' * LONG),), timeout=20))
    except grpc.RpcError:
        pass   # refused, or not: the others count
    yield
