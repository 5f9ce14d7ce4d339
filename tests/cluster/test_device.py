# SPDX-License-Identifier: Apache-2.0
"""Expert nodes on the emulated GPU, alone and beside the CPU: the same bits, and what they refuse."""
import json
import os

import pytest

from cluster import BIN, GOLDEN, WITHOUT_EMU, Again, Cluster, cadrectl, embedded, http, lines_with, metric, until

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
PROMPT = [(i * 37 + 11) % 250 for i in range(40)]
TOKENS = 8
INT8 = ['--numerics', 'int8']
MORE = int('CADRE_TEST_ALL' in os.environ)   # ./cadre test emu sets it

pytestmark = pytest.mark.skipif(**WITHOUT_EMU)


@pytest.fixture(scope='module')
def expected():
    return embedded(MODEL, PROMPT, TOKENS, *INT8)['digest']


def generate(cluster):
    return cluster.routers[0].generate(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True).digest


def check(digest, expected):
    assert digest == expected


@pytest.mark.parametrize('lost', [0, 1])
def test_one_pool_of_cpu_and_gpu(expected, lost):
    """Each is the other's replica: their kernels have one fingerprint, and either may be lost while tokens flow."""
    with Cluster(MODEL, experts=2, placement_options=[*INT8, '--copies', 2], start=False) as cluster:
        cluster.experts[1].arguments += ['--device', 'emu']
        cluster.start_all().wait_ready()
        cpu, gpu = cluster.node('expert-0'), cluster.node('expert-1')
        assert gpu['isa'] == 'emu' != cpu['isa'] and gpu['kernels_fingerprint'] == cpu['kernels_fingerprint']
        assert generate(cluster) == expected
        for stage in 'unpack', 'ffn', 'combine':
            assert 0 < metric(gpu['http_address'], f'cadre_device_seconds_total{{stage="{stage}"}}') < 60
        with Again(lambda _: check(generate(cluster), expected)) as again:
            until(lambda: again.times >= 1, 120)
            cluster.experts[lost].kill()
            until(lambda: again.times >= 3, 120)
        assert generate(cluster) == expected


def fail(fault, gpu, generate_one):
    """The device fails in a step, and the process ends for its supervisor."""
    fault.touch()
    with Again(lambda _: generate_one()) as again:
        assert gpu.popen.wait(60) == 1
        until(lambda: again.times >= 2, 120)
    fault.unlink()


def test_a_device_that_fails_under_load(expected, tmp_path):
    """Nothing is lost, its experts come back elsewhere, and who fails again waits before he may join."""
    fault = tmp_path / 'fault'
    with Cluster(MODEL, experts=3, placement_options=[*INT8, '--copies', 2], env={'CADRE_EMU_FAIL_AFTER': str(fault)}, start=False) as cluster:
        gpu = cluster.experts[1]
        gpu.arguments += ['--device', 'emu']
        cluster.start_all().wait_ready()
        held = sum(node['experts'] for node in cluster.status()['nodes'])
        fail(fault, gpu, lambda: check(generate(cluster), expected))

        until(lambda: cluster.node('expert-0')['experts'] + cluster.node('expert-2')['experts'] == held, 60)
        left = cluster.node('expert-1')
        assert left['state'] == 'dead' and left['problem'].startswith("its device has failed, and it left: unspecified launch failure (CUDA's error 719) in ")
        assert len(lines_with(gpu, 'a step failed on the device')) == len(lines_with(gpu, 'the device has failed: this node')) == 1
        assert 'device of expert-1' in cluster.command('history').stdout

        gpu.start()
        until(lambda: cluster.node('expert-1')['state'] == 'live' and cluster.node('expert-1')['experts'] > 0, 60)
        fail(fault, gpu, lambda: check(generate(cluster), expected))
        gpu.start()
        until(lambda: lines_with(gpu, "the device of 'expert-1' has failed 2 times: it may join again 1 minute after the last time"), 30)


@pytest.mark.parametrize('settings', [[], ['--weights', 'bf16'], ['--numerics', 'int4']], ids=['f32', 'bf16 weights', 'int4'])
def test_replicas_in_every_profile(settings):
    with Cluster(MODEL, experts=2, placement_options=[*settings, '--copies', 2], start=False) as cluster:
        cluster.experts[1].arguments += ['--device', 'emu']
        cluster.start_all().wait_ready()
        assert cluster.node('expert-0')['kernels_fingerprint'] == cluster.node('expert-1')['kernels_fingerprint']
        check(generate(cluster), embedded(MODEL, PROMPT, TOKENS, *settings)['digest'])
        cluster.experts[0].kill()
        check(generate(cluster), embedded(MODEL, PROMPT, TOKENS, *settings)['digest'])


