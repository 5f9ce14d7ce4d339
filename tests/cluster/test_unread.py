# SPDX-License-Identifier: Apache-2.0
"""Clients that do not read harm nobody else."""
import time

from cluster import GOLDEN, Cluster, embedded, metric
from unread import Unread

MODEL = GOLDEN / 'olmoe-a' / 'model'
SLOTS = 64


def wait_for(router, name, value, seconds=60):
    end = time.monotonic() + seconds
    while metric(router.http, name) != value:
        assert time.monotonic() < end, f'{name} is {metric(router.http, name)}, not {value}'
        time.sleep(0.02)


def start_unread(router, count, client=None):
    client = client or Unread(router.grpc)
    for i in range(count):
        client.generate(router.request(tokens=[1 + i, 2, 3], max_tokens=3000, ignore_eos=True, return_routing=True))
    return client


def test_as_many_as_there_are_slots():
    expected = embedded(MODEL, [9, 8, 7], 30)['digest']
    with Cluster(MODEL, experts=1, router_options=['--sequences-max', SLOTS]) as cluster:
        router = cluster.routers[0]
        client = start_unread(router, SLOTS)
        wait_for(router, 'cadre_router_sequences_paused', SLOTS)
        assert metric(router.http, 'cadre_router_sequences_running') == 0
        assert router.generate(tokens=[9, 8, 7], max_tokens=30, ignore_eos=True, timeout=20).digest == expected
        client.close()
        wait_for(router, 'cadre_router_sequences_paused', 0)
        assert metric(router.http, 'cadre_router_kv_pages_free') == metric(router.http, 'cadre_router_kv_pages')


def test_they_end_after_a_while():
    with Cluster(MODEL, experts=1, router_options=['--stream-stall', '1s']) as cluster:
        router = cluster.routers[0]
        began = time.monotonic()
        client = start_unread(router, SLOTS)
        client.generate(router.request(tokens=[1, 2, 3], max_tokens=3, ignore_eos=True))   # finished, but not taken
        client.wait_for(b'the client took nothing for 1 s', SLOTS + 1, 30)
        assert time.monotonic() - began >= 1
        wait_for(router, 'cadre_router_sequences_paused', 0)
        assert metric(router.http, 'cadre_router_calls_stalled_total') == SLOTS + 1
        assert metric(router.http, 'cadre_router_kv_pages_free') == metric(router.http, 'cadre_router_kv_pages')
        client.close()
