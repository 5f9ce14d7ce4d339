# SPDX-License-Identifier: Apache-2.0
"""Clients of a deployed cluster, over TLS. What they count as a failed request is what a user would: an answer that does not come, or is another one.

Half of them are `cadrectl generate --router A,B`, which continues an answer at the other router by itself. The others are plain
gRPC clients, which know the addresses of both routers and nothing of Cadre: they may send a request again when it ended with
UNAVAILABLE before anything of the answer had come, as gRPC's guide to error handling says, for at most 30 s.
"""
import json
import subprocess
import threading
import time

import grpc

TOKENS = 150
PROMPTS = ['CREATE TABLE t1 (', 'static int', 'Diese Option legt fest, ob', '#include <']
AGAIN_S = 30


class Client(threading.Thread):
    """Asks for the same prompt again and again until it is told to stop; counts answers, requests sent again, and failures with their reason."""

    def __init__(self, cluster, number):
        super().__init__(daemon=True)
        self.cluster, self.prompt = cluster, PROMPTS[number % len(PROMPTS)]
        self.expected = cluster.expected[self.prompt]
        self.answers, self.again, self.failures, self.slowest = 0, 0, [], 0.0
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.is_set():
            begun = time.monotonic()
            try:
                digest = self.ask()
                if digest != self.expected:
                    self.failures.append(f'another answer: {digest}, not {self.expected}')
            except Exception as error:
                self.failures.append(str(error))
                time.sleep(0.2)
            self.answers += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def stop(self):
        self.stopped.set()
        self.join(timeout=120)
        if self.is_alive():
            self.failures.append('no answer within 120 s')


class Cadrectl(Client):
    def ask(self):
        answer = self.cluster.generate(self.prompt, TOKENS)
        self.again += answer['resumed']
        return answer['digest']


class Plain(Client):
    def __init__(self, cluster, number):
        super().__init__(cluster, number)
        first = cluster.routers[0].split(':')[0]
        self.channel = grpc.secure_channel('ipv4:' + ','.join(cluster.routers), cluster.credentials('client'), options=[
            ('grpc.use_local_subchannel_pool', 1), ('grpc.default_authority', first), ('grpc.max_reconnect_backoff_ms', 1000)])
        self.call = self.channel.unary_stream('/cadre.v1.Inference/Generate', cluster.Request.SerializeToString, cluster.Response.FromString)

    def ask(self):
        deadline = time.monotonic() + AGAIN_S
        while True:
            messages = 0
            try:
                for message in self.call(self.cluster.Request(text=self.prompt, max_tokens=TOKENS, ignore_eos=True), timeout=120):
                    messages += 1
                return message.digest
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or messages > 0 or time.monotonic() > deadline:
                    raise RuntimeError(f'{error.code().name} after {messages} messages: {error.details()}') from None
                self.again += 1
                time.sleep(0.1)

    def stop(self):
        super().stop()
        self.channel.close()


class Load:
    def __init__(self, cluster, of_each=2):
        self.clients = [kind(cluster, number) for kind in (Cadrectl, Plain) for number in range(of_each)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.stopped.set()
        for client in self.clients:
            client.stop()

    def failures(self):
        return [failure for client in self.clients for failure in client.failures]

    def summary(self):
        return ', '.join(f'{sum(c.answers for c in of_kind)} answers to {name} ({sum(c.again for c in of_kind)} {how}, slowest {max(c.slowest for c in of_kind):.1f} s)'
                         for name, how, of_kind in (('cadrectl', 'continued at the other router', self.clients[:len(self.clients) // 2]),
                                                    ('plain clients', 'sent again', self.clients[len(self.clients) // 2:])))


def embedded(program, model, prompt):
    """The digest of the same request, computed in one process without a cluster."""
    answer = subprocess.run([program, 'generate', '--model', model, '--max-tokens', str(TOKENS), '--ignore-eos', '-o', 'json', prompt], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)['digest']
