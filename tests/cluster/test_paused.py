# SPDX-License-Identifier: Apache-2.0
"""A process that is stopped for less than its lease and then continues is not declared dead."""
import signal
import time

from cluster import GOLDEN, Cluster, wait_for_log

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
LEASE_S = 5
PAUSE_S = 3


def clock():
    """The clock of the logs: seconds of the day in UTC."""
    return time.time() % 86400


def sleep_until(when):
    time.sleep(max(0, (when - clock()) % 86400))


def test_paused_node_reports_at_once():
    """It sleeps 1.67 s from report to report. Stopped 0.9 s into a sleep, it is due when it wakes, 3.9 s after its last report; if it
    slept on for the whole 1.67 s, its lease would be over."""
    with Cluster(MODEL, experts=2, placement_options=['--lease', f'{LEASE_S}s']) as cluster:
        victim = cluster.experts[0]
        sleep_until(wait_for_log(victim, 'msg=joined') + 2 * LEASE_S / 3 + 0.9)
        victim.kill(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        victim.kill(signal.SIGCONT)
        woke = time.monotonic()
        while time.monotonic() < woke + LEASE_S:
            assert 'msg=dead' not in cluster.placement.log.read_text(), f'declared dead {time.monotonic() - woke:.1f} s after it woke up'
            time.sleep(0.05)
        print(f'SIGSTOP for {PAUSE_S} s under a lease of {LEASE_S} s: it stays')


def test_paused_placement_service_buries_nobody():
    """While it was stopped, reports waited in its sockets: it reads them before it judges."""
    with Cluster(MODEL, experts=2, placement_options=['--lease', '2s']) as cluster:
        for pause_s in (2.2, 3, 6):
            cluster.placement.kill(signal.SIGSTOP)
            time.sleep(pause_s)
            cluster.placement.kill(signal.SIGCONT)
            time.sleep(1)
            assert 'msg=dead' not in cluster.placement.log.read_text(), f'after a pause of {pause_s} s'
            print(f'SIGSTOP of the placement service for {pause_s} s under a lease of 2 s: nobody is declared dead')
