# SPDX-License-Identifier: Apache-2.0
"""Experts of the demo model move to where they are used, while requests run: by cadrectl, as an operator does it."""
import json
import time

import pytest

from cluster import ROOT, Again, Cluster, cadrectl, metric, until

DEMO = ROOT / 'models' / 'demo'
DOMAINS = ('c', 'de', 'en', 'fr', 'go', 'ja', 'man', 'py', 'ru', 'sql')
WARM_UP_TOKENS = 6000


def load(router):
    """Prompts of ten domains, in turn."""
    texts = [(DEMO / 'heldout' / f'{name}.txt').read_text() for name in DOMAINS]

    def once(step):
        begin = step // len(DOMAINS) * 700 % 9000
        router.generate(text=texts[step % len(DOMAINS)][begin:begin + 1200], max_tokens=4, ignore_eos=True)
    return Again(once)


@pytest.fixture(scope='module')
def cluster():
    with Cluster(DEMO, experts=4, threads=1) as cluster:
        yield cluster


def shown(cluster, number, state):
    return until(lambda: (r := cluster.operate('rebalance', 'show', number))['state'] == state and r, 60)


def gains(rebalance):
    predicted = rebalance['predicted']
    return predicted['after']['nodes_per_token'] < 0.9 * predicted['before']['nodes_per_token']


def digests(cluster):
    return [cluster.routers[0].generate(text=text, max_tokens=12, ignore_eos=True).digest for text in ('int main(void)', 'Der Wind', 'SELECT * FROM')]


def test_a_rebalance_and_back(cluster, tmp_path):
    assert 'there is no routing to plan from' in cluster.command('rebalance', '--dry-run', code=1).stderr
    before = digests(cluster)
    saved = tmp_path / 'before.json'
    saved.write_text(cluster.command('map', 'show').stdout)
    with load(cluster.routers[0]), load(cluster.routers[0]):
        until(lambda: metric(cluster.placement_http, 'cadre_placement_routing_sample_tokens') > WARM_UP_TOKENS, 60)
        until(lambda: gains(cluster.operate('rebalance', '--dry-run', '--time-limit', '1s')), 60)   # beside whatever else this machine does
        done = cluster.operate('rebalance', '--time-limit', '5s', '--reason', 'a test')
        predicted = done['predicted']
        assert gains(done)
        moved = shown(cluster, done['id'], 'done')
        assert moved['moves_done'] == moved['moves'] > 0 and moved['measured']['before']['nodes_per_token'] > 2.5
        status = cluster.status()
        assert status['rebalance']['id'] == done['id'] and status['rebalance']['measuring'] and not status['auto']
        assert metric(cluster.placement_http, 'cadre_placement_rebalance_moves_total') == moved['moves']
        time.sleep(12)   # of the minute after the last free, ten seconds do not count
        undone = cluster.operate('rebalance', 'undo', done['id'])
        assert undone['undoes'] == done['id']
        measured = cluster.operate('rebalance', 'show', done['id'])['measured']
        assert measured['after']['nodes_per_token'] < 0.9 * measured['before']['nodes_per_token']
        assert abs(measured['after']['nodes_per_token'] / predicted['after']['nodes_per_token'] - 1) < 0.1
        assert digests(cluster) == before
        shown(cluster, undone['id'], 'done')
    assert cluster.operate('rebalance', 'show', done['id'])['state'] == 'undone'
    assert digests(cluster) == before
    assert cluster.operate('map', 'diff', saved)['moves'] == []
    whats = [entry['what'] for entry in cluster.operate('history')['entries']]
    assert f'rebalance ({done["id"]})' in whats and f'undo of rebalance {done["id"]} ({undone["id"]})' in whats


