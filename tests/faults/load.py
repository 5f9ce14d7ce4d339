# SPDX-License-Identifier: Apache-2.0
"""The load under which faults happen: streams that ask for the same continuations again and again, and what they saw."""
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time

import grpc

from cluster import BIN, embedded
from world import MODEL, until

STREAMS, TOKENS = 8, 300
DEADLINE_S = 60
STANDSTILL_S = 15
# A client that finds its router again soon after it came back.
CHANNEL_OPTIONS = [('grpc.use_local_subchannel_pool', 1), ('grpc.initial_reconnect_backoff_ms', 50), ('grpc.min_reconnect_backoff_ms', 50), ('grpc.max_reconnect_backoff_ms', 200)]


def prompt(index):
    return [5 + (i * 31 + index * 17) % 4000 for i in range(6 + index)]


def expected_digests():
    """The same requests computed alone, in one process without a cluster."""
    return [embedded(MODEL, prompt(i), TOKENS)['digest'] for i in range(STREAMS)]


class Client:
    """Calls of one router, over one connection."""

    def __init__(self, router):
        self.router = router
        self.channel = grpc.insecure_channel(router.grpc, options=CHANNEL_OPTIONS)
        server = router.server
        self.Request = type(server.message('cadre.v1.GenerateRequest'))
        self.generate = self.channel.unary_stream('/cadre.v1.Inference/Generate', self.Request.SerializeToString, type(server.message('cadre.v1.GenerateResponse')).FromString)

    def close(self):
        self.channel.close()


class Resume:
    """What has come of an answer."""

    def __init__(self):
        self.tokens, self.digest, self.fingerprint = [], '', ''

    def add(self, message):
        self.tokens += message.token_ids
        self.digest = message.digest_so_far or self.digest
        self.fingerprint = self.fingerprint or message.fingerprint


class Asker:
    """Asks for an answer. `at`: the router that it asks first; one that `resumes` goes on at the next one when its router went away."""

    def __init__(self, prompt, tokens, clients, at, resumes, **fields):
        self.prompt, self.tokens_max, self.fields = prompt, tokens, fields
        self.clients, self.at, self.resumes = clients, at % len(clients), resumes
        self.stopping = threading.Event()

    def came(self, message):
        """A message of the answer has come."""

    def answer(self):
        """The digest of one whole answer."""
        so_far, give_up = Resume(), time.monotonic() + DEADLINE_S
        while True:
            try:
                return self.receive(self.clients[self.at], so_far)
            except grpc.RpcError as error:
                if not self.resumes or error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > give_up:
                    raise
                self.next_router()
                self.stopping.wait(0.02)

    def next_router(self):
        self.at = (self.at + 1) % len(self.clients)

    def receive(self, client, so_far):
        """One stream: what is missing. Returns the digest, which is of the whole answer."""
        digest = None
        request = client.Request(max_tokens=self.tokens_max - len(so_far.tokens), ignore_eos=True, **self.fields)
        request.tokens.ids.extend(self.prompt)
        if so_far.tokens:
            request.resume.token_ids.extend(so_far.tokens)
            request.resume.digest, request.resume.fingerprint = so_far.digest, so_far.fingerprint
        for message in client.generate(request, timeout=DEADLINE_S):
            self.came(message)
            so_far.add(message)
            digest = message.digest or digest
        return digest


def why_failed(error):
    return f'{error.code().name}: {error.details()}' if isinstance(error, grpc.RpcError) else repr(error)


class Stream(Asker, threading.Thread):
    """One user: a request, and when it has ended, the same again."""

    def __init__(self, index, clients, digest, resumes, tokens=TOKENS):
        threading.Thread.__init__(self, daemon=True)
        Asker.__init__(self, prompt(index), tokens, clients, index, resumes)
        self.index, self.digest = index, digest
        self.tokens = self.requests = self.unequal = 0
        self.failed = []
        self.gaps = []                       # (when it ended, how long it was): from the request or the last token to the next one
        self.last = time.monotonic()

    def run(self):
        while not self.stopping.is_set():
            self.requests += 1
            self.last = time.monotonic()
            try:
                self.unequal += self.answer() != self.digest
            except Exception as error:
                self.failed.append(why_failed(error))
                self.next_router()
                self.stopping.wait(0.1)

    def came(self, message):
        self.progress(len(message.token_ids))

    def progress(self, tokens):
        now = time.monotonic()
        self.gaps.append((now, now - self.last))
        self.last = now
        self.tokens += tokens

    def longest_gap(self, since):
        now = time.monotonic()
        running = [now - self.last] if self.is_alive() and self.last > since else []
        return max([gap for ended, gap in self.gaps if ended > since] + running, default=now - since)


class CadrectlStream(Stream):
    """The same through cadrectl, which resumes by itself. A gap is one between pieces of text; the prompt's tokens give ordinary text."""

    def answer(self):
        with tempfile.TemporaryDirectory() as directory:
            saved = pathlib.Path(directory) / 'answer.json'
            # The router that it is at comes first.
            routers = [client.router.grpc for client in self.clients[self.at:] + self.clients[:self.at]]
            process = subprocess.Popen([BIN / 'cadrectl', 'generate', '--router', ','.join(routers), '--tokens', ','.join(map(str, self.prompt)), '--ignore-eos',
                                        '--max-tokens', str(self.tokens_max), '--save', saved], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while os.read(process.stdout.fileno(), 65536):
                self.progress(1)
            said = process.communicate()[1].decode().strip()
            assert process.returncode == 0, said
            return json.loads(saved.read_text())['digest']


class Load:
    """STREAMS streams, spread over the routers of a cluster."""

    def __init__(self, world, digests):
        self.clients = [Client(router) for router in world.routers]
        kind = CadrectlStream if world.cadrectl else Stream
        self.streams = [kind(i, self.clients, digests[i], world.resumes) for i in range(STREAMS)]

    def __enter__(self):
        for stream in self.streams:
            stream.start()
        return self

    def __exit__(self, kind, *_):
        """Every request comes to its end first: its digest counts. After an exception nothing counts any more."""
        for stream in self.streams:
            stream.stopping.set()
        if kind:
            self.close()
        for stream in self.streams:
            stream.join(2 * DEADLINE_S)
        self.close()

    def close(self):
        for client in self.clients:
            client.close()

    def wait_flowing(self, seconds=STANDSTILL_S):
        """Until every stream has got some more tokens."""
        counts = [s.tokens for s in self.streams]
        until(lambda: all(s.tokens > count + 3 for s, count in zip(self.streams, counts)), seconds, 'all streams flow')

    def longest_gap(self, since, without=()):
        return max((s.longest_gap(since) for s in self.streams if s.index not in without), default=0.0)

    def percentile(self, share, since):
        gaps = sorted(gap for s in self.streams for ended, gap in s.gaps if ended > since)
        return gaps[int(share * (len(gaps) - 1))] if gaps else 0.0

    @property
    def requests(self):
        return sum(s.requests for s in self.streams)

    @property
    def failed(self):
        return [why for s in self.streams for why in s.failed]

    @property
    def unequal(self):
        return sum(s.unequal for s in self.streams)
