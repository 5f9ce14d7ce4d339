# SPDX-License-Identifier: Apache-2.0
"""What somebody may try at each listener, and what comes of it.

An attempt is a function of the cluster and a listener. It returns a code (of gRPC, of HTTP, or what became of the connection) and the sentence
that came with it; both are compared with what the row expects. Nobody else may notice, which the runner looks at.
"""
import contextlib
import socket
import ssl
import time

import grpc

from guarded import TOKENS
from proof import proof

ATTEMPTS = []
READ = {'placement': ('/cadre.v1.Placement/GetStatus', b''), 'router': ('/cadre.v1.Inference/GetModel', b'')}
CLOSED = 'closed'   # the connection, without a word
GARBAGE = bytes(range(256)) * 16
GOOD = 'client'
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


class Attempt:
    def __init__(self, listeners, title, action, code, words, quick):
        self.listeners, self.title, self.action, self.code, self.words, self.quick = listeners, title, action, code, words, quick

    def at(self, listener):
        return listener.kind in self.listeners or listener.name in self.listeners

    def wrong(self, world, code, sentence):
        """What is not as it should be, in sentences."""
        return [f'the code is {code}, not {self.code}: {sentence}'] * (code != self.code) + \
            [f"there is no '{word}' in '{sentence}'" for word in self.words if word not in sentence] + \
            [f'{p.name} has ended' for p in world.processes() if not p.alive()]


def attempt(listeners, code, *words, quick=True):
    """Makes a function a row. `words` are in the sentence."""
    def decorate(function):
        ATTEMPTS.append(Attempt(listeners.split('; '), function.__doc__, function, code, words, quick))
        return function
    return decorate


# ---- how ----

def outcome(call):
    try:
        call()
        return 'OK', ''
    except grpc.RpcError as error:
        return error.code().name, error.details()


def service(listener):
    return listener.name.split(',')[0]


def bearer(token):
    return (('authorization', f'Bearer {token}'),)


def read(world, listener, identity=GOOD, metadata=(), plaintext=False):
    path, request = READ[service(listener)]
    with world.channel(listener.address, identity, plaintext) as channel:
        return outcome(lambda: channel.unary_unary(path)(request, metadata=metadata, timeout=10))


def generate(world, listener, identity=GOOD, metadata=(), size=3):
    request = world.messages['GenerateRequest'](max_tokens=2, ignore_eos=True)
    request.tokens.ids.extend([1] * size)
    with world.channel(listener.address, identity) as channel:
        return outcome(lambda: list(channel.unary_stream('/cadre.v1.Inference/Generate')(request.SerializeToString(), metadata=metadata, timeout=20)))


def join(world, reports, identity='expert', metadata=()):
    """Sends what reports(answers) yields, where `answers` gets each answer of the service as it comes."""
    with world.channel(world.placement_grpc, identity) as channel:
        answers = []

        def talk():
            for answer in channel.stream_stream('/cadre.v1.Placement/Join')(reports(answers), metadata=metadata, timeout=10):
                answers.append(world.messages['NodeOrder'].FromString(answer))
        return outcome(talk)


def hello(world, **fields):
    return world.messages['NodeReport'](hello={'id': 'expert-9', 'role': 2, 'exchange_address': '127.0.0.1:1', **fields})


def greet(world, identity='expert', metadata=(), **fields):
    """Joins with a hello alone."""
    return join(world, lambda answers: iter([hello(world, **fields).SerializeToString()]), identity, metadata)


def handshake_fails(world, listener, identity, plaintext=False):
    """gRPC's own code, and the sentence of cadrectl."""
    code, _ = read(world, listener, identity, plaintext=plaintext)
    exit_code, sentence = world.cadrectl(listener, identity, plaintext=plaintext)
    return code if exit_code == 1 else f'cadrectl ended with {exit_code}', sentence


def connect(listener):
    host, port = listener.address.rsplit(':', 1)
    return socket.create_connection((host, int(port)), timeout=12)


