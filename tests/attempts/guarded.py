# SPDX-License-Identifier: Apache-2.0
"""A cluster with everything on: TLS and client certificates on every gRPC listener, tokens, roles, and the cluster secret.

Identities are files of scripts/certificates.sh, and four that it does not make: one of another authority, one that has expired, one without a
role whose name is 'operator', and one with a role that does not exist.
"""
import contextlib
import functools
import pathlib
import subprocess
import tempfile

import grpc

import certificates
import reflect
from cluster import BIN, ROOT, Cluster
from resources import listening

MODEL = ROOT / 'models' / 'demo'
TOKENS = {'alice': ('client', 'alice-0123456789abcdef'), 'dashboard': ('inspect', 'dashboard-0123456789'), 'expert-9': ('node', 'expert-9-0123456789a'), 'root': ('operator', 'root-0123456789abcdef')}


def make_files(files):
    for folder in (files, files / 'others'):
        certificates.cluster(folder)
    for kind in ('pem', 'key'):
        (files / 'others' / f'client.{kind}').rename(files / f'stranger.{kind}')
    certificates.issue(files, 'expired', 'URI:cadre://operator/expired', days=-1)
    certificates.issue(files, 'operator-by-name', 'DNS:operator')
    certificates.issue(files, 'emperor', 'URI:cadre://emperor/charles')
    write(files / 'tokens', ''.join(f'{token} {role} {name}\n' for name, (role, token) in TOKENS.items()))


def write(file, text):
    file.write_text(text)
    file.chmod(0o600)


class Listener:
    def __init__(self, name, kind, address, process):
        self.name, self.kind, self.address, self.process = name, kind, address, process


class Guarded(Cluster):
    def __init__(self):
        self.files = pathlib.Path(tempfile.mkdtemp(prefix='cadre-test-'))
        make_files(self.files)
        secret, guard = ['--secret-file', self.files / 'secret'], ['--tls-clients', 'optional', '--token-file', self.files / 'tokens']
        super().__init__(MODEL, experts=2, routers=1, tls=self.files, placement_options=secret + guard, router_options=secret + guard, expert_options=secret)

    @functools.cached_property
    def messages(self):
        """Classes of messages of both services, by name."""
        found = {}
        for address, names in ((self.placement_grpc, ('NodeReport', 'NodeOrder')), (self.routers[0].grpc, ('GenerateRequest', 'GenerateResponse'))):
            with contextlib.closing(reflect.Server(address, self.files)) as server:
                found.update({name: type(server.message(f'cadre.v1.{name}')) for name in names})
        return found

    # ---- where it listens ----

    def listeners(self):
        router = self.routers[0]
        ports = {process.name: exchange_port(process) for process in (*self.experts, router.process)}
        return [Listener('placement, gRPC', 'grpc', self.placement_grpc, self.placement), Listener('router, gRPC', 'grpc', router.grpc, router.process),
                Listener('placement, HTTP', 'http', self.placement_http, self.placement), Listener('router, HTTP', 'http', router.http, router.process),
                Listener('expert, HTTP', 'http', self.experts[0].http, self.experts[0]),
                *[Listener(f'{process.name.split("-")[0]}, exchange', 'exchange', ports[process.name], process) for process in (self.experts[0], router.process)]]

    # ---- calls ----

    @contextlib.contextmanager
    def channel(self, address, identity=None, plaintext=False):
        options = [('grpc.use_local_subchannel_pool', 1), ('grpc.max_send_message_length', -1)]
        if plaintext:
            channel = grpc.insecure_channel(address, options)
        else:
            channel = grpc.secure_channel(address, certificates.credentials(self.files, identity), options)
        with channel:
            yield channel

    def digest(self, channel=None):
        """Of an answer to a client: whoever is connected already, or one who connects."""
        request = self.messages['GenerateRequest'](max_tokens=8, ignore_eos=True)
        request.tokens.ids.extend([1, 2, 3])
        with contextlib.nullcontext(channel) if channel else self.channel(self.routers[0].grpc, 'client') as channel:
            answers = list(channel.unary_stream('/cadre.v1.Inference/Generate')(request.SerializeToString(), timeout=60))
        return self.messages['GenerateResponse'].FromString(answers[-1]).digest

    def cadrectl(self, listener, identity=None, plaintext=False):
        """What the command line says: exit code and the last line on stderr."""
        access = [] if plaintext else self.identity(identity) if identity else self.identity('client')[-2:]
        command = ['status', '--placement', listener.address] if listener.process is self.placement else \
            ['generate', '--router', listener.address, '--tokens', '1,2,3', '--max-tokens', '2', '--ignore-eos']
        done = subprocess.run([BIN / 'cadrectl', *command, *access], capture_output=True, text=True, timeout=30)
        return done.returncode, (done.stderr.strip().splitlines() or [''])[-1]


def exchange_port(process):
    """Where it listens for the exchange, as the kernel knows it: it has no other listener than HTTP and gRPC."""
    known = {int(argument.rsplit(':', 1)[1]) for option, argument in zip(process.arguments, process.arguments[1:]) if option in ('--http', '--grpc')}
    return next(address for address in listening(process) if int(address.rsplit(':', 1)[1]) not in known)
