# SPDX-License-Identifier: Apache-2.0
"""The tools of this folder: baselines that keep their limits, measurements that agree with counting by hand and with the planner's own, published traces that can be read."""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import baselines
import measure

ROOT = pathlib.Path(__file__).resolve().parents[2]
CADRECTL = pathlib.Path(os.environ.get('CADRE_BIN', ROOT / 'build' / 'bin')) / 'cadrectl'


def cadrectl(*arguments):
    return subprocess.run([CADRECTL, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope='module')
def trace(tmp_path_factory):
    """A small planted trace, with its best placement on 4 nodes."""
    folder = tmp_path_factory.mktemp('traces')
    cadrectl('trace', 'generate', '--output', folder / 'a.ctr', '--layers', 2, '--experts', 32, '--top-k', 4, '--communities', 4, '--strength', 0.95, '--tokens', 3000, '--seed', 5, '--groups', 4,
             '--groups-kept', 4, '--request-tokens', 20, '--best', folder / 'best.json', '--nodes', 4)
    cadrectl('trace', 'export', folder / 'a.ctr', '--output', folder / 'a.csv')
    return folder


@pytest.mark.parametrize('arguments,code,sentence', [
    (['import', '--output', 'x'], 2, 'give the files to read'),
    (['import', 'nowhere.csv', '--output', 'x'], 1, 'nowhere.csv does not exist'),
    (['import', 'a.csv', 'a.csv', 'a.csv', '--output', 'nowhere/x.ctr'], 1, 'nowhere/x.ctr cannot be written'),
    (['import', 'a.csv', '--experts', '7', '--output', 'x'], 1, 'but there are 7'),
    (['import', 'a.csv', '--from', 'json', '--output', 'x'], 1, 'a.csv: byte 0, request 0: not JSON'),
    (['export'], 2, 'give the file of a trace'),
    (['show', 'best.json'], 1, 'best.json: byte 0, answer 0: it has no routing'),
    (['split', 'one.csv', '--first', 'x', '--second', 'y'], 1, 'only one request'),
    (['generate', '--output', 'x', '--communities', '3'], 1, 'must be a power of two'),
    (['generate', '--output', 'x', '--tokens', '10', '--best', 'y', '--nodes', '7'], 1, 'not for 7 nodes'),
    (['generat'], 2, "did you mean 'trace generate'?"),
])
def test_mistakes_are_answered(trace, arguments, code, sentence):
    (trace / 'one.csv').write_text('request,position,layer,e0\n0,0,0,1\n0,1,0,1\n')
    done = subprocess.run([CADRECTL, 'trace', *arguments], cwd=trace, check=False, capture_output=True, text=True)
    assert done.returncode == code and sentence in done.stderr, done.stderr


def test_traces_join_and_split(trace):
    cadrectl('trace', 'import', trace / 'a.ctr', trace / 'a.csv', trace / 'a.csv', '--experts', 32, '--output', trace / 'joined.ctr')
    shown = json.loads(cadrectl('trace', 'show', trace / 'joined.ctr', '-o', 'json'))
    assert shown['tokens'] == 9000 and shown['experts'] == 32 and shown['model'] == 'synthetic'
    cadrectl('trace', 'split', trace / 'joined.ctr', '--share', 1 / 3, '--first', trace / 'first.ctr', '--second', trace / 'second.ctr')
    assert cadrectl('trace', 'export', trace / 'first.ctr') == (trace / 'a.csv').read_text()


def test_best_placement_costs_what_it_says(trace):
    best = json.loads((trace / 'best.json').read_text())
    found = measure.measure(measure.Trace.read_csv(trace / 'a.csv', 32), best)
    assert best['planner'] == 'planted'
    for name in ('nodes_per_token', 'load_mean', 'load_worst'):
        assert found[name] == pytest.approx(best[name], abs=1e-6)


@pytest.mark.parametrize('planner', [*baselines.GROUPINGS, *baselines.BALANCERS])
@pytest.mark.parametrize('nodes,copies', [(1, 0), (3, 0), (4, 0.125), (4, 0.25), (32, 0.125)])
def test_baselines_keep_their_limits(trace, planner, nodes, copies):
    recorded = measure.Trace.read_csv(trace / 'a.csv', 32)
    for ids in recorded.ids:
        layer = baselines.Layer(ids, 32, nodes, groups=4)
        placement = baselines.plan(planner, layer, copies)
        slots, most = baselines.slots_for(32, nodes, copies)
        used = np.bincount([node for held in placement.values() for node in held], minlength=nodes)
        assert sorted(placement) == list(range(32)) and all(len(set(held)) == len(held) > 0 for held in placement.values())
        assert used.max() <= slots and used.sum() <= most and len(used) == nodes


@pytest.mark.parametrize('planner', ['greedy-pairs', 'spectral', 'metis', 'mt-kahypar'])
def test_groupings_find_strong_communities(trace, planner):
    recorded, best = measure.Trace.read_csv(trace / 'a.csv', 32), json.loads((trace / 'best.json').read_text())
    layers = {str(i): {str(e): held for e, held in baselines.plan(planner, baselines.Layer(ids, 32, 4), 0).items()} for i, ids in enumerate(recorded.ids)}
    found = measure.measure(recorded, {'nodes': 4, 'slots_per_node': 8, 'layers': layers})
    assert found['nodes_per_token'] <= best['nodes_per_token'] * 1.001


def test_measure_by_hand():
    ids = np.array([[[0, 1], [0, 2], [3, 1]]])
    everything = {'nodes': 2, 'slots_per_node': 4, 'layers': {'0': {str(e): [0, 1] for e in range(4)}}}
    found = measure.measure(measure.Trace(ids, np.array([0, 0, 1]), 4), everything)
    assert found['nodes_per_token'] == 1 and found['slots_exceeded_by'] == 0 and found['copies'] == 1
    apart = {'nodes': 2, 'slots_per_node': 1, 'layers': {'0': {'0': [0], '1': [1], '2': [0], '3': [1]}}}
    found = measure.measure(measure.Trace(ids, np.array([0, 0, 1]), 4), apart)
    assert found['nodes_per_token'] == pytest.approx(4 / 3) and found['slots_exceeded_by'] == 1
    assert found['load_mean'] == 1 and found['bytes_per_token_layer'] == pytest.approx(measure.ROW_BYTES / 3)
    with pytest.raises(AssertionError):
        measure.measure(measure.Trace(ids, np.array([0, 0, 1]), 4), {'nodes': 2, 'slots_per_node': 4, 'layers': {'0': {'0': [0], '1': [1], '2': [], '3': [1]}}})


@pytest.mark.parametrize('copies,router', [('0', 'cover'), ('25%', 'cover'), ('25%', 'guard')])
def test_predictions_are_what_is_measured(trace, tmp_path, copies, router):
    """In a cluster with racks: every figure that both have."""
    nodes = [{'id': f'e{n}', 'slots': 12, 'rack': f'r{n % 2}'} for n in range(4)]
    (tmp_path / 'cluster.json').write_text(json.dumps({'nodes': nodes}))
    plan = json.loads(cadrectl('plan', '--trace', trace / 'a.ctr', '--cluster', tmp_path / 'cluster.json', '--copies', copies, '--router', router, '--rounds', 4, '--time-limit', '1h', '--holdout', 0,
                               '-o', 'json'))
    found = measure.measure(measure.Trace.read_csv(trace / 'a.csv', 32), plan, router)
    both = set(found) & set(plan['predicted'])
    assert len(both) == 11 and plan['racks'] == [0, 1, 0, 1]
    for name in both:
        assert found[name] == pytest.approx(plan['predicted'][name], rel=1e-6), name
    assert 1 <= plan['nodes_per_token_bound'] <= found['nodes_per_token']
    assert 1 <= found['racks_per_token'] <= 2 and found['fresh_nodes_per_token'] > 0


def test_routing_of_a_model(tmp_path):
    """What `cadrectl eval` computes comes out as a trace of the same experts."""
    (tmp_path / 'in.json').write_text(json.dumps({'sequences': [[1, 5, 9, 3], [7, 2]], 'greedy_tokens': 0}))
    cadrectl('eval', '--model', ROOT / 'tests' / 'golden' / 'olmoe-a' / 'model', '--input', tmp_path / 'in.json', '--output', tmp_path / 'out.safetensors')
    cadrectl('trace', 'import', tmp_path / 'out.safetensors', '--model', 'olmoe-a', '--output', tmp_path / 'a.ctr')
    shown = json.loads(cadrectl('trace', 'show', tmp_path / 'a.ctr', '-o', 'json'))
    assert (shown['tokens'], shown['requests'], shown['scores']) == (6, 2, True)
    cadrectl('trace', 'export', tmp_path / 'a.ctr', '--output', tmp_path / 'a.csv')
    read = measure.Trace.read_csv(tmp_path / 'a.csv', shown['experts'])
    content = (tmp_path / 'out.safetensors').read_bytes()
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:8 + size])
    for sequence, begin in ((0, 0), (1, 4)):
        tensor = header[f'experts.{sequence}']
        ids = np.frombuffer(content[8 + size:][slice(*tensor['data_offsets'])], np.int32).reshape(tensor['shape'])
        assert (np.sort(read.ids[:, begin:begin + tensor['shape'][1]], axis=2) == ids).all()


