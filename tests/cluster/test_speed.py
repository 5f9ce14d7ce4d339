# SPDX-License-Identifier: Apache-2.0
"""Nodes of different speed: what each measures of itself or is given, what it is given to do for that, and that answers do not depend on it."""
import pytest

from cluster import GOLDEN, WITHOUT_EMU, Cluster, embedded, lines_with, metric

MODEL = GOLDEN / 'qwen3moe-a' / 'model'   # 3 MoE layers of 16 experts
PROMPT = [(i * 37 + 11) % 250 for i in range(40)]
TOKENS = 8
INT8 = ['--numerics', 'int8']


def expert_nodes(cluster):
    return {node['id']: node for node in cluster.status()['nodes'] if node['role'] == 'expert'}


def digest(cluster):
    return cluster.routers[0].generate(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True).digest


def test_fast_nodes_are_given_more():
    with Cluster(MODEL, experts=3, placement_options=INT8, start=False) as cluster:
        cluster.experts[0].env = {'CADRE_SPEED': '0'}
        cluster.experts[2].arguments += ['--speed', '6']
        cluster.start_all().wait_ready()
        nodes = expert_nodes(cluster)
        assert [nodes[f'expert-{i}']['speed'] for i in range(3)] == [1, 1, 6]
        assert [nodes[f'expert-{i}']['experts'] for i in range(3)] == [6, 6, 36]
        assert nodes['expert-1']['measured'] is None and nodes['expert-2']['measured'] is None
        assert all(node['expert_bytes'] > 0 for node in nodes.values())
        for process in cluster.experts:   # without --memory: what was planned
            assert f' memory_bytes={nodes[process.name]["memory_bytes"]} ' in lines_with(process, 'msg=serving')[0]

        measured = nodes['expert-0']['measured']
        assert all(measured[name] > 0 for name in ('read_bytes_per_second', 'multiply_adds_per_second', 'step_us'))
        assert lines_with(cluster.experts[0], 'measured') and not lines_with(cluster.experts[1], 'measured')
        assert metric(cluster.experts[0].http, 'cadre_expert_measured_read_bytes_per_second') == pytest.approx(measured['read_bytes_per_second'], rel=1e-5)

        table = [line.split() for line in cluster.command('status').stdout.splitlines()]
        head = next(line for line in table if line[:1] == ['NODE'])
        row = next(line for line in table if line[:1] == ['expert-2'])
        assert row[head.index('SPEED') + 4] == '6'   # memory is "x MiB of y GiB"
        file = cluster.operate('map', 'show', '--cluster')
        assert {node['id']: node['speed'] for node in file['nodes']} == {'expert-0': 1, 'expert-1': 1, 'expert-2': 6}
        for node in cluster.experts:   # loads read what moves, and not what an expert takes when it is packed
            assert metric(node.http, 'cadre_expert_load_bytes_total') == metric(node.http, 'cadre_expert_load_seconds_count') * file['image_bytes'] > 0
        assert digest(cluster) == embedded(MODEL, PROMPT, TOKENS, *INT8)['digest']


def test_fast_copies_get_more_rows():
    with Cluster(MODEL, experts=2, placement_options=[*INT8, '--copies', 2], start=False) as cluster:
        cluster.experts[1].arguments += ['--speed', '6']
        cluster.start_all().wait_ready()
        assert [node['experts'] for node in expert_nodes(cluster).values()] == [48, 48]
        for _ in range(4):
            assert digest(cluster) == embedded(MODEL, PROMPT, TOKENS, *INT8)['digest']
        slow, fast = (metric(process.http, 'cadre_expert_pairs_total') for process in cluster.experts)
        assert fast > 1.5 * slow   # six times, but for calls that are late on a busy machine


@pytest.mark.skipif(**WITHOUT_EMU)
def test_both_measure_themselves():
    """An emulated GPU is slower than any CPU, knows it soon, and is given little."""
    with Cluster(MODEL, experts=2, placement_options=INT8, expert_options=['--speed', '0'], start=False) as cluster:
        cluster.experts[1].arguments += ['--device', 'emu']
        cluster.start_all().wait_ready()
        nodes = expert_nodes(cluster)
        cpu, emu = nodes['expert-0'], nodes['expert-1']
        assert cpu['speed'] > 8 * emu['speed'] and cpu['experts'] > 8 * emu['experts']
        assert cpu['measured']['read_bytes_per_second'] > emu['measured']['read_bytes_per_second']
        assert digest(cluster) == embedded(MODEL, PROMPT, TOKENS, *INT8)['digest']


def test_a_speed_that_cannot_be():
    with Cluster(MODEL, experts=1, start=False) as cluster:
        cluster.experts[0].arguments += ['--speed', '-1']
        cluster.experts[0].start()
        assert cluster.experts[0].popen.wait(30) != 0
        assert lines_with(cluster.experts[0], "--speed")
