# SPDX-License-Identifier: Apache-2.0
"""Memory of expert nodes on the emulated GPU: experts that come and go under load, and too little of it."""
import os

import pytest

from cluster import GOLDEN, WITHOUT_EMU, Again, Cluster, cadrectl, embedded, lines_with, metric, until

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
INT8 = ['--numerics', 'int8']
PROMPT, TOKENS = [(i * 37 + 11) % 250 for i in range(40)], 8

pytestmark = pytest.mark.skipif(**WITHOUT_EMU)


def memory(cluster):
    gpu = cluster.node('expert-1')
    return gpu['memory_used_bytes'], gpu['memory_bytes']


def check(cluster, expected):
    assert cluster.routers[0].generate(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True).digest == expected


@pytest.fixture(scope='module')
def pool():
    """Without nodes."""
    with Cluster(MODEL, experts=0, routers=0, placement_options=INT8, start=False) as cluster:
        cluster.placement.start()
        until(lambda: cluster.command('status', code=None).returncode in (0, 3), 30)
        yield cluster


def test_experts_move_to_and_from_a_gpu(tmp_path):
    """Under load, and with room for some: no order that does not fit, and nothing that another process could take."""
    taken, expected = tmp_path / 'taken', embedded(MODEL, PROMPT, TOKENS, *INT8)['digest']
    with Cluster(MODEL, experts=2, placement_options=[*INT8, '--settle', '50ms', '--bytes-per-second', '0'], start=False, env={'CADRE_EMU_TAKEN': taken}) as cluster:
        gpu = cluster.experts[1]
        gpu.arguments += ['--device', 'emu', '--memory', '1M']
        cluster.start_all().wait_ready()
        taken.write_text(str(2**60))
        slots, slot_bytes = metric(gpu.http, 'cadre_expert_slots'), metric(gpu.http, 'cadre_expert_slot_bytes')
        assert slots == 2**20 // slot_bytes
        until(lambda: memory(cluster) == (slots * slot_bytes, slots * slot_bytes))
        assert lines_with(gpu, f'msg="memory planned" device=emu:0 device_bytes={4 << 30} ')
        with Again(lambda _: check(cluster, expected)) as again:
            for moves in range(1, 3):
                until(lambda: [metric(e.http, 'cadre_expert_held') for e in cluster.experts] == [48 - slots, slots] and again.times >= moves, 60)
                cluster.command('drain', 'expert-1', '--wait')
                assert metric(gpu.http, 'cadre_expert_held') == metric(gpu.http, 'cadre_expert_weights_bytes') == 0
                cluster.command('undrain', 'expert-1')
        check(cluster, expected)
        assert not lines_with(gpu, 'no memory') and metric(cluster.placement_http, 'cadre_placement_loads_failed_total') == 0


@pytest.mark.parametrize('options, taken, says', [
    (['--memory', '8G'], 0, "--memory asks for 8.0 GiB, but device 'emu:0' has 4.0 GiB, of which 4.0 GiB are free and "),
    ([], (4 << 30) - (20 << 20), ": device 'emu:0' has 4.0 GiB, of which 20.0 MiB are free and "),
    ([], (4 << 30) - (10 << 20), "no memory for steps of 2048 rows and 8192 pairs: device 'emu:0' has "),
    ([], (4 << 30) - (5 << 20), "cannot create a compute queue of 1 threads: device 'emu:0' has 5.0 MiB of 4.0 GiB free"),
    ([], 4 << 30, "device 'emu:0' (Emulated GPU 0) has no memory to begin with: 0 of 4096 MiB are free; end what else uses it"),
])
def test_a_gpu_with_too_little_memory(pool, options, taken, says):
    """Nothing is half started."""
    expert = pool.add_expert(['--device', 'emu', *options])
    expert.env = {'CADRE_EMU_TAKEN': str(taken)}
    expert.start()
    assert expert.popen.wait(30) == 1
    assert lines_with(expert, says)
    assert [n['id'] for n in pool.status()['nodes'] if n['role'] == 'expert'] == []


def test_a_model_that_does_not_fit():
    """Of a program that loads all experts itself: there is room for its steps, and not for 2.3 MiB more."""
    for mib in range(12, 40):
        done = cadrectl('generate', '--model', MODEL, *INT8, '--device', 'emu', '--max-tokens', 1, 'hello', code=1, env={**os.environ, 'CADRE_EMU_BYTES': str(mib << 20)})
        if 'no memory for steps' not in done.stderr:
            break
    assert "the 48 experts of this model take 2.3 MiB, but device 'emu:0' has " in done.stderr