def test_recording_a_model_on_texts(tmp_path):
    (tmp_path / 'a.txt').write_text('Experts that are selected together live together. ' * 6)
    (tmp_path / 'b.txt').write_text('And the nodes stay even.')
    subprocess.run([sys.executable, ROOT / 'tests' / 'tools' / 'record_routing.py', ROOT / 'tests' / 'golden' / 'olmoe-a' / 'model', tmp_path / 'a.txt', tmp_path / 'b.txt', '--cadrectl', CADRECTL,
                    '--window', '32', '--output', tmp_path / 't.csv'], check=True)
    cadrectl('trace', 'import', tmp_path / 't.csv', '--output', tmp_path / 't.ctr', '--provenance', 'a.txt, b.txt')
    shown = json.loads(cadrectl('trace', 'show', tmp_path / 't.ctr', '-o', 'json'))
    assert shown['requests'] > 3 and shown['tokens'] > 32 * (shown['requests'] - 2) and 'a.txt, b.txt' in shown['provenance']


def write_flame(folder, tokens=300, k=6, layers=(2, 3)):
    random = np.random.default_rng(1)
    ids = {layer: np.argsort(random.random((tokens, 64)), axis=1)[:, :k].astype(np.int16) for layer in layers}
    for layer, indices in ids.items():
        scores = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.full(tokens * k, 0.125, np.float16)), k) if layer % 2 else pyarrow.array([[0.125] * k] * tokens)
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(indices.ravel()), k) if layer % 2 else pyarrow.array(indices.tolist(), pyarrow.list_(pyarrow.int16()))
        pyarrow.parquet.write_table(pyarrow.table({'scores': scores, 'indices': lists}), folder / f'layer_{layer:02}.parquet')
    token_ids = random.integers(0, 50, tokens, dtype=np.int32)
    pyarrow.parquet.write_table(pyarrow.table({'token_id': token_ids}), folder / 'samples.parquet')
    return ids, token_ids


