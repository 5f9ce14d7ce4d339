# SPDX-License-Identifier: Apache-2.0
"""Much load, which is no fault: memory and descriptors are flat when it is over, and what the 8 streams beside it see is told.

Each is done twice. What the first time takes may stay, in pools; the second time may add nothing. The KV cache is small, so that the first
time touches all of it.
"""
import concurrent.futures
import socket
import time

from clients import connect
from cluster import metric
from load import prompt
from resources import descriptors, listening, memory, settle
from rows import TOLD, row
from unread import Unread
from world import until

GENERATIONS, GENERATED = 200, 100
IDLE, IDLE_CONNECTIONS = 1000, 10
CONNECTIONS = 10_000
MEMORY_SLACK = 0.02, 1 << 20   # of what it was, and bytes
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def twice(world, burst):
    """Does it twice. Says what it added the second time, and how the streams beside it fared."""
    burst()
    settle(world.core)
    before = {p.name: (memory(p), descriptors(p)) for p in world.core}
    began = time.monotonic()
    burst()
    p99 = world.load.percentile(0.99, began)
    settle(world.core)
    added = {p.name: (memory(p) - before[p.name][0], descriptors(p) - before[p.name][1]) for p in world.core}
    world.told = f'gap p99 {p99 * 1000:.0f} ms; memory at most {max(m for m, _ in added.values()) / (1 << 20):+.1f} MiB, descriptors {max(d for _, d in added.values()):+d}'
    for name, (bytes_added, descriptors_added) in added.items():
        assert descriptors_added <= 0, f'{name} has {descriptors_added} descriptors more than after the first time'
        assert bytes_added <= max(MEMORY_SLACK[0] * before[name][0], MEMORY_SLACK[1]), f'{name} takes {bytes_added} bytes more than after the first time'


# ---- rows ----


@row(TOLD, router_options=['--sequences-max', 256, '--kv-memory', '128M'])
def held_generations(world):
    """200 generations at once beside the streams, twice"""
    def burst():
        requests = [dict(tokens=prompt(i % 50), max_tokens=GENERATED, ignore_eos=True) for i in range(GENERATIONS)]
        world.routers[0].generate_many(requests)
    twice(world, burst)
    yield


@row(TOLD, router_options=['--queue-max', 1200, '--stream-stall', '0s', '--kv-memory', '64M'])
def held_idle_streams(world):
    """1,000 streams that stand still because nobody reads them, twice"""
    router = world.routers[0]

    def burst():
        clients = [Unread(router.grpc) for _ in range(IDLE_CONNECTIONS)]
        for i in range(IDLE):
            clients[i % IDLE_CONNECTIONS].generate(router.request(tokens=[1 + i, 2, 3], max_tokens=1500, ignore_eos=True, return_routing=True))
        until(lambda: metric(router.http, 'cadre_router_sequences_paused') >= IDLE, 120, 'all of them stand still')
        time.sleep(2)
        for client in clients:
            client.close()
        until(lambda: metric(router.http, 'cadre_router_sequences_paused') == 0, 30, 'all of them are gone')
    twice(world, burst)
    yield


def ask_http(connection):
    connection.sendall(b'GET /healthz HTTP/1.0\r\n\r\n')
    while connection.recv(4096):
        pass


def ask_grpc(connection):
    connection.sendall(PREFACE)
    connection.recv(4096)


def ask_nothing(connection):
    pass


def connections(address, ask):
    for _ in range(CONNECTIONS):
        with connect(address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(connection)


@row(TOLD)
def held_connections(world):
    """10,000 connections, one after the other, to each port of a router, an expert node and the placement service, twice"""
    ports = {address: ask_nothing for process in (world.placement, world.experts[0], world.routers[0].process) for address in listening(process)}
    ports.update({address: ask_grpc for address in (world.placement_grpc, world.routers[0].grpc)})
    ports.update({address: ask_http for address in (world.placement_http, world.experts[0].http, world.routers[0].http)})

    def burst():
        with concurrent.futures.ThreadPoolExecutor(len(ports)) as pool:
            for done in [pool.submit(connections, *port) for port in ports.items()]:
                done.result()
    twice(world, burst)
    yield
