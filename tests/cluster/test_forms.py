# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in forms that are seldom, in a cluster: placed, computed, and moved from node to node, with the bits of one process."""
import pytest

from cluster import GOLDEN, Cluster, embedded, until, wait_for_log

PROMPT = [(i * 31 + 3) % 64 for i in range(20)]


def held(cluster):
    return {n['id']: n['experts'] for n in cluster.status()['nodes'] if n['id'].startswith('expert-') and n['state'] == 'live'}


@pytest.mark.parametrize('form', ['qwen3moe-head10', 'mixtral-dtypes', 'qwen3moe-fused'])
def test_a_cluster_gives_the_same_digest(form):
    """Also after a third node has got experts from the other two, and one of those is lost."""
    model = GOLDEN / 'forms' / form / 'model'
    digest = embedded(model, PROMPT, 12)['digest']
    with Cluster(model, experts=2, placement_options=['--settle', '50ms', '--bytes-per-second', '0']) as cluster:
        generate = lambda: cluster.routers[0].generate(tokens=PROMPT, max_tokens=12, ignore_eos=True).digest
        assert generate() == digest
        wait_for_log(cluster.add_expert(), 'msg=serving')
        until(lambda: len(held(cluster)) == 3 and min(held(cluster).values()) > 0)
        assert generate() == digest
        cluster.experts[0].kill()
        until(lambda: len(held(cluster)) == 2 and cluster.status()['experts_unplaced'] == 0, 40)
        assert generate() == digest
