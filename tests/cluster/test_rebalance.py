# SPDX-License-Identifier: Apache-2.0
"""Experts of the demo model move to where they are used, while requests run: by cadrectl, as an operator does it."""
import json
import subprocess
import threading
import time

import pytest

from cluster import BIN, ROOT, Cluster, metric

DEMO = ROOT / 'models' / 'demo'
DOMAINS = ('c', 'de', 'en', 'fr', 'go', 'ja', 'man', 'py', 'ru', 'sql')
WARM_UP_TOKENS = 6000


class Load(threading.Thread):
    """Prompts of ten domains, in turn, until it is told to stop."""

    def __init__(self, router):
        super().__init__()
        self.router, self.over, self.error = router, threading.Event(), None
        self.texts = [(DEMO / 'heldout' / f'{name}.txt').read_text() for name in DOMAINS]

    def run(self):
        step = 0
        try:
            while not self.over.is_set():
                begin = step // len(DOMAINS) * 700 % 9000
                self.router.generate(text=self.texts[step % len(DOMAINS)][begin:begin + 1200], max_tokens=4, ignore_eos=True)
                step += 1
        except Exception as error:   # told by the test's own thread
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        if self.error:
            raise self.error


@pytest.fixture(scope='module')
def cluster():
    with Cluster(DEMO, experts=4, threads=1) as cluster:
        yield cluster


