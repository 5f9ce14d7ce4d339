# SPDX-License-Identifier: Apache-2.0
"""Packed models: the same bits as the checkpoint, in one process and in a cluster of both forms; and what is refused."""
import resource
import shutil

import pytest

from cluster import GOLDEN, Cluster, cadrectl, embedded, http, until, wait_for_log

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
TIED = GOLDEN / 'qwen3moe-b' / 'model'
PROMPT = [(i * 31 + 3) % 400 for i in range(20)]


def pack(model, out, *options):
    cadrectl('model', 'pack', model, out, *options, code=0)
    return out


@pytest.mark.parametrize('numerics', [['f32'], ['bf16'], ['bf16-sm90'], ['int8'], ['int4'], ['int4', '--router-numerics', 'int8']], ids=' '.join)
@pytest.mark.parametrize('model', [MODEL, TIED], ids=['own head', 'tied'])
def test_both_forms_give_the_same_digest(model, numerics, tmp_path):
    options = ['--numerics', *numerics]
    out = pack(model, tmp_path / 'packed', *options)
    assert embedded(out, PROMPT, 12, *options)['digest'] == embedded(model, PROMPT, 12, *options)['digest']


def held(cluster):
    return {n['id']: n['experts'] for n in cluster.status()['nodes'] if n['id'].startswith('expert-') and n['state'] == 'live'}


@pytest.mark.parametrize('numerics', ['int8', 'int4'])
def test_a_cluster_of_both_forms(numerics, tmp_path):
    """Nodes with either form, and a placement service and a router with different ones; then a node that has no files gets experts from both, and one is lost."""
    packed = pack(MODEL, tmp_path / 'packed', '--numerics', numerics)
    with Cluster(MODEL, experts=2, start=False, placement_options=['--settle', '50ms', '--bytes-per-second', '0', '--numerics', numerics]) as cluster:
        for process in cluster.placement, cluster.experts[1]:
            process.arguments[process.arguments.index('--model') + 1] = str(packed)
        cluster.start_all()
        cluster.start = True
        cluster.wait_ready()
        digest = cluster.routers[0].generate(tokens=PROMPT, max_tokens=12, ignore_eos=True).digest
        assert digest == embedded(MODEL, PROMPT, 12, '--numerics', numerics)['digest']

        cluster.model = tmp_path / 'copy'
        shutil.copytree(packed, cluster.model)
        wait_for_log(cluster.add_expert(), 'msg=serving')
        shutil.rmtree(cluster.model)
        until(lambda: len(held(cluster)) == 3 and min(held(cluster).values()) > 0)
        assert 'cadre_expert_load_seconds_count{source="checkpoint"} 0' in http(cluster.experts[2].http, '/metrics')
        assert cluster.routers[0].generate(tokens=PROMPT, max_tokens=12, ignore_eos=True).digest == digest

        cluster.experts[0].kill()
        until(lambda: len(held(cluster)) == 2 and cluster.status()['experts_unplaced'] == 0, 40)
        assert cluster.routers[0].generate(tokens=PROMPT, max_tokens=12, ignore_eos=True).digest == digest


def refused(*words, **how):
    done = cadrectl(*words, code=1, **how)
    return done.stderr.strip().splitlines()[-1]


def test_refusals_of_pack(tmp_path):
    out = pack(MODEL, f'{tmp_path}/packed/', '--numerics', 'int8')
    assert 'exists' in refused('model', 'pack', MODEL, out)
    again = tmp_path / 'again'
    assert 'packed already (experts in int8' in refused('model', 'pack', out, again)
    assert 'cannot be made' in refused('model', 'pack', MODEL, tmp_path / 'no' / 'packed')
    assert 'File too large' in refused('model', 'pack', MODEL, again, restore_signals=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['packed']


def test_refusals_of_packed_models(tmp_path):
    out = pack(MODEL, tmp_path / 'packed', '--numerics', 'int8')
    assert 'experts in int8, but they are to be used in int4' in refused('generate', '--model', out, '--numerics', 'int4', '--tokens', '1')
    assert 'in int8, but they are to be used in f32' in refused('generate', '--model', out, '--numerics', 'int8', '--router-numerics', 'f32', '--tokens', '1')
    assert 'packed           experts in int8, the rest in int8' in cadrectl('model', 'inspect', out, code=0).stdout

    weights = out / 'model.safetensors'
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1   # of the last expert's last matrix
    weights.write_bytes(data)
    sentence = refused('generate', '--model', out, '--numerics', 'int8', '--tokens', '1')
    assert str(weights) in sentence and "mlp.experts.15.gate_proj.weight' and on, have the checksum" in sentence and 'and had' in sentence
    weights.write_bytes(data[:-1])
    assert 'truncated' in refused('generate', '--model', out, '--numerics', 'int8', '--tokens', '1')
