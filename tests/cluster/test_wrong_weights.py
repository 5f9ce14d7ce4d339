# SPDX-License-Identifier: Apache-2.0
"""Files with other weights under the same headers, which the fingerprint of the model does not see: on an expert node, on a router."""
import json
import shutil
import struct
import subprocess
import time

import pytest

from cluster import BIN, GOLDEN, Cluster, metric

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


def status_table(cluster):
    return subprocess.run([BIN / 'cadrectl', 'status', '--placement', cluster.placement_grpc], capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope='module')
def digest():
    with Cluster(MODEL, experts=1) as cluster:
        return cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest


def test_node_with_wrong_weights_is_said_once_and_holds_nothing(tmp_path, digest):
    with Cluster(MODEL, experts=2, start=False) as cluster:
        bad = cluster.experts[1]
        bad.arguments[bad.arguments.index('--model') + 1] = str(other_weights(tmp_path / 'other', '.experts.'))
        for process in cluster.processes():
            process.start()
        cluster.wait_ready()
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
        end = time.monotonic() + 30
        while not {n['id']: n for n in cluster.status()['nodes']}['expert-1']['experts']:
            assert time.monotonic() < end, cluster.logs()
            time.sleep(0.05)
        assert 'ATTENTION: expert-1' not in status_table(cluster)
