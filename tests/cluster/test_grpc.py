# SPDX-License-Identifier: Apache-2.0
"""The gRPC face of a router, through reflection alone."""
import json
import threading
import time

import grpc
import pytest

import reflect
from cluster import GOLDEN, Cluster, code_of, metric

MODEL = GOLDEN / 'olmoe-a' / 'model'
GENERATE = '/cadre.v1.Inference/Generate'


@pytest.fixture(scope='module')
def cluster():
    with Cluster(MODEL, experts=2) as c:
        yield c


@pytest.fixture(scope='module')
def router(cluster):
    return cluster.routers[0]


def wait_idle(router, seconds=10):
    end = time.monotonic() + seconds
    while metric(router.http, 'cadre_router_sequences_running') + metric(router.http, 'cadre_router_sequences_waiting') + metric(router.http, 'cadre_router_sequences_paused') > 0:
        assert time.monotonic() < end, 'a sequence was not freed'
        time.sleep(0.01)


@pytest.mark.parametrize('version', ['v1', 'v1alpha'])
def test_reflection_lists_services(router, version):
    server = reflect.Server(router.grpc, version=version)
    assert {'cadre.v1.Inference', 'grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'} <= set(server.services)
    server.close()


def test_streams(router):
    messages = list(router.stream(tokens=[5, 6, 7], max_tokens=20, ignore_eos=True))
    assert sum(len(m.token_ids) for m in messages) == 20
    assert len([m for m in messages if m.token_ids]) > 3, 'tokens come as they are made, not all at the end'
    last = messages[-1]
    assert last.usage.prompt_tokens == 3 and last.usage.generated_tokens == 20
    assert last.finish_reason == 1 and len(last.digest) == 32
    assert last.usage.routed_rows > 0 and last.usage.nodes_touched >= last.usage.routed_rows / 2 and last.usage.bytes_sent > 0


def test_text_prompt_equals_its_tokens(router):
    server = router.server
    ids = server.method('cadre.v1.Inference', 'Tokenize')(server.message('cadre.v1.TokenizeRequest', text='Grüße, 世界!')).ids
    by_text = router.generate(text='Grüße, 世界!', max_tokens=8, ignore_eos=True)
    by_tokens = router.generate(tokens=list(ids), max_tokens=8, ignore_eos=True)
    assert by_text.digest == by_tokens.digest
    text = server.method('cadre.v1.Inference', 'Detokenize')(server.message('cadre.v1.DetokenizeRequest', ids=by_text.tokens)).text
    assert by_text.text == text


def test_text_with_a_zero(router):
    server = router.server
    vocab = json.loads((MODEL / 'tokenizer.json').read_text())['model']['vocab']
    ids = [vocab[token] for token in 'a\u0100b']  # U+0100 is the byte 0 of byte-level vocabularies
    answer = server.method('cadre.v1.Inference', 'Detokenize')(server.message('cadre.v1.DetokenizeRequest', ids=ids))
    assert answer.text == 'a\ufffdb' and answer.text_bytes == b'a\0b'


def test_routing_on_request(router, cluster):
    result = router.generate(tokens=[9, 8, 7, 6], max_tokens=5, ignore_eos=True, return_routing=True)
    assert [r.position for r in result.routing] == list(range(8)), 'every computed token once: the last one is never fed back'
    nodes = {n for r in result.routing for layer in r.layers for n in layer.nodes}
    assert nodes <= {'expert-0', 'expert-1'} and nodes
    for r in result.routing:
        assert len(r.layers) == 4
        for layer in r.layers:
            assert len(layer.experts) == 4 and len(set(layer.experts)) == 4 and len(layer.weights) == 4 == len(layer.nodes)


def test_cancel_frees_everything(router):
    stream = router.stream(tokens=[1, 2, 3], max_tokens=4000, ignore_eos=True)
    next(iter(stream))
    before = metric(router.http, 'cadre_router_requests_cancelled_total')
    stream.cancel()
    wait_idle(router)
    assert metric(router.http, 'cadre_router_requests_cancelled_total') == before + 1
    assert metric(router.http, 'cadre_router_kv_pages_free') == metric(router.http, 'cadre_router_kv_pages')


