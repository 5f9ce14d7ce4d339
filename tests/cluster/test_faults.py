# SPDX-License-Identifier: Apache-2.0
"""The promise that a dead or slow node costs time, never an answer."""
import concurrent.futures
import signal
import time

import grpc
import pytest

from cluster import GOLDEN, Cluster, code_of, embedded

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
STREAMS, TOKENS = 16, 200


def prompts():
    return [[(i * 31 + s * 17 + 3) % 480 for i in range(10 + s)] for s in range(STREAMS)]


@pytest.fixture(scope='module')
def expected():
    with Cluster(MODEL, experts=1) as cluster:
        return [r.digest for r in cluster.routers[0].generate_many([dict(tokens=p, max_tokens=TOKENS, ignore_eos=True) for p in prompts()])]


def run_with_fault(cluster, fault, expected):
    """16 streams; `fault` strikes when all of them flow. Returns the longest gap between two tokens of a stream, in seconds."""
    router = cluster.routers[0]
    router.server
    flowing, gaps = [0] * STREAMS, [0.0] * STREAMS

    def run(index, prompt):
        digest, last = None, time.monotonic()
        for message in router.stream(tokens=prompt, max_tokens=TOKENS, ignore_eos=True):
            now = time.monotonic()
            if flowing[index] > 0:
                gaps[index] = max(gaps[index], now - last)
            last = now
            flowing[index] += len(message.token_ids)
            digest = message.digest or digest
        return digest

    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        futures = [pool.submit(run, i, p) for i, p in enumerate(prompts())]
        while not all(n >= 3 for n in flowing):
            assert not any(f.done() for f in futures), 'a stream ended before the fault could strike'
            time.sleep(0.001)
        fault()
        digests = [f.result() for f in futures]
    assert digests == expected
    return max(gaps)


def test_killed_expert_costs_time_and_no_answer(expected):
    with Cluster(MODEL, experts=3) as cluster:
        gap = run_with_fault(cluster, cluster.experts[1].kill, expected)
        print(f'kill -9 of 1 of 3 expert nodes under {STREAMS} streams: longest gap between two tokens {gap * 1000:.0f} ms, every digest equal')
        status = cluster.status()
        assert status['experts_unplaced'] == 0


def test_killed_expert_is_not_waited_for(expected):
    """A host that refuses connections tells that the process is gone: neither the grace nor the lease is waited for, here 10 minutes each."""
    with Cluster(MODEL, experts=3, placement_options=['--lease', '10m', '--grace', '10m']) as cluster:
        gap = run_with_fault(cluster, cluster.experts[1].kill, expected)
        print(f'the same, with a long grace: longest gap {gap * 1000:.0f} ms')


def test_killed_expert_that_comes_back(expected):
    with Cluster(MODEL, experts=2) as cluster:
        victim = cluster.experts[0]

        def fault():
            victim.kill()
            victim.popen.wait()
            victim.start()
        gap = run_with_fault(cluster, fault, expected)
        print(f'kill -9 and restart of 1 of 2 expert nodes: longest gap {gap * 1000:.0f} ms')


def test_stopped_expert_says_goodbye(expected):
    with Cluster(MODEL, experts=3) as cluster:
        gap = run_with_fault(cluster, lambda: cluster.experts[1].kill(signal.SIGTERM), expected)
        print(f'SIGTERM of 1 of 3 expert nodes: longest gap {gap * 1000:.0f} ms')
        assert 'said goodbye' in cluster.placement.log.read_text()


def test_hung_expert_loses_its_lease(expected):
    """Its experts are loaded elsewhere when the lease ends. The lease is given by the old name of the option, which still works, with a warning."""
    with Cluster(MODEL, experts=3, placement_options=['--lease-ms', '1000']) as cluster:
        assert cluster.placement.log.read_text().count('old=lease-ms new=lease') == 1
        gap = run_with_fault(cluster, lambda: cluster.experts[2].kill(signal.SIGSTOP), expected)
        print(f'SIGSTOP of 1 of 3 expert nodes: longest gap {gap * 1000:.0f} ms')


def test_placement_may_be_away(expected):
    with Cluster(MODEL, experts=2) as cluster:
        gap = run_with_fault(cluster, cluster.placement.kill, expected)
        print(f'kill -9 of the placement service: longest gap {gap * 1000:.0f} ms')
        cluster.placement.popen.wait()
        before = metric_epoch(cluster)
        cluster.placement.start()
        run_with_fault(cluster, lambda: None, expected)
        end = time.monotonic() + 20
        while cluster_status_nodes(cluster) < 3:
            assert time.monotonic() < end, cluster.logs()
            time.sleep(0.05)
        assert metric_epoch(cluster) >= before


@pytest.mark.parametrize('after_s', [0, 1])
def test_placement_and_expert_killed_together(expected, after_s):
    """The restarted service finds out that the node's process is gone; it does not wait for --rejoin, here 10 minutes."""
    with Cluster(MODEL, experts=3, placement_options=['--rejoin', '10m', '--lease', '10m', '--grace', '10m']) as cluster:
        def fault():
            cluster.placement.kill()
            cluster.experts[1].kill()
            for process in (cluster.placement, cluster.experts[1]):
                process.popen.wait()
            time.sleep(after_s)
            cluster.placement.start()
        gap = run_with_fault(cluster, fault, expected)
        print(f'kill -9 of the placement service and 1 of 3 expert nodes, the former started again after {after_s} s: longest gap {gap * 1000:.0f} ms')
        assert cluster.status()['experts_unplaced'] == 0


def metric_epoch(cluster):
    from cluster import metric
    return metric(cluster.routers[0].http, 'cadre_router_map_epoch')


def cluster_status_nodes(cluster):
    try:
        return sum(n['state'] == 'live' for n in cluster.status()['nodes'])
    except Exception:
        return 0


def test_waiting_requests_keep_their_deadlines():
    """Every expert node gone: a request waits, ends at its deadline, and says so; the next one works when a node is back."""
    with Cluster(MODEL, experts=1) as cluster:
        router = cluster.routers[0]
        want = router.generate(tokens=[1, 2, 3], max_tokens=4, ignore_eos=True).digest
        cluster.experts[0].kill()
        cluster.experts[0].popen.wait()
        began = time.monotonic()
        code, text = code_of(router.stream(tokens=[1, 2, 3], max_tokens=4, ignore_eos=True, timeout=1.5))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED, text
        assert time.monotonic() - began < 10
        cluster.experts[0].start()
        assert router.generate(tokens=[1, 2, 3], max_tokens=4, ignore_eos=True, timeout=60).digest == want


def test_processes_stop_on_sigterm():
    cluster = Cluster(MODEL, experts=1)
    with cluster:
        cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=4, ignore_eos=True)
        for process in (cluster.routers[0].process, cluster.experts[0], cluster.placement):
            assert process.stop() == 0, f'{process.name}\n{cluster.logs()}'
