# SPDX-License-Identifier: Apache-2.0
"""Clusters whose processes each have a network namespace, connected by tests/support/relay.py."""
import functools
import subprocess
import sys

from cluster import ROOT
from hosts import not_root_with
from world import World

RELAY = ROOT / 'tests' / 'support' / 'relay.py'
DEVICE = 'cadre0'
NET = '198.18.0'   # a network for measurements (RFC 2544), which nobody uses
HOST_ADDRESS = f'{NET}.1'


class Network:
    def __init__(self, names):
        self.addresses = {name: f'{NET}.{i}' for i, name in enumerate(names, 2)}
        self.relay = subprocess.Popen([sys.executable, RELAY, HOST_ADDRESS, *[f'{n}={a}' for n, a in self.addresses.items()]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.namespaces = dict(line.split() for line in iter(lambda: self.relay.stdout.readline().strip(), 'ready') if self.lives(line))

    def lives(self, line):
        assert line, 'the relay ended'
        return True

    def inside(self, name):
        """The words before a command that run it in a namespace, under its own process id. /sys must show the namespace's devices: UCX looks there."""
        return ['nsenter', f'--net={self.namespaces[name]}', 'unshare', '--mount', 'sh', '-c', 'mount -t sysfs none /sys && exec "$@"', 'sh']

    def rule(self, *words):
        print(*words, file=self.relay.stdin, flush=True)
        answer = self.relay.stdout.readline()
        assert answer == 'ok\n', f'the relay answered {answer!r} to {words}'

    def both_ways(self, verb, a, b, *value):
        self.rule(verb, a, b, *value)
        self.rule(verb, b, a, *value)

    def heal(self):
        self.rule('heal')

    def close(self):
        self.relay.stdin.close()
        self.relay.wait()
        self.relay.stdout.close()


@functools.cache
def no_namespaces():
    """What is missing for network namespaces, or None."""
    reason = not_root_with('ip', 'nsenter', 'unshare')
    if reason:
        return reason
    probe = subprocess.run([sys.executable, RELAY, HOST_ADDRESS, f'probe={NET}.2'], input='', capture_output=True, text=True)
    return None if probe.returncode == 0 else f'no network namespace with a TUN device: {(probe.stderr.strip() or "?").splitlines()[-1]}'


class NetworkWorld(World):
    """Each process in a namespace of its own. `spare`: further names that processes may get later."""
    NEEDS = (no_namespaces,)

    def __init__(self, experts=3, routers=1, spare=(), **options):
        names = ['placement', *[f'expert-{i}' for i in range(experts)], *[f'router-{i}' for i in range(routers)], *spare]
        self.network = Network(names)
        exchange, http, grpc = ['--ucx-devices', DEVICE], '--http-plaintext-anywhere', '--grpc-plaintext-anywhere'
        super().__init__(experts=experts, routers=routers, placement_options=[grpc, http], expert_options=[*exchange, http],
                         router_options=[*exchange, grpc, http], **options)

    def host(self, name):
        return self.network.addresses[name]

    def process(self, name, arguments):
        return super().process(name, [*self.network.inside(name), *arguments])

    def __exit__(self, *_):
        try:
            super().__exit__()
        finally:
            self.network.close()