def told(connection):
    """What comes until the end of the connection."""
    got = b''
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    except TimeoutError:
        return 'still open', ''
    if got.startswith(b'HTTP/1.'):
        head, _, body = got.partition(b'\r\n\r\n')
        return head.split()[1].decode(), body.decode(errors='replace').strip()
    return CLOSED, ''


def raw(listener, data):
    with connect(listener) as connection:
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return told(connection)


# ---- who calls ----

@attempt('grpc', 'UNAUTHENTICATED', 'certificate', 'token')
def nobody(world, listener):
    """no certificate and no token"""
    return read(world, listener, None)


@attempt('grpc', 'UNAVAILABLE', 'certificate')
def wrong_authority(world, listener):
    """a certificate of another authority"""
    return handshake_fails(world, listener, 'stranger')


@attempt('grpc', 'UNAVAILABLE', 'certificate')
def expired(world, listener):
    """a certificate that has expired"""
    return handshake_fails(world, listener, 'expired')


@attempt('grpc', 'UNAVAILABLE', 'TLS')
def plaintext(world, listener):
    """plaintext to TLS"""
    return handshake_fails(world, listener, None, plaintext=True)


@attempt('grpc', 'UNAUTHENTICATED', 'does not know the token')
def wrong_token(world, listener):
    """a token that is in no file"""
    return read(world, listener, None, bearer('wrong-0123456789abcdef'))


@attempt('grpc', 'UNAUTHENTICATED')
def no_bearer(world, listener):
    """something else in the header of the token"""
    return read(world, listener, None, (('authorization', 'Basic cm9vdDpyb290'),))


@attempt('grpc', 'UNAUTHENTICATED')
def two_tokens(world, listener):
    """two tokens, one of them right"""
    return read(world, listener, None, bearer('wrong-0123456789abcdef') + bearer(TOKENS['root'][1]))


# ---- what it may do ----

@attempt('placement, gRPC', 'PERMISSION_DENIED', 'client', 'Join')
def client_joins(world, listener):
    """a client's certificate joins as a node"""
    return greet(world, 'client')


@attempt('placement, gRPC', 'PERMISSION_DENIED', 'alice', 'Join')
def client_token_joins(world, listener):
    """a client's token joins as a node"""
    return greet(world, None, bearer(TOKENS['alice'][1]))


@attempt('placement, gRPC', 'UNAUTHENTICATED', 'names no role')
def common_name(world, listener):
    """a certificate that is called 'operator' and has no role joins"""
    return greet(world, 'operator-by-name')


@attempt('router, gRPC', 'PERMISSION_DENIED', 'dashboard', 'Generate')
def reader_generates(world, listener):
    """a token that may only read generates"""
    return generate(world, listener, None, bearer(TOKENS['dashboard'][1]))


@attempt('router, gRPC', 'PERMISSION_DENIED', 'Generate')
def node_generates(world, listener):
    """a node's certificate generates"""
    return generate(world, listener, 'expert')


@attempt('grpc', 'UNAUTHENTICATED', 'cadre://emperor/charles')
def unknown_role(world, listener):
    """a certificate with a role that does not exist"""
    return read(world, listener, 'emperor')


# ---- the cluster secret ----

def wait_for(answers):
    end = time.monotonic() + 5
    while not answers and time.monotonic() < end:
        time.sleep(0.01)
    return answers[-1]


@attempt('placement, gRPC', 'FAILED_PRECONDITION', 'secret')
def no_secret(world, listener):
    """a node without the cluster secret joins"""
    return greet(world)


def challenge(world, nonce):
    return world.messages['NodeReport'](challenge={'id': 'expert-9', 'nonce': nonce}).SerializeToString()


@attempt('placement, gRPC', 'FAILED_PRECONDITION', 'does not know the cluster secret')
def replayed(world, listener):
    """a hello that proved the secret once is sent again"""
    nonce, recorded = b'n' * 32, []
    secret = (world.files / 'secret').read_bytes().strip()

    def first(answers):
        yield challenge(world, nonce)
        service_nonce = wait_for(answers).challenge.nonce
        recorded.append(hello(world, mac=proof(secret, hello(world).hello, nonce, service_nonce)).SerializeToString())
        yield recorded[0]
    code, sentence = join(world, first)
    if 'secret' in sentence:   # refused for what else the hello lacks, after the proof
        return f'the first hello: {code}', sentence

    def again(answers):
        yield challenge(world, nonce)
        wait_for(answers)
        yield recorded[0]
    return join(world, again)