def test_deadline(router):
    code, _ = code_of(router.stream(tokens=[1, 2, 3], max_tokens=4000, ignore_eos=True, timeout=0.3))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_idle(router)


def test_malformed_message(router):
    call = router.server.channel.unary_stream(GENERATE, lambda b: b, lambda b: b)
    code, text = code_of(call(b'\x0a\xff\xff\xff\xff\x0f', timeout=10))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and text


@pytest.mark.parametrize('fields,word', [
    (dict(tokens=[1, 512]), '512'), (dict(tokens=[-1]), '-1'), (dict(tokens=[]), 'prompt'), (dict(text=''), 'prompt'),
    (dict(tokens=[1], sampling=dict(temperature=-1)), 'temperature'), (dict(tokens=[1], sampling=dict(temperature=float('nan'))), 'temperature'),
    (dict(tokens=[1], sampling=dict(temperature=1, top_p=1.5)), 'top_p'), (dict(tokens=[1], sampling=dict(temperature=1, min_p=-0.1)), 'min_p'),
    (dict(tokens=[1] * 5000), '4096'), (dict(tokens=[1], stop=['']), 'stop'), (dict(tokens=[1], stop_ids=[99999]), '99999')])
def test_bad_requests_get_a_sentence(router, fields, word):
    code, text = code_of(router.stream(max_tokens=4, **fields))
    assert code == grpc.StatusCode.INVALID_ARGUMENT, (code, text)
    assert word in text and ' ' in text


def test_stop_string_and_stop_id(router):
    free = router.generate(tokens=[5, 6, 7], max_tokens=30, ignore_eos=True)
    stop_id = free.tokens[10]
    by_id = router.generate(tokens=[5, 6, 7], max_tokens=30, ignore_eos=True, stop_ids=[stop_id])
    assert by_id.tokens == free.tokens[:free.tokens.index(stop_id) + 1] and by_id.finish_reason == 2
    stop = free.text[8:11]
    by_text = router.generate(tokens=[5, 6, 7], max_tokens=30, ignore_eos=True, stop=[stop])
    assert by_text.text == free.text[:free.text.index(stop)] and by_text.finish_reason == 2
    wait_idle(router)


def test_slow_reader_holds_up_nobody(router):
    slow = router.stream(tokens=[3, 2, 1], max_tokens=3000, ignore_eos=True)
    next(iter(slow))
    began = time.monotonic()
    router.generate(tokens=[1, 2, 3, 4], max_tokens=20, ignore_eos=True)
    assert time.monotonic() - began < 30
    slow.cancel()
    wait_idle(router)


def test_health(router):
    server = router.server
    check = server.method('grpc.health.v1.Health', 'Check')
    assert check(server.message('grpc.health.v1.HealthCheckRequest', service=''), timeout=5).status == 1
    assert check(server.message('grpc.health.v1.HealthCheckRequest', service='cadre.v1.Inference'), timeout=5).status == 1


def test_get_model(router):
    server = router.server
    model = server.method('cadre.v1.Inference', 'GetModel')(server.message('cadre.v1.GetModelRequest'), timeout=5)
    assert (model.architecture, model.layers, model.moe_layers, model.experts, model.experts_per_token, model.vocab) == ('olmoe', 4, 4, 16, 4, 512)


def test_admission_has_a_stated_limit():
    with Cluster(MODEL, experts=1, router_options=['--sequences-max', '2', '--queue-max', '2']) as small:
        router = small.routers[0]
        router.server
        codes, lock = [], threading.Lock()

        def run():
            try:
                router.generate(tokens=[1, 2], max_tokens=300, ignore_eos=True)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
                if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    assert '4' in error.details()
            with lock:
                codes.append(code)
        threads = [threading.Thread(target=run) for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert codes.count(grpc.StatusCode.OK) >= 4