@pytest.mark.parametrize('settings', [INT8, []], ids=['int8', 'f32'])
@pytest.mark.parametrize('model', ['mixtral-a', 'mixtral-b', 'olmoe-a', 'olmoe-b', 'qwen3moe-a', 'qwen3moe-b'])
def test_families(model, settings):
    model = GOLDEN / model / 'model'
    expected = embedded(model, PROMPT, TOKENS, *settings)['digest']
    with Cluster(model, experts=1, placement_options=settings, expert_options=['--device', 'emu']) as cluster:
        check(generate(cluster), expected)
        assert len(lines_with(cluster.experts[0], "the device's clocks, power, temperature and errors are not shown")) == 1
    check(embedded(model, PROMPT, TOKENS, *settings, '--device', 'emu', '--nodes', '2')['digest'], expected)


COMPANY = [dict(tokens=[(i * 13 + n) % 250 for i in range(5 + 7 * n)], max_tokens=3 + n, ignore_eos=True) for n in range(4)]


@pytest.mark.parametrize('devices,router_options', [(['cpu', 'emu', 'emu'], ['--chunk', '7'])] + MORE * [
    (['emu'], ['--chunk', '1']), (['emu'] * 4, ['--micro-batches', '3']), (['emu', 'cpu', 'cpu', 'emu'], ['--chunk', '64', '--micro-batches', '2'])])
@pytest.mark.parametrize('settings', [INT8] + MORE * [[], ['--numerics', 'int4']], ids=' '.join)
def test_pools_and_chunks(devices, router_options, settings):
    """However many nodes there are of each kind, and whatever shares a step: experts of a row lie on several of them."""
    expected = embedded(MODEL, PROMPT, TOKENS, *settings)['digest']
    with Cluster(MODEL, experts=len(devices), router_options=router_options, placement_options=[*settings, '--shuffle', 17], start=False) as cluster:
        for expert, device in zip(cluster.experts, devices):
            expert.arguments += ['--device', device]
        cluster.start_all().wait_ready()
        company = COMPANY[:2] + [dict(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True)] + COMPANY[2:]
        check(cluster.routers[0].generate_many(company)[2].digest, expected)


def test_eval(tmp_path):
    """Logits and routing, byte for byte."""
    (tmp_path / 'input').write_text(json.dumps({'sequences': [PROMPT, PROMPT[:7]], 'greedy_tokens': 3}))
    for device in 'cpu', 'emu':
        cadrectl('eval', '--model', MODEL, '--input', tmp_path / 'input', '--output', tmp_path / device, *INT8, '--device', device, code=0)
    assert (tmp_path / 'cpu').read_bytes() == (tmp_path / 'emu').read_bytes()


def test_the_embedded_form_says_what_is_wrong(monkeypatch):
    def said(code, *options):
        return cadrectl('generate', '--model', MODEL, '--tokens', '1,2,3', '--max-tokens', '3', *options, code=code).stderr

    assert "--device is 'cuda:x'; it can be cpu, cuda or emu" in said(2, '--device', 'cuda:x')
    assert "there is no device 'emu:9': the only GPU is emu:0" in said(1, *INT8, '--device', 'emu:9')
    assert "does not compute in profile 'bf16'" in said(1, '--numerics', 'bf16', '--device', 'emu')
    monkeypatch.setenv('CADRE_EMU_FAIL_AFTER', '80')   # opening and loading take fewer, or more: either way
    assert "device 'emu:0' (Emulated GPU 0) has failed: unspecified launch failure (CUDA's error 719) " in said(1, *INT8, '--device', 'emu')


SM90 = ['--numerics', 'bf16-sm90']


def test_tensor_cores_and_the_cpu_are_replicas(tmp_path):
    """In the order of Hopper's tensor cores; and what a GPU has answered is verified without one."""
    with Cluster(MODEL, experts=2, placement_options=[*SM90, '--copies', 2], start=False) as cluster:
        cluster.experts[1].arguments += ['--device', 'emu']
        cluster.start_all().wait_ready()
        assert cluster.node('expert-0')['kernels_fingerprint'] == cluster.node('expert-1')['kernels_fingerprint']
        cluster.experts[0].kill()
        until(lambda: cluster.node('expert-0')['state'] == 'dead')
        answer = tmp_path / 'answer.json'
        cadrectl('generate', '--router', cluster.routers[0].grpc, '--tokens', ','.join(map(str, PROMPT)), '--max-tokens', TOKENS, '--ignore-eos', '--save', answer, code=0)
        for isa in 'ref', 'avx2':
            assert cadrectl('verify', '--model', MODEL, *SM90, '--isa', isa, answer, code=0).stdout.startswith('equal: ')


