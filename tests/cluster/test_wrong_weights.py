# SPDX-License-Identifier: Apache-2.0
"""Files with other weights under the same headers, which the fingerprint of the model does not see: on an expert node, on a router."""
import json
import os
import random
import re
import shutil
import struct
import subprocess
import time

import pytest

from cluster import BIN, GOLDEN, Cluster, http, metric, wait_for_log

MODEL = GOLDEN / 'qwen3moe-a' / 'model'


def other_weights(directory, match):
    """A copy of the model with one other byte in each tensor of such a name."""
    shutil.copytree(MODEL, directory)
    changed = 0
    for file in directory.glob('*.safetensors'):
        data = bytearray(file.read_bytes())
        length, = struct.unpack('<Q', data[:8])
        for name, tensor in json.loads(data[8:8 + length]).items():
            if match in name:
                data[8 + length + tensor['data_offsets'][0]] ^= 1
                changed += 1
        file.chmod(0o644)
        file.write_bytes(data)
    assert changed > 0
    return directory


def damaged_head(directory):
    """A model in which one weight of the head, of the last token, is NaN."""
    shutil.copytree(GOLDEN / 'olmoe-a' / 'model', directory)
    for file in directory.glob('*.safetensors'):
        data = bytearray(file.read_bytes())
        length, = struct.unpack('<Q', data[:8])
        tensor = json.loads(data[8:8 + length]).get('lm_head.weight')
        if tensor:
            assert tensor['dtype'] == 'BF16'
            end = 8 + length + tensor['data_offsets'][1]
            data[end - 2:end] = b'\xc0\x7f'
            file.chmod(0o644)
            file.write_bytes(data)
            return directory
    raise AssertionError('no lm_head.weight')


