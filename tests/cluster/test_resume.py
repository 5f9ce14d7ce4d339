# SPDX-License-Identifier: Apache-2.0
"""Answers whose router dies, hangs or stops in the middle: cadrectl resumes them elsewhere, and nobody sees the joint."""
import json
import os
import select
import signal
import socket
import subprocess
import time
import types

import grpc
import pytest

from breaking import Breaking
from cluster import BIN, GOLDEN, Cluster, code_of, embedded, metric

MODEL = GOLDEN / 'mixtral-a' / 'model'
STREAMS = 8


def generate(routers, *options, tokens=(5, 6, 7), max_tokens=24):
    """(result, stderr, exit code) of a finished cadrectl."""
    done = subprocess.run([BIN / 'cadrectl', 'generate', '--router', ','.join(r.grpc for r in routers), '--tokens', ','.join(map(str, tokens)), '--max-tokens', str(max_tokens), '-o', 'json',
                           *map(str, options)], capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout) if done.returncode == 0 else None, done.stderr, done.returncode


def same(one, other):
    for key in ('token_ids', 'text', 'digest', 'finish_reason'):
        assert one[key] == other[key], f'{key}: {one[key]!r} is not {other[key]!r}, {one["resumed"]}, {one["usage"]}'
    for key in ('prompt_tokens', 'generated_tokens', 'routed_rows'):
        assert one['usage'][key] == other['usage'][key], key


