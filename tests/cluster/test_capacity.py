# SPDX-License-Identifier: Apache-2.0
"""The paradox: under a capacity policy a request's answer depends on its neighbours; without one it cannot. And nothing happens silently."""
import random

import pytest

from cluster import GOLDEN, Cluster, metric

MODEL = GOLDEN / 'mixtral-a' / 'model'
PROMPT = [(i * 53 + 7) % 500 for i in range(40)]


def beside_company(router, seed):
    """The prompt, while seven others that were there before decode beside it."""
    r = random.Random(seed)
    streams = [router.stream(tokens=[r.randrange(500) for _ in range(20)], max_tokens=2000, ignore_eos=True) for _ in range(7)]
    for stream in streams:
        next(iter(stream))
    result = router.generate(tokens=PROMPT, max_tokens=16, ignore_eos=True)
    for stream in streams:
        stream.cancel()
    return result


@pytest.mark.parametrize('policy', ['drop', 'spill'])
def test_policy_couples_neighbours_and_says_so(policy):
    with Cluster(MODEL, experts=2, router_options=['--capacity-policy', policy, '--capacity-factor', '1.0']) as cluster:
        router = cluster.routers[0]
        first, second = beside_company(router, 1), beside_company(router, 2)
        assert first.digest != second.digest
        for result in (first, second):
            assert result.capacity.policy == policy and result.capacity.factor == 1.0
            assert getattr(result.capacity, 'dropped' if policy == 'drop' else 'spilled') > 0
        assert metric(router.http, f'cadre_router_expert_{"dropped" if policy == "drop" else "spilled"}_total') > 0


def test_without_a_policy_there_is_no_paradox():
    with Cluster(MODEL, experts=2) as cluster:
        first, second = beside_company(cluster.routers[0], 1), beside_company(cluster.routers[0], 2)
        assert first.digest == second.digest
        assert first.tokens == second.tokens
        assert not first.capacity.dropped and not first.capacity.spilled and first.capacity.policy == 'none'
