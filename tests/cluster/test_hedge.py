# SPDX-License-Identifier: Apache-2.0
"""An expert node that hangs, and others with copies: its calls are hedged, no answer waits for the heartbeat, and it is told everywhere."""
import signal
import time

from cluster import GOLDEN, Cluster, embedded, metric, until

MODEL = GOLDEN / 'qwen3moe-a' / 'model'


def generate(router, seed):
    return router.generate(tokens=[(7 * seed + 3 * i) % 300 for i in range(12)], max_tokens=30, ignore_eos=True)


def expert_calls(cluster):
    """What the router tells of its calls."""
    return next(node for node in cluster.status()['nodes'] if node['role'] == 'router')['expert_calls']


def test_a_hung_node_is_not_waited_for():
    """Until the heartbeat has found out: after it, the node is one that is lost, not late."""
    with Cluster(MODEL, experts=3, placement_options=['--copies', 2]) as cluster:
        router, victim = cluster.routers[0], cluster.experts[1]
        expected = [generate(router, seed).digest for seed in range(8)]   # and how long calls take is known
        victim.kill(signal.SIGSTOP)
        began, hedged, won, diverted, results = time.monotonic(), 0, 0, 0, []
        try:
            for seed in range(8):
                results.append(generate(router, seed))
                usage = results[-1].usage
                hedged, won, diverted = hedged + usage.calls_hedged, won + usage.hedges_won, diverted + usage.rows_diverted
            took = time.monotonic() - began
        finally:
            victim.kill(signal.SIGCONT)
        print(f'8 answers beside a hung node: {took:.2f} s; {hedged} calls hedged, {won} hedges won, {diverted} rows diverted')
        assert [result.digest for result in results] == expected
        assert won > 0 and hedged >= won and diverted > 0
        assert metric(router.http, 'cadre_router_hedges_won_total') >= won
        assert metric(router.http, 'cadre_router_rows_diverted_total') >= diverted
        calls = expert_calls(cluster)
        assert calls['late'] >= 0 and calls['breakers'] == [] and calls['breakers_open'] == 0


def test_whom_a_router_leaves_out_is_told():
    """Every call takes too long here, so that every node's breaker opens; each is somebody's last copy then, and all answers are the same."""
    with Cluster(MODEL, experts=2, placement_options=['--copies', 2], router_options=['--breaker-p99', '1us']) as cluster:
        router = cluster.routers[0]
        expected = embedded(MODEL, range(5, 17), 8)
        for _ in range(4):
            assert router.generate(tokens=list(range(5, 17)), max_tokens=8, ignore_eos=True).digest == expected['digest']
        calls = until(lambda: (calls := expert_calls(cluster))['breakers'] and calls, 10)
        assert calls['breakers_open'] == len(calls['breakers']) and calls['breakers'][0]['copy'] is None
        text = cluster.command('status').stdout
        assert 'router-0 leaves out expert-' in cluster.command('top', '--once').stdout
        assert 'leaves expert-' in text and 'while others have copies: 99 of 100 calls take up to' in text, text
        assert metric(router.http, 'cadre_router_breakers_opened_total') >= 1