# ---- too much ----

@attempt('router, gRPC', 'RESOURCE_EXHAUSTED')
def large_request(world, listener):
    """a message of 5 MiB"""
    return generate(world, listener, size=5 << 20)


@attempt('placement, gRPC', 'RESOURCE_EXHAUSTED')
def large_report(world, listener):
    """a message of 5 MiB"""
    return greet(world, id='x' * (5 << 20))


@attempt('grpc', 'RESOURCE_EXHAUSTED', 'metadata')
def long_header(world, listener):
    """a header of 17 kB"""
    return read(world, listener, metadata=(('note', 'v' * 17000),))


@attempt('grpc', 'RESOURCE_EXHAUSTED', 'metadata')
def many_headers(world, listener):
    """2,000 headers"""
    return read(world, listener, metadata=tuple((f'note-{i}', 'v') for i in range(2000)))


@attempt('http', '431')
def long_http_header(world, listener):
    """a header of 64 kB"""
    return raw(listener, b'GET /healthz HTTP/1.1\r\nHost: x\r\nNote: ' + b'v' * 65536 + b'\r\n\r\n')


@attempt('http', '414')
def long_path(world, listener):
    """a path of 64 kB"""
    return raw(listener, b'GET /' + b'x' * 65536 + b' HTTP/1.1\r\nHost: x\r\n\r\n')


@attempt('http', '405')
def post(world, listener):
    """POST"""
    return raw(listener, b'POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n')


@attempt('http', '404')
def another_path(world, listener):
    """a path that is not there"""
    return raw(listener, b'GET /../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')


@attempt('http', CLOSED, quick=False)
def slow_request(world, listener):
    """half a request, and no more"""
    return raw(listener, b'GET /healthz HTTP/1.1\r\nHost:')


@attempt('http', CLOSED)
def tls_to_http(world, listener):
    """TLS to plaintext"""
    with connect(listener) as connection:
        try:
            TRUSTING.wrap_socket(connection)
            return 'a handshake', ''
        except (ssl.SSLError, ConnectionResetError, TimeoutError):
            return CLOSED, ''


@attempt('grpc; exchange', CLOSED)
def garbage(world, listener):
    """4 kB that are no message"""
    return raw(listener, GARBAGE)


@attempt('exchange', CLOSED)
def http_to_exchange(world, listener):
    """HTTP"""
    return raw(listener, b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')


CONNECTIONS, AT_ONCE, ANSWERED_S = 10_000, 200, 60


@attempt('grpc; http; exchange', 'served', quick=False)
def connections(world, listener):
    """10,000 connections, 200 at a time, that say nothing; a client who is connected calls in their midst"""
    waiting = []
    with contextlib.ExitStack() as stack, world.channel(world.routers[0].grpc, 'client') as client:
        digest = world.digest(client)
        for _ in range(CONNECTIONS):
            waiting.append(stack.enter_context(connect(listener)))
            if len(waiting) > AT_ONCE:
                waiting.pop(0).close()
        same = world.digest(client) == digest
    after = answered_after(listener)
    if after is None:
        return 'silent', f'the next one is not answered within {ANSWERED_S} s'
    return ('served' if same else 'another answer'), f'the next one is answered after {after:.1f} s'


def answered_after(listener, limit=ANSWERED_S):
    """Seconds until somebody who connects is spoken to; None: nobody is, for so long."""
    began = time.monotonic()
    while (left := began + limit - time.monotonic()) > 0:
        with contextlib.suppress(OSError), connect(listener) as connection:
            connection.settimeout(min(left, 12))
            if listener.kind == 'grpc':
                TRUSTING.wrap_socket(connection).close()
                return time.monotonic() - began
            connection.sendall(b'GET /healthz HTTP/1.0\r\n\r\n')
            if listener.kind == 'exchange' or connection.recv(4096):
                return time.monotonic() - began
        time.sleep(0.05)
    return None
