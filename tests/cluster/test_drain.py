# SPDX-License-Identifier: Apache-2.0
"""What an operator says about single nodes and experts, under load: nobody notices, and it is kept."""
import json
import subprocess
import threading

import pytest

from cluster import BIN, GOLDEN, Cluster

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
PROMPTS = [[(i * 31 + s * 17 + 3) % 480 for i in range(10 + s)] for s in range(4)]


@pytest.fixture(scope='module')
def cluster():
    with Cluster(MODEL, experts=3, placement_options=['--free-grace', '200ms']) as cluster:
        yield cluster


@pytest.fixture(scope='module')
def expected(cluster):
    return [cluster.routers[0].generate(tokens=p, max_tokens=60, ignore_eos=True).digest for p in PROMPTS]


class Load(threading.Thread):
    """The same prompts, again and again; their digests must be the expected ones."""

    def __init__(self, router, expected):
        super().__init__()
        self.router, self.expected, self.over, self.error, self.answers = router, expected, threading.Event(), None, 0

    def run(self):
        try:
            while not self.over.is_set():
                digests = [r.digest for r in self.router.generate_many([dict(tokens=p, max_tokens=60, ignore_eos=True) for p in PROMPTS])]
                assert digests == self.expected
                self.answers += len(digests)
        except BaseException as error:   # told by the test's own thread
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        if self.error:
            raise self.error
        assert self.answers > 0


def cadrectl(cluster, *arguments, code=0):
    done = subprocess.run([BIN / 'cadrectl', *map(str, arguments), '--placement', cluster.placement_grpc], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done
    return done


def ask(cluster, *arguments):
    return json.loads(cadrectl(cluster, *arguments, '-o', 'json').stdout)


def refused(cluster, sentence, *arguments):
    done = cadrectl(cluster, *arguments, code=1)
    assert sentence in done.stderr and not done.stdout, done


def nodes(cluster):
    return {node['id']: node for node in cluster.status()['nodes'] if node['role'] == 'expert'}


def holders(cluster, layer, expert):
    """Of an expert, by the map."""
    shown = json.loads(cadrectl(cluster, 'map', 'show').stdout)
    return sorted(shown['node_ids'][n] for n in shown['layers'][str(layer)][str(expert)])


def test_a_drained_node_can_be_stopped_and_comes_back(cluster, expected):
    ids = sorted(nodes(cluster))
    tried = ask(cluster, 'drain', ids[0], '--dry-run')
    assert tried['state'] == 'active' and tried['moves'] > 0 and tried['dry_run']

    with Load(cluster.routers[0], expected):
        done = ask(cluster, 'drain', ids[0], '--wait', '--reason', 'new memory')
        assert done['state'] == 'safe_to_stop' and done['experts'] == 0 and done['moves'] == tried['moves']
        assert nodes(cluster)[ids[0]]['duty'] == 'safe_to_stop' and nodes(cluster)[ids[0]]['experts'] == 0
        victim = next(e for e in cluster.experts if e.name == ids[0])
        victim.kill()
        victim.popen.wait()
        cluster.placement.stop()
        cluster.placement.start()
        victim.start()
        cadrectl(cluster, 'wait', '--timeout', '30s')
        assert ask(cluster, 'drain', ids[0], '--wait')['state'] == 'safe_to_stop'
        assert ask(cluster, 'undrain', ids[0])['state'] == 'active'

    what = [entry for entry in ask(cluster, 'history')['entries'] if entry['what'] == f'drain {ids[0]}']
    assert [(entry['why'], entry['outcome'].split(':')[0]) for entry in what] == [('new memory', 'done')]


def test_pins_and_copies_are_kept(cluster, expected):
    ids = sorted(nodes(cluster))
    layer = int(next(iter(json.loads(cadrectl(cluster, 'map', 'show').stdout)['layers'])))
    to = next(i for i in ids if i not in holders(cluster, layer, 3))
    with Load(cluster.routers[0], expected):
        assert ask(cluster, 'pin', layer, 3, to, '--dry-run')['moves'] >= 1
        ask(cluster, 'pin', layer, 3, to)
        while holders(cluster, layer, 3) != [to]:
            pass
        assert ask(cluster, 'replicate', layer, 3, 2)['moves'] >= 1
        while len(holders(cluster, layer, 3)) != 2:
            pass
    assert to in holders(cluster, layer, 3)
    status = ask(cluster, 'status')
    assert status['pins'] == [dict(layer=layer, expert=3, node=to)] and status['copies'] == [dict(layer=layer, expert=3, copies=2)]
    ask(cluster, 'replicate', layer, 3, 1)
    ask(cluster, 'unpin', layer, 3)


def test_what_cannot_be_done_is_refused(cluster):
    ids = sorted(nodes(cluster))
    refused(cluster, "there is no expert node 'nobody' in this cluster", 'drain', 'nobody')
    refused(cluster, f"node '{ids[0]}' is not drained", 'undrain', ids[0])
    refused(cluster, 'is no MoE layer of this model', 'pin', 77, 0, ids[0])
    refused(cluster, 'there is no expert 4000: a layer has experts 0 to', 'replicate', 1, 4000, 2)
    refused(cluster, '9 copies of layer 1 expert 0: there are 3 nodes that may hold one each', 'replicate', 1, 0, 9)
    refused(cluster, 'is pinned to no node', 'unpin', 1, 0)
    assert "'x' is no whole number" in cadrectl(cluster, 'pin', 'x', 0, ids[0], code=2).stderr
    assert 'give LAYER EXPERT COPIES' in cadrectl(cluster, 'replicate', 1, 2, code=2).stderr
    assert 'give the id of an expert node' in cadrectl(cluster, 'drain', code=2).stderr
