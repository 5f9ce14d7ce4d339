# SPDX-License-Identifier: Apache-2.0
"""Whoever starts everything at once starts nothing in order: the others wait for the placement service, and no longer than it takes."""
import re
import time

import pytest

from cluster import GOLDEN, Cluster

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
JOIN_S = 3   # measured: 0.1 to 0.3 s; a channel that connects only while a call runs took 5 or 10 s


def log_time(process, text):
    """When a process first said something, in seconds of the clock that all of them share."""
    for line in process.log.read_text(errors='replace').splitlines():
        if text in line:
            hours, minutes, seconds = re.search(r'time=\S+T(\d+):(\d+):([\d.]+)Z', line).groups()
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return None


def wait_for(process, text, seconds=30):
    end = time.monotonic() + seconds
    while log_time(process, text) is None:
        assert time.monotonic() < end, f'{process.name} did not say "{text}"\n{process.log.read_text(errors="replace")}'
        time.sleep(0.005)
    return log_time(process, text)


@pytest.mark.parametrize('late_s', [0.3, 2])
def test_placement_starts_last(late_s):
    with Cluster(MODEL, experts=1, start=False) as cluster:
        for process in cluster.processes()[1:]:
            process.start()
            wait_for(process, 'waiting for the placement service')
        time.sleep(late_s)
        cluster.placement.start()
        cluster.wait_ready()
        serving = wait_for(cluster.placement, 'msg=serving')
        for process in cluster.processes()[1:]:
            took = (wait_for(process, 'msg=joined') - serving) % 86400
            print(f'{process.name}, {late_s} s before the placement service: joined {took * 1000:.0f} ms after it served')
            assert took < JOIN_S
