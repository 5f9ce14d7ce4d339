# SPDX-License-Identifier: Apache-2.0
"""An expert node is lost, and the others have no room for its experts: three routers of one cluster, each with another policy for that."""
import json
import re

import grpc
import pytest

from cluster import GOLDEN, Cluster, cadrectl, code_of, embedded, metric, until

MODEL = GOLDEN / 'mixtral-a' / 'model'   # the weights of a token's experts sum to 1
PROMPT = [(i * 53 + 7) % 500 for i in range(40)]
TOKENS, LONG = 12, 1500
LOST = re.compile(r'no node holds expert \d+ of layer \d+')


def ask(router, **fields):
    return router.generate(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True, **fields)


def finish(stream):
    return list(stream)[-1]


def check_renormalised(router):
    """What is left of each token's weights sums to what all of them did, and what is missing is what was counted."""
    result = ask(router, return_routing=True)
    layers = [layer for token in result.routing for layer in token.layers]
    assert result.absent.policy == 'renormalise' and result.absent.slots > 0
    assert sum(2 - len(layer.experts) for layer in layers) == result.absent.slots
    assert sum(not layer.experts for layer in layers) == result.absent.rows
    for layer in layers:
        assert not layer.experts or sum(layer.weights) == pytest.approx(1, abs=1e-5)
    return result


def check_commands(router, expected, tmp_path):
    """cadrectl says what was left out; the same is computed again without it."""
    where, answer = ['--router', router.grpc], tmp_path / 'answer.json'
    request = ['generate', *where, '--tokens', ','.join(map(str, PROMPT)), '--max-tokens', TOKENS, '--ignore-eos']
    told, kept = cadrectl(*request), cadrectl(*request, '-o', 'json')
    assert re.search(r'-- no node held some experts: \d+ \(token, layer, slot\) left out', told.stderr), told
    answer.write_text(kept.stdout)
    assert json.loads(kept.stdout)['digest'] == expected.digest
    assert json.loads(kept.stdout)['absent'] == {'policy': 'renormalise', 'slots': expected.absent.slots, 'rows': expected.absent.rows}
    assert cadrectl('verify', *where, answer).returncode == 0
    return answer


def check_resume(routers):
    """What one policy has begun, another that gives the same bits continues; others refuse."""
    first = list(routers['renormalise'].stream(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True))[0]
    assert first.fingerprint.endswith('/renormalise')
    request = routers['wait'].request(tokens=PROMPT, max_tokens=TOKENS, ignore_eos=True)
    request.resume.token_ids.extend(first.token_ids)
    request.resume.digest, request.resume.fingerprint = first.digest_so_far, first.fingerprint
    code, details = code_of(routers['wait'].server.method('cadre.v1.Inference', 'Generate')(request, timeout=30))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and 'with the same policies' in details


def test_each_policy(tmp_path):
    cluster = Cluster(MODEL, experts=3, routers=0, memory='600K')
    routers = {policy: cluster.add_router(['--absent-experts', policy]) for policy in ('wait', 'fail', 'renormalise')}
    with cluster:
        whole, long = embedded(MODEL, PROMPT, TOKENS)['digest'], embedded(MODEL, PROMPT, LONG)['digest']
        streams = {policy: router.stream(tokens=PROMPT, max_tokens=LONG, ignore_eos=True) for policy, router in routers.items()}
        for policy, stream in streams.items():
            next(iter(stream))
            result = ask(routers[policy])
            assert result.digest == whole and result.absent.policy == policy and result.absent.slots == 0

        cluster.experts[1].kill()
        until(lambda: cluster.status()['experts_unplaced'] > 0, what='the map has no hole')

        # Streams that flowed, and requests that come then.
        for failing in (streams['fail'], routers['fail'].stream(tokens=PROMPT, max_tokens=TOKENS)):
            code, details = code_of(failing)
            assert code == grpc.StatusCode.UNAVAILABLE and LOST.search(details), details
        assert metric(routers['fail'].http, 'cadre_router_expert_absent_total') >= 2
        assert finish(streams['renormalise']).absent.slots > 0
        without = check_renormalised(routers['renormalise'])
        assert without.digest != whole
        http = routers['renormalise'].http
        until(lambda: metric(http, 'cadre_router_expert_absent_total') == metric(http, 'cadre_router_absent_total') > 0, what='not counted alike')
        answer = check_commands(routers['renormalise'], without, tmp_path)
        check_resume(routers)
        assert code_of(routers['wait'].stream(tokens=PROMPT, max_tokens=TOKENS, timeout=0.5))[0] == grpc.StatusCode.DEADLINE_EXCEEDED

        # It comes back: who waited has lost nothing, and everybody gives the bits of before.
        cluster.experts[1].popen.wait()
        cluster.experts[1].start()
        last = finish(streams['wait'])
        assert last.digest == long and last.absent.slots == 0
        until(lambda: cluster.status()['experts_unplaced'] == 0, what='the hole is still there')
        for router in routers.values():
            until(lambda: ask_whole(router, whole), what='the answers are not those of before')
        again = cadrectl('verify', '--router', routers['renormalise'].grpc, answer)
        assert again.returncode == 1 and f'left out: {without.absent.slots} (token, layer, slot) of the answer, 0 now' in again.stdout, again


def ask_whole(router, whole):
    """A router may work with the map of before for a moment."""
    try:
        result = ask(router)
        return result.digest == whole and result.absent.slots == 0
    except grpc.RpcError:
        return False