def cadrectl(cluster, *arguments, code=0):
    done = subprocess.run([BIN / 'cadrectl', *arguments, '--placement', cluster.placement_grpc], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done
    return done


def ask(cluster, *arguments):
    return json.loads(cadrectl(cluster, *arguments, '-o', 'json').stdout)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def shown(cluster, number, state):
    return until(lambda: (r := ask(cluster, 'rebalance', 'show', str(number)))['state'] == state and r)


def gains(rebalance):
    predicted = rebalance['predicted']
    return predicted['after']['nodes_per_token'] < 0.9 * predicted['before']['nodes_per_token']


def digests(cluster):
    return [cluster.routers[0].generate(text=text, max_tokens=12, ignore_eos=True).digest for text in ('int main(void)', 'Der Wind', 'SELECT * FROM')]


def test_a_rebalance_and_back(cluster, tmp_path):
    assert 'there is no routing to plan from' in cadrectl(cluster, 'rebalance', '--dry-run', code=1).stderr
    before = digests(cluster)
    saved = tmp_path / 'before.json'
    saved.write_text(cadrectl(cluster, 'map', 'show').stdout)
    with Load(cluster.routers[0]), Load(cluster.routers[0]):
        until(lambda: metric(cluster.placement_http, 'cadre_placement_routing_sample_tokens') > WARM_UP_TOKENS)
        until(lambda: gains(ask(cluster, 'rebalance', '--dry-run', '--time-limit', '1s')))   # beside whatever else this machine does
        done = ask(cluster, 'rebalance', '--time-limit', '5s', '--reason', 'a test')
        predicted = done['predicted']
        assert gains(done)
        moved = shown(cluster, done['id'], 'done')
        assert moved['moves_done'] == moved['moves'] > 0 and moved['measured']['before']['nodes_per_token'] > 2.5
        status = cluster.status()
        assert status['rebalance']['id'] == done['id'] and status['rebalance']['measuring'] and not status['auto']
        assert metric(cluster.placement_http, 'cadre_placement_rebalance_moves_total') == moved['moves']
        time.sleep(12)   # of the minute after the last free, ten seconds do not count
        undone = ask(cluster, 'rebalance', 'undo', str(done['id']))
        assert undone['undoes'] == done['id']
        measured = ask(cluster, 'rebalance', 'show', str(done['id']))['measured']
        assert measured['after']['nodes_per_token'] < 0.9 * measured['before']['nodes_per_token']
        assert abs(measured['after']['nodes_per_token'] / predicted['after']['nodes_per_token'] - 1) < 0.1
        assert digests(cluster) == before
        shown(cluster, undone['id'], 'done')
    assert ask(cluster, 'rebalance', 'show', str(done['id']))['state'] == 'undone'
    assert digests(cluster) == before
    assert ask(cluster, 'map', 'diff', str(saved))['moves'] == []
    whats = [entry['what'] for entry in ask(cluster, 'history')['entries']]
    assert f'rebalance ({done["id"]})' in whats and f'undo of rebalance {done["id"]} ({undone["id"]})' in whats


def test_a_map_is_edited_and_applied(cluster, tmp_path):
    before = digests(cluster)
    placement = ask(cluster, 'map', 'show')
    names = placement['node_ids']
    file = tmp_path / 'map.json'

    def write(**more):
        file.write_text(json.dumps({**placement, **more}))
        return str(file)

    was = placement['layers']['3']['7'][0]
    placement['layers']['3']['7'] = [(was + 1) % 4]
    diff = ask(cluster, 'map', 'diff', write())
    assert diff['moves'] == [{'layer': 3, 'expert': 7, 'load': [names[(was + 1) % 4]], 'free': [names[was]]}]
    assert ask(cluster, 'map', 'apply', write(), '--dry-run')['moves'] == 1
    applied = ask(cluster, 'map', 'apply', write())
    shown(cluster, applied['id'], 'done')
    assert ask(cluster, 'map', 'show')['layers'] == placement['layers']
    assert digests(cluster) == before

    cluster_file = tmp_path / 'cluster.json'
    cluster_file.write_text(cadrectl(cluster, 'map', 'show', '--cluster').stdout)
    trace = tmp_path / 'trace.cadre'
    subprocess.run([BIN / 'cadrectl', 'trace', 'generate', '--output', trace, '--layers', '6', '--experts', '32', '--top-k', '4', '--tokens', '500'], check=True, timeout=60)
    planned = subprocess.run([BIN / 'cadrectl', 'plan', '--trace', trace, '--cluster', cluster_file, '--present', file, '--rounds', '1', '--copies', '0', '-o', 'json'],
                             check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(planned.stdout)['node_ids'] == names


@pytest.mark.parametrize('change, sentence', [
    ({'node_ids': ['expert-0', 'expert-1', 'expert-2', 'elsewhere']}, "is for node 'elsewhere', which holds no experts in this cluster"),
    ({'layers': {'0': {'0': [0]}}}, 'it is of another model'),
    ({'format': 'a map'}, 'this is not a placement'),
])
def test_a_wrong_map_moves_nothing(cluster, tmp_path, change, sentence):
    file = tmp_path / 'map.json'
    file.write_text(json.dumps({**ask(cluster, 'map', 'show'), **change}))
    epoch = cluster.status()['epoch']
    assert sentence in cadrectl(cluster, 'map', 'apply', str(file), code=1).stderr
    assert cluster.status()['epoch'] == epoch


def test_an_expert_without_a_copy_and_wrong_words(cluster, tmp_path):
    file = tmp_path / 'map.json'
    placement = ask(cluster, 'map', 'show')
    placement['layers']['3']['7'] = []
    file.write_text(json.dumps(placement))
    assert 'layer 3 expert 7 has no list of nodes: give at least one' in cadrectl(cluster, 'map', 'apply', str(file), code=1).stderr
    assert 'there is no rebalance 9999' in cadrectl(cluster, 'rebalance', 'cancel', '9999', code=1).stderr
    assert "'soon' is not the id of a rebalance" in cadrectl(cluster, 'rebalance', 'undo', 'soon', code=2).stderr
    for arguments, sentence in ((('--copies', 'many'), 'give a share like 12% or 0.12'), (('--bytes-per-second', 'fast'), '--bytes-per-second'), (('--time-limit', '5'), '--time-limit')):
        assert sentence in cadrectl(cluster, 'rebalance', *arguments, code=2).stderr
    assert 'give a share above 0' in cadrectl(cluster, 'auto', 'on', '--gain-min', '0', code=2).stderr
    trace = tmp_path / 'trace.cadre'
    subprocess.run([BIN / 'cadrectl', 'trace', 'generate', '--output', trace, '--layers', '6', '--experts', '16', '--top-k', '4', '--tokens', '500'], check=True, timeout=60)
    assert 'the trace has 6 layers of 16 experts' in cadrectl(cluster, 'rebalance', '--trace', str(trace), code=1).stderr
    assert ask(cluster, 'auto', 'on', '--every', '5m', '--gain-min', '4%', '--dry-run')['on'] is False
    assert ask(cluster, 'auto', 'on', '--every', '5m', '--gain-min', '4%')['gain_min'] == 0.04
    assert ask(cluster, 'auto', 'off')['on'] is False