def test_tensor_cores_of_another_family():
    with Cluster(MODEL, experts=1, placement_options=SM90, expert_options=['--device', 'emu'], start=False, env={'CADRE_EMU_SM': '80'}) as cluster:
        cluster.placement.start()
        cluster.experts[0].start()
        assert cluster.experts[0].popen.wait(30) != 0
        assert lines_with(cluster.experts[0], "does not compute in profile 'bf16-sm90', which is the cluster's: it is the order of compute capability 9.0, and that of 8.0 is not established; it has f32, int8, int4")


def test_a_device_that_lacks_the_profile():
    with Cluster(MODEL, experts=1, placement_options=['--numerics', 'bf16'], expert_options=['--device', 'emu'], start=False) as cluster:
        cluster.placement.start()
        cluster.experts[0].start()
        assert cluster.experts[0].popen.wait(30) != 0
        [line] = lines_with(cluster.experts[0], "device 'emu:0' (emu) does not compute in profile 'bf16', which is the cluster's; it has f32, bf16-sm90, int8, int4")
        assert 'choose such --numerics, or --device cpu here' in line


def test_nvml(tmp_path):
    """What NVML tells of a GPU is shown, and errors of its memory make its node leave."""
    nvml = tmp_path / 'nvml'
    nvml.write_text('total 150000000000\nused 5000000000\ntemperature 71\npower 612250\nuncorrected 1\nthrottle 4\n')
    env = {'CADRE_FAKE_NVML': str(nvml), 'LD_LIBRARY_PATH': str(BIN.parent / 'tests' / 'fake-nvml'), 'CADRE_EMU_TAKEN': '2000000000'}
    with Cluster(MODEL, experts=1, placement_options=INT8, expert_options=['--device', 'emu'], env=env) as cluster:
        [line] = lines_with(cluster.experts[0], "other processes have some of this device's memory")
        assert 'device=emu:0' in line and 'bytes=2000000000' in line
        shown = until(lambda: (device := cluster.node('expert-0')['device'])['power_w'] and device)
        assert shown == {'device': 'emu:0', 'chip': 'Emulated GPU 0', 'memory_used_bytes': 5000000000, 'memory_bytes': 150000000000, 'busy': 0, 'clock_hz': 0,
                         'power_w': 612.25, 'temperature_c': 71, 'ecc_uncorrected': 1, 'throttled': 'power'}
        page = http(cluster.node('expert-0')['http_address'], '/metrics').splitlines()
        assert {'cadre_device_temperature_celsius 71', 'cadre_device_ecc_errors{kind="uncorrected"} 1', 'cadre_device_throttled{reason="power"} 1', 'cadre_device_throttled{reason="heat"} 0'} <= set(page)
        assert not [line for line in page if line.startswith('cadre_device_clock_hertz')]   # not known, so not there
        assert 'device' not in cluster.status()['nodes'][-1]

        nvml.write_text('uncorrected 3\n')
        assert cluster.experts[0].popen.wait(30) == 1
        assert cluster.node('expert-0')['problem'] == 'its device has failed, and it left: its memory had 2 errors that ECC cannot correct since this process began'


def test_a_device_that_fails_at_the_start():
    with Cluster(MODEL, experts=1, placement_options=INT8, expert_options=['--device', 'emu'], start=False, env={'CADRE_EMU_FAIL_AFTER': '3', 'CADRE_EMU_ERROR': '214'}) as cluster:
        cluster.placement.start()
        cluster.experts[0].start()
        assert cluster.experts[0].popen.wait(30) == 1
        assert lines_with(cluster.experts[0], "device 'emu:0' (Emulated GPU 0) has failed: uncorrectable ECC error encountered (CUDA's error 214) ")
        assert not cluster.status()['nodes']


def test_a_device_that_is_not_there():
    with Cluster(MODEL, experts=1, expert_options=['--device', 'emu'], start=False, env={'CADRE_BACKENDS': '/nowhere'}) as cluster:
        cluster.experts[0].start()
        assert cluster.experts[0].popen.wait(30) != 0
        assert lines_with(cluster.experts[0], 'its library /nowhere/libcadre-emu.so is not there')
