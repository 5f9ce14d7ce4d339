# SPDX-License-Identifier: Apache-2.0
"""Mistakes that people make: each ends at once, with a sentence that says what to change. Nothing crashes, nothing hangs."""
import os
import resource
import shutil
import subprocess

import pytest

from cluster import BIN, GOLDEN, Cluster

MODEL = GOLDEN / 'mixtral-a' / 'model'
ROUTER = ['cadre-router', '--local-experts', '--model', MODEL, '--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0']
PLACEMENT = ['cadre-placement', '--model', MODEL, '--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0']


def run(program, *arguments, seconds=20, **options):
    """(exit code, what it said)"""
    done = subprocess.run([BIN / program, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', timeout=seconds,
                          **options)
    return done.returncode, done.stdout


@pytest.mark.parametrize('command, code, says', [
    (ROUTER[:-1] + ['127.0.0.1:99999'], 2, 'a port is a number from 0 to 65535'),
    (ROUTER[:-1] + ['127.0.0.1:http'], 2, 'a port is a number from 0 to 65535'),
    (ROUTER + ['--id', 'a b'], 2, "--id is 'a b'"),
    (ROUTER + ['--id', 64 * 'x'], 2, 'at most 63 letters'),
    (ROUTER + ['--token-file', '/tmp'], 1, "the token file '/tmp' is a directory"),
    (['cadre-router', '--local-experts', '--model', ''], 2, '--model is empty'),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--exchange', '0.0.0.0:0'], 2, 'give the address of one interface'),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--exchange', '[::1]:0', '--check-config'], 2, 'UCX does not use this address'),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--advertise', '192.0.2.1:1'], 2, 'leave --advertise out'),
    (['cadre-router', '--model', MODEL, '--placement', '127.0.0.1:1', '--exchange', '203.0.113.9:0'], 2, 'no interface of this machine has that address'),
    (PLACEMENT + ['--cluster-network', 'nope'], 2, "--cluster-network: 'nope': there is no such interface; the interfaces of this machine: lo 127.0.0.1"),
    (['cadrectl', 'health', '--cluster-network', '203.0.113.0/24', '--http', ':1'], 2, 'no interface has an address in there'),
    (PLACEMENT + ['--state', '/tmp'], 1, 'Is a directory'),
    (PLACEMENT + ['--state', '/nonexistent/state.db'], 1, 'No such file or directory'),
], ids=str)
def test_wrong_options(command, code, says):
    ended, text = run(*command)
    assert ended == code, text
    assert says in text


def one_process():
    """No threads, then; root has no such limit."""
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    if os.geteuid() == 0:
        os.setuid(65534)


@pytest.mark.parametrize('command', [ROUTER, PLACEMENT], ids=['router', 'placement'])
def test_a_system_that_gives_no_threads(command):
    try:
        code, text = run(*command, preexec_fn=one_process)
    except PermissionError:
        pytest.skip('nobody else may run these programs')
    assert code == 1, text
    assert 'see ulimit -u' in text


def damaged(tmp_path, golden, file, change):
    """A copy of a golden model with one file changed, or gone."""
    directory = tmp_path / 'model'
    shutil.copytree(GOLDEN / golden / 'model', directory)
    path = directory / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    return directory


@pytest.mark.parametrize('golden, file, change, says', [
    ('mixtral-a', 'model.safetensors', lambda b: b[100:], 'this is not a safetensors file'),
    ('mixtral-a', 'model.safetensors', lambda b: b[:-1000], 'truncated'),
    ('mixtral-a', 'model.safetensors', lambda b: b'', 'too few for a safetensors file'),
    ('mixtral-a', 'model.safetensors', None, 'has neither model.safetensors nor'),
    ('mixtral-a', 'config.json', lambda b: b[:100], 'config.json is not valid JSON'),
    ('mixtral-a', 'generation_config.json', lambda b: b'{', 'model/generation_config.json is not valid JSON'),
    ('mixtral-a', 'tokenizer.json', lambda b: b[:1000], 'premature end of input'),
    ('mixtral-a', 'tokenizer.json', None, 'give the prompt as token ids'),
    ('olmoe-b', 'model.safetensors.index.json', lambda b: b[:100], 'index.json is not valid JSON'),
    ('olmoe-b', 'model.safetensors.index.json', lambda b: b.replace(b'00002-of', b'00009-of'), 'model-00009-of-00003.safetensors does not exist'),
    ('olmoe-b', 'model-00002-of-00003.safetensors', lambda b: b[:-1], 'truncated'),
])
def test_damaged_checkpoints(tmp_path, golden, file, change, says):
    code, text = run('cadrectl', 'generate', '--model', damaged(tmp_path, golden, file, change), '--max-tokens', 1, 'hello')
    assert code == 1, text
    assert says in text


def test_a_node_that_cannot_serve_does_not_join():
    with Cluster(MODEL, experts=1) as cluster:
        expert = ['cadre-expert', '--model', MODEL, '--placement', cluster.placement_grpc, '--id', 'expert-9']
        code, text = run(*expert, '--memory', '10K')
        assert code == 1 and 'one expert of this model takes 49152' in text
        code, text = run(*expert, '--exchange', '127.0.0.2:0')
        assert code == 2 and "that of 'lo' is 127.0.0.1" in text
        code, text = run(*expert, '--memory', '1000T', '--http', cluster.placement_http)
        assert code == 1 and 'Address already in use' in text
        assert '--memory exceeds the free memory' in text
        code, text = run('cadrectl', 'generate', '--router', cluster.placement_grpc, 'hello')
        assert code == 1 and "is that a router's --grpc address?" in text


def test_a_router_that_dies_is_told_from_one_that_is_not_there():
    with Cluster(MODEL, experts=1) as cluster:
        command = [BIN / 'cadrectl', 'generate', '--router', cluster.routers[0].grpc, '--tokens', '5,6,7', '--max-tokens', '4000', '--ignore-eos']
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace')
        assert process.stdout.read(1)
        cluster.routers[0].process.kill()
        _, said = process.communicate(timeout=20)
        assert process.returncode == 1 and 'the answer is cut off here' in said
