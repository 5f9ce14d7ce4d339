# SPDX-License-Identifier: Apache-2.0
"""Expert nodes on the emulated GPU, alone and beside the CPU: the same bits, and what they refuse."""
import pytest

from cluster import BIN, GOLDEN, Again, Cluster, embedded, lines_with, until

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
PROMPT = [(i * 37 + 11) % 250 for i in range(40)]
TOKENS = 8
INT8 = ['--numerics', 'int8']

pytestmark = pytest.mark.skipif(not (BIN.parent / 'lib' / 'cadre' / 'libcadre-emu.so').exists(), reason='this build has no emulated GPU')


@pytest.fixture(scope='module')
def expected():
    return embedded(MODEL, PROMPT, TOKENS, *INT8)['digest']


def generate(cluster):
    return cluster.routers[0].generate(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True).digest


def check(digest, expected):
    assert digest == expected


def node(cluster, name):
    return next(node for node in cluster.status()['nodes'] if node['id'] == name)


@pytest.mark.parametrize('lost', [0, 1])
def test_one_pool_of_cpu_and_gpu(expected, lost):
    """Each is the other's replica: their kernels have one fingerprint, and either may be lost while tokens flow."""
    with Cluster(MODEL, experts=2, placement_options=[*INT8, '--copies', 2], start=False) as cluster:
        cluster.experts[1].arguments += ['--device', 'emu']
        for process in cluster.processes():
            process.start()
        cluster.wait_ready()
        cpu, gpu = node(cluster, 'expert-0'), node(cluster, 'expert-1')
        assert gpu['isa'] == 'emu' != cpu['isa'] and gpu['kernels_fingerprint'] == cpu['kernels_fingerprint']
        assert generate(cluster) == expected
        with Again(lambda _: check(generate(cluster), expected)) as again:
            until(lambda: again.times >= 1, 120)
            cluster.experts[lost].kill()
            until(lambda: again.times >= 3, 120)
        assert generate(cluster) == expected


@pytest.mark.parametrize('model', ['mixtral-a', 'olmoe-a', 'qwen3moe-b'])
def test_families(model):
    model = GOLDEN / model / 'model'
    with Cluster(model, experts=1, placement_options=INT8, expert_options=['--device', 'emu']) as cluster:
        assert generate(cluster) == embedded(model, PROMPT, TOKENS, *INT8)['digest']


def test_a_device_that_lacks_the_profile():
    with Cluster(MODEL, experts=1, expert_options=['--device', 'emu'], start=False) as cluster:
        cluster.placement.start()
        cluster.experts[0].start()
        assert cluster.experts[0].popen.wait(30) != 0
        assert lines_with(cluster.experts[0], "device 'emu:0' (emu) does not compute in profile 'f32', which is the cluster's; it has int8")


def test_a_device_that_is_not_there():
    with Cluster(MODEL, experts=1, expert_options=['--device', 'emu'], start=False, env={'CADRE_BACKENDS': '/nowhere'}) as cluster:
        cluster.experts[0].start()
        assert cluster.experts[0].popen.wait(30) != 0
        assert lines_with(cluster.experts[0], 'its library /nowhere/libcadre-emu.so is not there')
