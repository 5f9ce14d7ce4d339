# SPDX-License-Identifier: Apache-2.0
"""The promise that the same request gives the same bits, whatever is in the batch and wherever it is computed."""
import random

import pytest

from cluster import GOLDEN, Cluster, embedded

MODEL = GOLDEN / 'qwen3moe-a' / 'model'
VOCAB = 512
PROMPT = [(i * 37 + 11) % 480 for i in range(75)]
TOKENS = 24


def others(count, seed):
    """Random company: other prompts, lengths, samplings."""
    r = random.Random(seed)
    return [dict(tokens=[r.randrange(480) for _ in range(r.randrange(1, 90))], max_tokens=r.randrange(1, 30), ignore_eos=True,
                 sampling=dict(temperature=r.choice([0, 0.7, 1.3]), top_p=r.choice([0, 0.9]), seed=r.randrange(1 << 32))) for _ in range(count)]


@pytest.fixture(scope='module')
def expected():
    return embedded(MODEL, PROMPT, TOKENS)


def request(**more):
    return dict(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True, **more)


@pytest.mark.parametrize('options', [['--chunk', '1'], ['--chunk', '7'], ['--chunk', '64'], ['--threads', '1'], ['--threads', '2'], ['--isa', 'ref'], ['--isa', 'avx2'],
                                     ['--nodes', '3', '--placement-seed', '5'], ['--nodes', '4', '--placement-seed', '6'], ['--micro-batches', '3']])
def test_embedded(expected, options):
    assert embedded(MODEL, PROMPT, TOKENS, *options)['digest'] == expected['digest']


@pytest.mark.parametrize('experts,routers,threads,router_options,transports,shuffle', [
    (1, 1, 1, [], None, 0), (2, 2, 2, ['--chunk', '7'], None, 0), (3, 1, 1, ['--chunk', '64', '--micro-batches', '2'], None, 17), (4, 2, 1, ['--chunk', '1'], None, 18),
    (2, 1, 1, ['--isa', 'avx2'], 'posix,cma,tcp', 0), (3, 2, 1, ['--isa', 'ref'], None, 19)])
def test_cluster(expected, experts, routers, threads, router_options, transports, shuffle):
    with Cluster(MODEL, experts=experts, routers=routers, threads=threads, router_options=router_options, transports=transports,
                 placement_options=['--shuffle', shuffle]) as cluster:
        for router in cluster.routers:
            alone = router.generate(**request())
            assert alone.tokens == expected['token_ids']
            assert alone.digest == expected['digest']
            assert not alone.capacity.dropped and not alone.capacity.spilled
        company = others(63, experts * 10 + routers)
        for i, router in enumerate(cluster.routers):
            results = router.generate_many(company[:31] + [request()] + company[31:])
            assert results[31].digest == expected['digest'], f'router {i}'
            assert results[31].tokens == expected['token_ids']


@pytest.mark.parametrize('settings', [['--kv', 'bf16'], ['--kv', 'int8'], ['--numerics', 'bf16'], ['--numerics', 'bf16-sm90'], ['--numerics', 'int8'], ['--numerics', 'int8', '--router-numerics', 'f32', '--kv', 'bf16'], ['--numerics', 'int4', '--router-numerics', 'int8']])
def test_other_settings(expected, settings):
    """The same in every profile. Settings are the cluster's: whatever a router is started with, it computes as the placement service says."""
    other = embedded(MODEL, PROMPT, TOKENS, *settings)
    assert other['digest'] != expected['digest']
    for options in (['--chunk', '1', '--isa', 'ref'], ['--nodes', '3', '--placement-seed', '5', '--isa', 'avx2', '--threads', '2']):
        assert embedded(MODEL, PROMPT, TOKENS, *settings, *options)['digest'] == other['digest']
    with Cluster(MODEL, experts=3, routers=2, router_options=['--chunk', '7', '--numerics', 'f32', '--kv', 'f32'], placement_options=[*settings, '--shuffle', 17]) as cluster:
        for router in cluster.routers:
            results = router.generate_many(others(9, 5) + [request()] + others(9, 6))
            assert results[9].digest == other['digest']


@pytest.mark.parametrize('case, settings', [('deepseekv3-a', []), ('deepseekv2-a', ['--kv', 'int8', '--numerics', 'int8']), ('llama4-a', []), ('llama4-a', ['--kv', 'bf16', '--numerics', 'int8'])])
def test_other_families(case, settings):
    """Families whose step has parts of its own: latent attention; kinds of attention by layer, and experts that weigh their input."""
    model = GOLDEN / case / 'model'
    expected = embedded(model, PROMPT, TOKENS, *settings)
    for options in (['--chunk', '1', '--isa', 'ref'], ['--nodes', '3', '--placement-seed', '5', '--isa', 'avx2', '--threads', '2']):
        assert embedded(model, PROMPT, TOKENS, *settings, *options)['digest'] == expected['digest']
    with Cluster(model, experts=3, routers=2, router_options=['--chunk', '7'], placement_options=[*settings, '--shuffle', 17]) as cluster:
        for router in cluster.routers:
            results = router.generate_many(others(9, 5) + [request()] + others(9, 6))
            assert results[9].digest == expected['digest']
            assert results[9].tokens == expected['token_ids']


def test_sampling_depends_on_seed_and_position_alone():
    sampling = dict(temperature=1.0, top_p=0.95, seed=1234)
    one = embedded(MODEL, PROMPT, TOKENS, '--temperature', '1.0', '--top-p', '0.95', '--seed', '1234')
    other = embedded(MODEL, PROMPT, TOKENS, '--temperature', '1.0', '--top-p', '0.95', '--seed', '1235')
    assert one['token_ids'] != other['token_ids']
    with Cluster(MODEL, experts=2) as cluster:
        results = cluster.routers[0].generate_many([request(sampling=sampling)] + others(20, 3))
        assert results[0].tokens == one['token_ids']
        assert results[0].digest == one['digest']


def test_recomputation_after_losing_pages_changes_nothing(expected):
    """A KV cache that holds a few sequences only: many are computed again, with the same bits."""
    with Cluster(MODEL, experts=1, router_options=['--kv-memory', '640K']) as cluster:
        router = cluster.routers[0]
        results = router.generate_many([request() for _ in range(24)])
        assert {r.digest for r in results} == {expected['digest']}