def test_a_map_is_edited_and_applied(cluster, tmp_path):
    before = digests(cluster)
    placement = cluster.operate('map', 'show')
    names = placement['node_ids']
    file = tmp_path / 'map.json'

    def write(**more):
        file.write_text(json.dumps({**placement, **more}))
        return file

    was = placement['layers']['3']['7'][0]
    placement['layers']['3']['7'] = [(was + 1) % 4]
    diff = cluster.operate('map', 'diff', write())
    assert diff['moves'] == [{'layer': 3, 'expert': 7, 'load': [names[(was + 1) % 4]], 'free': [names[was]]}]
    assert cluster.operate('map', 'apply', write(), '--dry-run')['moves'] == 1
    applied = cluster.operate('map', 'apply', write(), '--wait-moves')
    assert applied['state'] == 'done' and applied['moves_done'] == 1 and applied['measuring']   # for another minute
    assert cluster.operate('map', 'show')['layers'] == placement['layers']
    assert digests(cluster) == before

    cluster_file = tmp_path / 'cluster.json'
    cluster_file.write_text(cluster.command('map', 'show', '--cluster').stdout)
    trace = tmp_path / 'trace.cadre'
    cadrectl('trace', 'generate', '--output', trace, '--layers', 6, '--experts', 32, '--top-k', 4, '--tokens', 500, code=0)
    planned = cadrectl('plan', '--trace', trace, '--cluster', cluster_file, '--present', file, '--rounds', 1, '--copies', 0, '-o', 'json', code=0)
    assert json.loads(planned.stdout)['node_ids'] == names


@pytest.mark.parametrize('change, sentence', [
    ({'node_ids': ['expert-0', 'expert-1', 'expert-2', 'elsewhere']}, "is for node 'elsewhere', which holds no experts in this cluster"),
    ({'layers': {'0': {'0': [0]}}}, 'it is of another model'),
    ({'format': 'a map'}, 'this is not a placement'),
])
def test_a_wrong_map_moves_nothing(cluster, tmp_path, change, sentence):
    file = tmp_path / 'map.json'
    file.write_text(json.dumps({**cluster.operate('map', 'show'), **change}))
    epoch = cluster.status()['epoch']
    assert sentence in cluster.command('map', 'apply', file, code=1).stderr
    assert cluster.status()['epoch'] == epoch


def test_an_expert_without_a_copy_and_wrong_words(cluster, tmp_path):
    file = tmp_path / 'map.json'
    placement = cluster.operate('map', 'show')
    placement['layers']['3']['7'] = []
    file.write_text(json.dumps(placement))
    assert 'layer 3 expert 7 has no list of nodes: give at least one' in cluster.command('map', 'apply', file, code=1).stderr
    assert 'there is no rebalance 9999' in cluster.command('rebalance', 'cancel', '9999', code=1).stderr
    assert "'soon' is not the id of a rebalance" in cluster.command('rebalance', 'undo', 'soon', code=2).stderr
    for arguments, sentence in ((('--copies', 'many'), 'give a share like 12% or 0.12'), (('--bytes-per-second', 'fast'), '--bytes-per-second'), (('--time-limit', '5'), '--time-limit')):
        assert sentence in cluster.command('rebalance', *arguments, code=2).stderr
    assert 'give a share above 0' in cluster.command('auto', 'on', '--gain-min', '0', code=2).stderr
    trace = tmp_path / 'trace.cadre'
    cadrectl('trace', 'generate', '--output', trace, '--layers', 6, '--experts', 16, '--top-k', 4, '--tokens', 500, code=0)
    assert 'the trace has 6 layers of 16 experts' in cluster.command('rebalance', '--trace', trace, code=1).stderr
    tried = cluster.operate('auto', 'on', '--every', '5m', '--gain-min', '4%', '--dry-run')
    assert tried['on'] is False and tried['dry_run'] is True   # how it is
    assert cluster.command('auto', 'on', '--dry-run').stdout.startswith('dry run: that can be done, and nothing was changed\nauto is off')
    assert cluster.operate('auto', 'on', '--every', '5m', '--gain-min', '4%')['gain_min'] == 0.04
    assert cluster.operate('auto', 'off')['on'] is False
