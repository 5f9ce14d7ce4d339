# SPDX-License-Identifier: Apache-2.0
"""Whoever starts everything at once starts nothing in order: the others wait for the placement service, and no longer than it takes."""
import time

import pytest

from cluster import GOLDEN, Cluster, wait_for_log

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
JOIN_S = 3   # measured: 0.1 to 0.3 s; a channel that connects only while a call runs took 5 or 10 s


@pytest.mark.parametrize('late_s', [0.3, 2])
def test_placement_starts_last(late_s):
    with Cluster(MODEL, experts=1, start=False) as cluster:
        for process in cluster.processes()[1:]:
            process.start()
            wait_for_log(process, 'waiting for the placement service')
        time.sleep(late_s)
        cluster.placement.start()
        cluster.wait_ready()
        serving = wait_for_log(cluster.placement, 'msg=serving')
        for process in cluster.processes()[1:]:
            took = (wait_for_log(process, 'msg=joined') - serving) % 86400
            print(f'{process.name}, {late_s} s before the placement service: joined {took * 1000:.0f} ms after it served')
            assert took < JOIN_S
