# SPDX-License-Identifier: Apache-2.0
"""What an operator says about single nodes and experts, under load: nobody notices, and it is kept."""
import pytest

from cluster import GOLDEN, Again, Cluster, until

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
PROMPTS = [[(i * 31 + s * 17 + 3) % 480 for i in range(10 + s)] for s in range(4)]


@pytest.fixture(scope='module')
def cluster():
    with Cluster(MODEL, experts=3, placement_options=['--free-grace', '200ms']) as cluster:
        yield cluster


@pytest.fixture(scope='module')
def expected(cluster):
    return [cluster.routers[0].generate(tokens=p, max_tokens=60, ignore_eos=True).digest for p in PROMPTS]


def load(router, expected):
    """The same prompts, again and again; their digests must be the expected ones."""
    def once(_):
        assert [r.digest for r in router.generate_many([dict(tokens=p, max_tokens=60, ignore_eos=True) for p in PROMPTS])] == expected
    return Again(once)


def refused(cluster, sentence, *arguments):
    done = cluster.command(*arguments, code=1)
    assert sentence in done.stderr and not done.stdout, done


def nodes(cluster):
    return {node['id']: node for node in cluster.status()['nodes'] if node['role'] == 'expert'}


def holders(cluster, layer, expert):
    """Of an expert, by the map."""
    shown = cluster.operate('map', 'show')
    return sorted(shown['node_ids'][n] for n in shown['layers'][str(layer)][str(expert)])


def test_a_drained_node_can_be_stopped_and_comes_back(cluster, expected):
    ids = sorted(nodes(cluster))
    tried = cluster.operate('drain', ids[0], '--dry-run')
    assert tried['state'] == 'active' and tried['moves'] > 0 and tried['dry_run']

    with load(cluster.routers[0], expected):
        done = cluster.operate('drain', ids[0], '--wait', '--reason', 'new memory')
        assert done['state'] == 'safe_to_stop' and done['experts'] == 0 and done['moves'] == tried['moves']
        assert nodes(cluster)[ids[0]]['duty'] == 'safe_to_stop' and nodes(cluster)[ids[0]]['experts'] == 0
        victim = next(e for e in cluster.experts if e.name == ids[0])
        victim.kill()
        victim.popen.wait()
        cluster.placement.stop()
        cluster.placement.start()
        victim.start()
        cluster.command('wait', '--timeout', '30s')
        assert cluster.operate('drain', ids[0], '--wait')['state'] == 'safe_to_stop'
        assert cluster.operate('undrain', ids[0])['state'] == 'active'

    what = [entry for entry in cluster.operate('history')['entries'] if entry['what'] == f'drain {ids[0]}']
    assert [(entry['why'], entry['outcome'].split(':')[0], entry['times']) for entry in what] == [
        ('new memory', 'done', 1), ('it holds no expert any more', 'safe_to_stop', 1)]


def test_pins_and_copies_are_kept(cluster, expected):
    ids = sorted(nodes(cluster))
    layer = int(next(iter(cluster.operate('map', 'show')['layers'])))
    to = next(i for i in ids if i not in holders(cluster, layer, 3))
    with load(cluster.routers[0], expected):
        assert cluster.operate('pin', layer, 3, to, '--dry-run')['moves'] >= 1
        cluster.operate('pin', layer, 3, to)
        until(lambda: holders(cluster, layer, 3) == [to])
        assert cluster.operate('replicate', layer, 3, 2)['moves'] >= 1
        until(lambda: len(holders(cluster, layer, 3)) == 2)
    assert to in holders(cluster, layer, 3)
    status = cluster.operate('status')
    assert status['pins'] == [dict(layer=layer, expert=3, node=to)] and status['copies'] == [dict(layer=layer, expert=3, copies=2)]
    cluster.operate('replicate', layer, 3, 1)
    cluster.operate('unpin', layer, 3)


def test_what_cannot_be_done_is_refused(cluster):
    ids = sorted(nodes(cluster))
    refused(cluster, "there is no expert node 'nobody' in this cluster", 'drain', 'nobody')
    refused(cluster, f"node '{ids[0]}' is not drained", 'undrain', ids[0])
    refused(cluster, 'is no MoE layer of this model', 'pin', 77, 0, ids[0])
    refused(cluster, 'there is no expert 4000: a layer has experts 0 to', 'replicate', 1, 4000, 2)
    refused(cluster, '9 copies of layer 1 expert 0: there are 3 nodes that may hold one each', 'replicate', 1, 0, 9)
    refused(cluster, 'is pinned to no node', 'unpin', 1, 0)
    assert "'x' is no whole number" in cluster.command('pin', 'x', 0, ids[0], code=2).stderr
    assert 'give LAYER EXPERT COPIES' in cluster.command('replicate', 1, 2, code=2).stderr
    assert 'give the id of an expert node' in cluster.command('drain', code=2).stderr
