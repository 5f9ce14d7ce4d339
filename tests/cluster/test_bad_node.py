# SPDX-License-Identifier: Apache-2.0
"""A badly configured expert node that joins a cluster under load costs nothing: it is refused, or given no experts."""
import concurrent.futures
import subprocess
import threading
import time

import pytest

from cluster import BIN, GOLDEN, Cluster, http, metric, wait_for_log

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
PROMPTS = [[(i * 31 + s * 17 + 3) % 480 for i in range(10 + s)] for s in range(4)]
LOAD_S = 6


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / 'secret'
    file.write_text('a secret of the right kind\n')
    file.chmod(0o600)
    return str(file)


class Load:
    """Requests one after the other on a few threads, all of which must give the digests of before."""

    def __init__(self, cluster):
        self.router, self.stop, self.done, self.slowest = cluster.routers[0], threading.Event(), 0, 0.0
        self.expected = [self.ask(p) for p in PROMPTS]
        self.pool = concurrent.futures.ThreadPoolExecutor(len(PROMPTS))
        self.futures = [self.pool.submit(self.run, i) for i in range(len(PROMPTS))]

    def ask(self, prompt):
        return self.router.generate(tokens=prompt, max_tokens=20, ignore_eos=True, timeout=5).digest

    def run(self, index):
        while not self.stop.is_set():
            began = time.monotonic()
            assert self.ask(PROMPTS[index]) == self.expected[index]
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.done += 1

    def finish(self):
        self.stop.set()
        for future in self.futures:
            future.result()   # a failed request raises here
        self.pool.shutdown()
        return self.done, self.slowest


def node_of(cluster, name):
    return {n['id']: n for n in cluster.status()['nodes']}.get(name)


def table(cluster):
    return subprocess.run([BIN / 'cadrectl', 'status', '--placement', cluster.placement_grpc], capture_output=True, text=True, timeout=30).stdout


def test_a_node_without_the_secret_is_refused(secret):
    with_secret = ['--secret-file', secret]
    with Cluster(MODEL, experts=2, router_options=with_secret, expert_options=with_secret, placement_options=with_secret) as cluster:
        load = Load(cluster)
        cluster.expert_options = []
        bad = cluster.add_expert()
        wait_for_log(bad, 'has no cluster secret')
        time.sleep(LOAD_S)
        done, slowest = load.finish()
        assert node_of(cluster, 'expert-2') is None
        refused = cluster.status()['refused']
        assert [r['id'] for r in refused] == ['expert-2'] and refused[0]['times'] >= 1 and '--secret-file' in refused[0]['why'], refused
        assert "ATTENTION: refused" in table(cluster)
        assert all(node_of(cluster, f'expert-{i}')['reached'] == node_of(cluster, f'expert-{i}')['reached_of'] == 1 for i in range(2))
        print(f'a node without the secret: 0 of {done} requests failed, the slowest took {slowest * 1000:.0f} ms')


def test_nodes_that_no_router_reaches_get_nothing():
    """More of them than good ones. The good copies stay; and one that is started again as it should be is used."""
    with Cluster(MODEL, experts=1) as cluster:
        load = Load(cluster)
        nowhere = [cluster.add_expert(['--ucx-transports', 'posix']) for _ in range(2)]   # routers have no shared memory
        for process in nowhere:
            wait_for_log(process, 'msg=joined')
        time.sleep(LOAD_S)
        for name in ('expert-1', 'expert-2'):
            node = node_of(cluster, name)
            assert (node['experts'], node['reached'], node['reached_of']) == (0, 0, 1), node
            assert "not reached by 'router-0' for" in node['absence']
            assert f'ATTENTION: {name}: not reached by' in table(cluster)
        assert metric(cluster.placement_http, 'cadre_placement_nodes_absent') == 2
        assert metric(cluster.routers[0].http, 'cadre_router_nodes_unreached') == 2
        assert http(cluster.routers[0].http, '/readyz') == 'ready\n'
        done, slowest = load.finish()
        print(f'two nodes that cannot be reached beside a good one: 0 of {done} requests failed, the slowest took {slowest * 1000:.0f} ms')

        nowhere[0].stop()
        nowhere[0].arguments = nowhere[0].arguments[:-2]
        nowhere[0].start()
        end = time.monotonic() + 20
        while not (node_of(cluster, 'expert-1') or {}).get('experts'):
            assert time.monotonic() < end, cluster.logs()
            time.sleep(0.1)
        load = Load(cluster)
        time.sleep(1)
        load.finish()