class Reader:
    """A cadrectl that prints its text as it comes; when each piece of it came."""

    def __init__(self, routers, directory, index, max_tokens):
        self.prompt, self.options = [5, 6, 7, 8 + index], ['--temperature', '1', '--seed', str(index)]
        self.max_tokens, self.saved = max_tokens, directory / f'answer-{index}.json'
        self.text, self.times = b'', []
        self.process = subprocess.Popen([BIN / 'cadrectl', 'generate', '--router', ','.join(r.grpc for r in routers), '--tokens', ','.join(map(str, self.prompt)), '--ignore-eos',
                                         '--max-tokens', str(max_tokens), '--save', self.saved, *self.options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def read(self):
        """False at the end."""
        piece = os.read(self.process.stdout.fileno(), 65536)
        self.times.append(time.monotonic())
        self.text += piece
        return piece != b''

    def check(self):
        """Every token once, in the text and in the JSON, and the digest of the same request in one process. Returns the JSON."""
        said = self.process.stderr.read().decode()
        assert self.process.wait(60) == 0, said
        saved = json.loads(self.saved.read_text())
        same(saved, embedded(MODEL, self.prompt, self.max_tokens, *self.options))
        assert self.text.decode(errors='replace') == saved['text'] + '\n'
        return saved, said

    def longest_gap(self, since):
        return max(after - before for before, after in zip(self.times, self.times[1:]) if after >= since)


def read_all(readers, until):
    """Reads from all at once until `until()`, or until every one of them has ended."""
    open_ones = {reader.process.stdout.fileno(): reader for reader in readers}
    while open_ones and not until():
        for number in select.select(list(open_ones), [], [], 60)[0]:
            if not open_ones[number].read():
                del open_ones[number]


def break_in_the_middle(tmp_path, number, max_tokens, router_options=()):
    """8 streams at the first of two routers, which gets a signal. Prints and returns the longest gap."""
    with Cluster(MODEL, experts=2, routers=2, router_options=router_options) as cluster:
        victim = cluster.routers[0]
        readers = [Reader(cluster.routers, tmp_path, i, max_tokens) for i in range(STREAMS)]
        read_all(readers, lambda: all(len(reader.times) > 20 for reader in readers))
        assert metric(victim.http, 'cadre_router_streams') == STREAMS
        victim.process.kill(number)
        since = time.monotonic()
        read_all(readers, lambda: False)
        for reader in readers:
            saved, said = reader.check()
            assert saved['resumed'] == 1 and saved['computed_by'] == f'router {cluster.routers[0].grpc}, then router {cluster.routers[1].grpc}'
            assert victim.grpc in said and 'continues the answer after' in said and 'resumed 1 time;' in said
        assert metric(cluster.routers[1].http, 'cadre_router_resumed_total') == STREAMS
        gap = max(reader.longest_gap(since) for reader in readers)
        print(f'{signal.Signals(number).name} of a router with {STREAMS} streams: 0 failed, equal digests, longest gap {gap:.3f} s')
        if number == signal.SIGSTOP:
            victim.process.kill(signal.SIGCONT)


def test_killed_router_costs_time_and_no_answer(tmp_path):
    break_in_the_middle(tmp_path, signal.SIGKILL, 1500)


def test_router_that_stops(tmp_path):
    break_in_the_middle(tmp_path, signal.SIGTERM, 1500, ['--drain', '50ms'])


def test_router_that_hangs(tmp_path):
    """Nothing tells but its silence: cadrectl's pings."""
    break_in_the_middle(tmp_path, signal.SIGSTOP, 1500)


def test_a_router_that_is_back_soon(tmp_path):
    """It is the only one: cadrectl tries it for some seconds."""
    with Cluster(MODEL, experts=1) as cluster:
        victim = cluster.routers[0].process
        reader = Reader(cluster.routers, tmp_path, 0, 1500)
        read_all([reader], lambda: len(reader.times) > 20)
        victim.kill()
        victim.popen.wait()
        time.sleep(0.3)
        victim.start()
        read_all([reader], lambda: False)
        assert reader.check()[0]['resumed'] == 1


@pytest.fixture(scope='module')
def cluster():
    with Cluster(MODEL, experts=1) as running:
        yield running


SAMPLED = ['--ignore-eos', '--temperature', 1.5, '--seed', 3]
JOINTS = 60


@pytest.mark.parametrize('stopped', [False, True])
def test_a_joint_is_not_seen_anywhere(cluster, stopped):
    """Random weights write torn characters; the stop string lies across tokens."""
    router = cluster.routers[0]
    whole, _, _ = generate([router], *SAMPLED, '--routing', max_tokens=JOINTS)
    options = [*SAMPLED, '--routing']
    if stopped:
        options += ['--stop', whole['text'][len(whole['text']) // 2:][:3]]
        whole, _, _ = generate([router], *options, max_tokens=JOINTS)
        assert whole['finish_reason'] == 'stop'
    for messages in range(1, len(whole['token_ids']) + 30):
        with Breaking(router, messages) as breaking:
            result, said, code = generate([breaking, router], *options, max_tokens=JOINTS)
            assert code == 0, said
            same(result, whole)
            rows = len(whole['request']['tokens']) + len(whole['token_ids']) - 1   # one expert node: names are equal, too
            assert result['routing'][:rows] == whole['routing'][:rows] and len(whole['routing']) >= rows
            if not breaking.broke:
                break
    assert messages > 10


def test_by_hand(cluster):
    """As docs/OPERATIONS.md says, with any gRPC client; so many tokens that they are read in another thread."""
    router = cluster.routers[0]
    fields = {'ignore_eos': True, 'sampling': {'temperature': 1, 'seed': 4}}
    whole = router.generate(tokens=[5, 6], max_tokens=1500, **fields)
    stream, messages = router.stream(tokens=[5, 6], max_tokens=1500, **fields), []
    for message in stream:
        messages.append(message)
        if sum(len(m.token_ids) for m in messages) > 1100:
            break
    stream.cancel()
    received = [t for m in messages for t in m.token_ids]
    digest = [m.digest_so_far for m in messages if m.token_ids][-1]
    resume = {'token_ids': received, 'digest': digest, 'fingerprint': messages[0].fingerprint}
    rest = router.generate(tokens=[5, 6], max_tokens=1500 - len(received), resume=resume, **fields)
    assert received + rest.tokens == whole.tokens and rest.digest == whole.digest
    assert ''.join(m.text for m in messages) + rest.text == whole.text
    assert rest.usage.generated_tokens == 1500 and rest.usage.routed_rows == whole.usage.routed_rows
    wrong = router.stream(tokens=[5, 6], max_tokens=10, resume={**resume, 'token_ids': received + [1 << 20]}, **fields)
    assert code_of(wrong)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_router_that_hangs_from_the_start(cluster):
    """It takes the connection, because its kernel does, and says nothing."""
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen()
        router, began = cluster.routers[0], time.monotonic()
        result, said, code = generate([types.SimpleNamespace(grpc=f'127.0.0.1:{silent.getsockname()[1]}'), router], *SAMPLED)
        assert code == 0 and 'trying the next' in said and result['resumed'] == 0
        print(f'a router that says nothing costs {time.monotonic() - began:.1f} s')


def test_an_answer_of_many_streams(cluster):
    """One router, whose streams break after each message: of a token, or of several where the machine has too much to do; without a limit, too."""
    router = cluster.routers[0]
    whole, _, _ = generate([router], *SAMPLED, max_tokens=12)
    with Breaking(router, 1) as breaking:
        result, said, code = generate([breaking], *SAMPLED, max_tokens=12)
        assert code == 0, said
        same(result, whole)
        assert 1 <= result['resumed'] < 12 and all(request.resume.fingerprint for request in breaking.asked[1:])
        assert result['resumed'] == len(breaking.asked) - 1

        endless = ['--temperature', '0']
        whole, said, code = generate([router], *endless, '--stop', whole['text'][:1], max_tokens=0)
        result, said, code = generate([breaking, router], *endless, '--stop', whole['text'][:1] or 'x', max_tokens=0)
        assert code == 0, said
        assert all(request.resume.no_limit for request in breaking.asked if request.HasField('resume') and request.max_tokens == 0)


def test_tries_are_bounded(cluster):
    with Breaking(cluster.routers[0], 1) as breaking:
        _, said, code = generate([breaking], *SAMPLED, max_tokens=400)
        assert code == 1 and 'the answer is cut off here, after' in said and len(breaking.asked) == 17


def test_routers_that_cannot_resume(cluster):
    """One from before `resume` would answer from the beginning: it is noticed, and the next one asked."""
    router = cluster.routers[0]
    whole, _, _ = generate([router], *SAMPLED)

    def forget(message):
        for field in ('resume', 'fingerprint', 'digest_so_far'):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)

    with Breaking(router, 1) as breaking, Breaking(router, None, forget) as old:
        result, said, code = generate([breaking, old, router], *SAMPLED)
        assert code == 0 and 'does not know how to resume' in said
        same(result, whole)
        assert result['computed_by'] == f'router {breaking.grpc}, then router {router.grpc}'
    with Breaking(router, 1, forget) as old:
        _, said, code = generate([old, router], *SAMPLED)
        assert code == 1 and 'did not say how its answer can be resumed' in said


def test_a_call_that_a_server_cancels_goes_on(cluster):
    """gRPC does so to calls that cross the news that it shuts down."""
    router = cluster.routers[0]
    whole, _, _ = generate([router], *SAMPLED)
    with Breaking(router, 1, code=grpc.StatusCode.CANCELLED) as breaking:
        result, said, code = generate([breaking, router], *SAMPLED)
        assert code == 0 and 'CANCELLED' in said
        same(result, whole)


def test_another_model_does_not_continue(cluster):
    router = cluster.routers[0]

    def lie(message):
        if 'fingerprint' in message.DESCRIPTOR.fields_by_name and message.fingerprint:
            message.fingerprint = 'of another/model'

    with Breaking(router, 1, lie) as breaking:
        _, said, code = generate([breaking, router], *SAMPLED)
        assert code == 1 and "the answer comes from model/settings 'of another/model', but this router computes with" in said


def test_timeout(cluster):
    router = cluster.routers[0]
    began = time.monotonic()
    _, said, code = generate([router], '--ignore-eos', '--timeout', '300ms', max_tokens=4000)
    assert code == 1 and 'the answer is not complete after the 0.3 s of --timeout' in said and time.monotonic() - began < 10
    done = subprocess.run([BIN / 'cadrectl', 'generate', '--model', MODEL, '--tokens', '1,2,3', '--max-tokens', '4000', '--ignore-eos', '--timeout', '100ms'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and 'the deadline passed after' in done.stderr
    end = time.monotonic() + 20
    while metric(router.http, 'cadre_router_sequences_running') != 0:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_router_that_waits_does_not_hang(tmp_path):
    """Nothing comes, because the only expert node is stopped; the router answers to pings, and does not mind them."""
    with Cluster(MODEL, experts=1, placement_options=['--lease', '60s']) as cluster:
        reader = Reader(cluster.routers, tmp_path, 0, 1500)
        read_all([reader], lambda: len(reader.times) > 20)
        cluster.experts[0].kill(signal.SIGSTOP)
        time.sleep(6)
        cluster.experts[0].kill(signal.SIGCONT)
        read_all([reader], lambda: False)
        assert reader.check()[0]['resumed'] == 0
