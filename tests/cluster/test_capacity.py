"""The paradox: under a capacity policy a request's answer depends on its neighbours; without one it cannot. And nothing happens silently."""
import random

import pytest

from cluster import GOLDEN, Cluster, metric

MODEL = GOLDEN / 'mixtral-a' / 'model'
PROMPT = [(i * 53 + 7) % 500 for i in range(40)]


def company(seed):
    r = random.Random(seed)
    return [dict(tokens=[r.randrange(500) for _ in range(40)], max_tokens=12, ignore_eos=True) for _ in range(7)]


def in_two_batches(router):
    mine = dict(tokens=PROMPT, max_tokens=12, ignore_eos=True)
    return [router.generate_many([mine] + company(seed))[0] for seed in (1, 2)]


@pytest.mark.parametrize('policy', ['drop', 'spill'])
def test_policy_couples_neighbours_and_says_so(policy):
    with Cluster(MODEL, experts=2, router_options=['--capacity-policy', policy, '--capacity-factor', '1.0']) as cluster:
        router = cluster.routers[0]
        first, second = in_two_batches(router)
        assert first.digest != second.digest
        for result in (first, second):
            assert result.capacity.policy == policy and result.capacity.factor == 1.0
            assert getattr(result.capacity, 'dropped' if policy == 'drop' else 'spilled') > 0
        assert metric(router.http, f'cadre_router_expert_{"dropped" if policy == "drop" else "spilled"}_total') > 0


def test_without_a_policy_there_is_no_paradox():
    with Cluster(MODEL, experts=2) as cluster:
        first, second = in_two_batches(cluster.routers[0])
        assert first.digest == second.digest
        assert first.tokens == second.tokens
        assert not first.capacity.dropped and not first.capacity.spilled and first.capacity.policy == 'none'
