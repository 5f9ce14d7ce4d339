# SPDX-License-Identifier: Apache-2.0
"""Experts come from other expert nodes: to a node that joins and has no files any more, also when the node that gives them is killed on the way; and nobody notices."""
import re
import shutil

import pytest

from cluster import GOLDEN, Cluster, http, lines_with, until, wait_for_log
from stored import fp8_model

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
PROMPTS = [[(i * 31 + s * 17 + 3) % 480 for i in range(10 + s)] for s in range(4)]


def loads(process):
    """How many experts the node has loaded, by source."""
    found = re.findall(r'^cadre_expert_load_seconds_count\{source="(\w+)"\} (\d+)$', http(process.http, '/metrics'), re.MULTILINE)
    return {source: int(count) for source, count in found}


def failures(process):
    found = re.findall(r'^cadre_expert_source_failures_total\{reason="(\w+)"\} (\d+)$', http(process.http, '/metrics'), re.MULTILINE)
    return {reason: int(count) for reason, count in found if count != '0'}


def held(cluster):
    return {n['id']: n['experts'] for n in cluster.status()['nodes'] if n['id'].startswith('expert-') and n['state'] == 'live'}


def answers(cluster):
    return [cluster.routers[0].generate(tokens=p, max_tokens=12, ignore_eos=True).digest for p in PROMPTS]


def join_without_files(cluster, directory, options=()):
    """A node whose files are gone once it runs."""
    copy = directory / 'model'
    shutil.copytree(cluster.model, copy)
    cluster.model, original = copy, cluster.model
    node = cluster.add_expert(options)
    cluster.model = original
    wait_for_log(node, 'msg=serving')
    shutil.rmtree(copy)
    return node


@pytest.mark.parametrize('numerics, stored', [('f32', ''), ('bf16', ''), ('bf16-sm90', ''), ('int8', ''), ('int4', ''), ('f32', 'fp8'), ('int8', 'fp8')])
def test_a_node_that_joins_gets_its_experts_from_others(numerics, stored, tmp_path):
    model = fp8_model(MODEL, tmp_path / 'fp8') if stored else MODEL
    with Cluster(model, experts=2, placement_options=['--settle', '50ms', '--bytes-per-second', '0', '--numerics', numerics]) as cluster:
        before = answers(cluster)
        assert all(loads(node)['node'] == 0 for node in cluster.experts)   # the first placement comes from checkpoints
        node = join_without_files(cluster, tmp_path, ['--isa', 'avx2'])
        until(lambda: len(held(cluster)) == 3 and max(held(cluster).values()) - min(held(cluster).values()) <= 4, 40)
        assert answers(cluster) == before
        assert loads(node)['node'] >= held(cluster)['expert-2'] > 0 and loads(node)['checkpoint'] == 0
        assert failures(node) == {}
        assert 'from_checkpoint=0' in lines_with(node, 'msg=loaded')[-1]


def test_a_source_is_killed_on_the_way():
    with Cluster(MODEL, experts=2, placement_options=['--settle', '50ms', '--bytes-per-second', '200K']) as cluster:
        before = answers(cluster)
        node = cluster.add_expert()
        wait_for_log(node, 'msg=serving')
        until(lambda: loads(node)['node'] >= 2, 40)
        cluster.experts[0].kill()
        until(lambda: len(held(cluster)) == 2 and cluster.status()['experts_unplaced'] == 0, 40)
        assert answers(cluster) == before
        assert loads(node)['checkpoint'] > 0   # what only the dead one held
        assert set(failures(node)) <= {'lost', 'unreachable'}