def test_a_logit_that_is_no_number_ends_the_request(tmp_path):
    """Whichever token's it is, and wherever it is computed: nothing is answered, nothing has a digest."""
    model, sentence = damaged_head(tmp_path / 'model'), 'the logits at position 2 are not finite: the checkpoint is damaged'
    ways = [[], ['--temperature', '1', '--seed', '3'], ['--temperature', '0.8', '--top-k', '2', '--top-p', '0.5']]
    with Cluster(model, experts=2) as cluster:
        for way in ways:
            for where in ['--router', cluster.routers[0].grpc], ['--model', model]:
                done = subprocess.run([BIN / 'cadrectl', 'generate', *where, *way, '--tokens', '5,6,7', '--max-tokens', '8', '--ignore-eos'], capture_output=True, text=True, timeout=60)
                assert done.returncode == 1 and done.stdout == '' and sentence in done.stderr, done
    (tmp_path / 'in.json').write_text('{"sequences": [[5, 6, 7]]}')
    done = subprocess.run([BIN / 'cadrectl', 'eval', '--model', model, '--input', tmp_path / 'in.json', '--output', tmp_path / 'out'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and 'are not finite' in done.stderr and not (tmp_path / 'out').exists(), done


@pytest.mark.parametrize('golden, profile', [('llama-a', 'f32'), ('olmoe-a', 'f32'), ('olmoe-a', 'int8')])
def test_no_weight_that_is_no_number_goes_unnoticed(tmp_path, golden, profile):
    """One element of any tensor is NaN or infinite: the request fails, or has the answer that it would have without."""
    seed = random.randrange(1 << 32)
    print('seed', seed)
    rng, model = random.Random(seed), tmp_path / 'model'
    shutil.copytree(GOLDEN / golden / 'model', model)
    file, = model.glob('*.safetensors')
    file.chmod(0o644)
    whole = file.read_bytes()
    length, = struct.unpack('<Q', whole[:8])
    tensors = [(name, tensor) for name, tensor in json.loads(whole[8:8 + length]).items() if name != '__metadata__']
    command = [BIN / 'cadrectl', 'generate', '--model', model, '--numerics', profile, '--tokens', ','.join(str(rng.randrange(5, 380)) for _ in range(40)), '--max-tokens', '6', '--ignore-eos',
               '--threads', '1', '-o', 'json']
    right = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)['digest']
    for _ in range(25):
        (name, tensor), value = rng.choice(tensors), rng.choice([b'\xc0\x7f', b'\x80\x7f', b'\x80\xff'])
        assert tensor['dtype'] == 'BF16'
        begin, end = tensor['data_offsets']
        at = 8 + length + begin + 2 * rng.randrange((end - begin) // 2)
        file.write_bytes(whole[:at] + value + whole[at + 2:])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            assert json.loads(done.stdout)['digest'] == right, (seed, name, at, value)
        else:
            assert done.returncode == 1 and done.stdout == '' and done.stderr.startswith('cadrectl generate: '), (seed, name, done)


def status_table(cluster):
    return subprocess.run([BIN / 'cadrectl', 'status', '--placement', cluster.placement_grpc], capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope='module')
def digest():
    with Cluster(MODEL, experts=1) as cluster:
        return cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest


def wait_for_experts(cluster, name):
    end = time.monotonic() + 30
    while not any(n['experts'] for n in cluster.status()['nodes'] if n['id'] == name):
        assert time.monotonic() < end, cluster.logs()
        time.sleep(0.05)


def test_node_with_wrong_weights_is_said_once_and_holds_nothing(tmp_path, digest):
    with Cluster(MODEL, experts=2, start=False, placement_options=['--level-on-join=false']) as cluster:   # or the other node gives it right ones
        bad = cluster.experts[1]
        bad.arguments[bad.arguments.index('--model') + 1] = str(other_weights(tmp_path / 'other', '.experts.'))
        cluster.start_all().wait_ready()
        assert cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest == digest
        assert metric(cluster.placement_http, 'cadre_placement_checksums_wrong_total') > 1
        assert cluster.placement.log.read_text().count('wrong weights') == 1, cluster.placement.log.read_text()
        nodes = {n['id']: n for n in cluster.status()['nodes']}
        assert nodes['expert-1']['experts'] == 0 and nodes['expert-0']['problem'] == ''
        assert 'wrong weights' in nodes['expert-1']['problem'] and 'same --model files' in nodes['expert-1']['problem']
        assert 'ATTENTION: expert-1: wrong weights' in status_table(cluster)

        # with the right files it is one of them again
        bad.kill()
        bad.popen.wait()
        bad.arguments[bad.arguments.index('--model') + 1] = str(MODEL)
        bad.start()
        wait_for_log(bad, 'msg=serving', times=2)
        cluster.experts[0].kill()
        wait_for_experts(cluster, 'expert-1')
        assert 'ATTENTION: expert-1' not in status_table(cluster)


def test_node_with_wrong_weights_gets_the_right_ones_from_others(tmp_path, digest):
    with Cluster(MODEL, experts=1) as cluster:
        cluster.model = other_weights(tmp_path / 'other', '.experts.')
        bad = cluster.add_expert()
        wait_for_experts(cluster, 'expert-1')
        assert cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest == digest
        assert metric(cluster.placement_http, 'cadre_placement_checksums_wrong_total') == 0
        assert 'cadre_expert_load_seconds_count{source="checkpoint"} 0' in http(bad.http, '/metrics')


def test_router_with_other_weights_is_refused_with_both_values(tmp_path, digest):
    """The placement service's own files are right. The refused router is never ready, says why once, and joins with the right files."""
    with Cluster(MODEL, experts=1) as cluster:
        router = cluster.add_router()
        router.process.stop()
        right = list(router.process.arguments)
        router.process.arguments[right.index('--model') + 1] = str(other_weights(tmp_path / 'other', 'self_attn.k_proj'))
        refusals = metric(cluster.placement_http, 'cadre_placement_refusals_total')
        router.process.log.unlink()
        router.process.start()
        wait_for_log(router.process, 'has other weights than this cluster')
        end = time.monotonic() + 30
        while metric(cluster.placement_http, 'cadre_placement_refusals_total') < refusals + 3:
            assert time.monotonic() < end, cluster.logs()
            time.sleep(0.05)
        with pytest.raises(OSError):
            http(router.http, '/readyz')
        expected = cluster.status()['router_checksum']
        log = router.process.log.read_text()
        assert re.search(f"has the checksum '[0-9a-f]{{32}}', in the placement service's files '{expected}'", log), log
        assert log.count('has other weights') == 1 and cluster.placement.log.read_text().count('has other weights') == 1
        assert 'router-1' not in [n['id'] for n in cluster.status()['nodes'] if n['state'] == 'live']
        assert router.process.stop() == 0

        router.process.arguments = right
        router.process.start()
        cluster.wait_ready()
        for each in cluster.routers:
            assert each.generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest == digest


def test_checkpoint_is_read_once_and_again_when_its_files_change(tmp_path, digest):
    """Touched files are read again; replaced ones are another cluster's: the placement service does not start, and the cluster goes on."""
    model = tmp_path / 'model'
    shutil.copytree(MODEL, model)

    def generate(cluster):
        return cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest

    def restart(cluster):
        assert cluster.placement.stop() == 0
        cluster.placement.log.unlink()
        cluster.placement.start()
        wait_for_log(cluster.placement, 'role=router')
        assert generate(cluster) == digest
        return cluster.placement.log.read_text()

    with Cluster(model, experts=1) as cluster:
        first = cluster.status()['router_checksum']
        assert len(first) == 32 and 'msg="checksum of what routers compute with"' in cluster.placement.log.read_text()
        log = restart(cluster)
        assert 'not those of last time' not in log and 'msg="checksum of what' not in log
        os.utime(next(model.glob('*.safetensors')))
        assert 'not those of last time' in restart(cluster)
        assert cluster.status()['router_checksum'] == first
        assert metric(cluster.placement_http, 'cadre_placement_frees_ordered_total') == 0
        assert 'not those of last time' not in restart(cluster)

        model.rename(tmp_path / 'before')
        other_weights(model, 'self_attn.k_proj')
        assert cluster.placement.stop() == 0
        cluster.placement.start()
        assert cluster.placement.popen.wait(20) == 1
        assert f"the state file belongs to other weights: all but routed experts had the checksum '{first}'" in cluster.placement.log.read_text()
        assert generate(cluster) == digest
        shutil.rmtree(model)
        (tmp_path / 'before').rename(model)
        cluster.placement.log.unlink()
        cluster.placement.start()
        wait_for_log(cluster.placement, 'role=router')
        assert generate(cluster) == digest