@pytest.mark.parametrize('samples', [False, True])
def test_flame_traces(tmp_path, samples):
    ids, token_ids = write_flame(tmp_path)
    cut = ['--samples', tmp_path / 'samples.parquet', '--end-of-text', '7'] if samples else ['--request-tokens', '100']
    text = subprocess.run([sys.executable, pathlib.Path(__file__).with_name('flame.py'), tmp_path, '--tokens', '250', *cut], check=True, stdout=subprocess.PIPE, text=True).stdout
    (tmp_path / 'flame.csv').write_text(text)
    cadrectl('trace', 'import', tmp_path / 'flame.csv', '--experts', 64, '--model', 'flame', '--output', tmp_path / 'flame.ctr')
    cadrectl('trace', 'export', tmp_path / 'flame.ctr', '--output', tmp_path / 'again.csv')
    shown = json.loads(cadrectl('trace', 'show', tmp_path / 'flame.ctr', '-o', 'json'))
    assert (shown['tokens'], shown['top_k'], shown['experts'], shown['model'], [layer['layer'] for layer in shown['layers']]) == (250, 6, 64, 'flame', [2, 3])
    again = measure.Trace.read_csv(tmp_path / 'again.csv', 64)
    for layer, read in zip((2, 3), again.ids):
        assert (read == ids[layer][:250]).all()
    ends = np.flatnonzero(token_ids[:249] == 7) if samples else np.array([99, 199])
    assert (np.flatnonzero(np.diff(again.request)) == ends).all()
