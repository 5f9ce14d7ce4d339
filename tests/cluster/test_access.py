# SPDX-License-Identifier: Apache-2.0
"""Who may call a router: TLS, client certificates and bearer tokens, as cadrectl and grpcio see them."""
import subprocess

import grpc
import pytest

from certificates import authority, issue
from cluster import BIN, GOLDEN, Cluster, code_of

MODEL = GOLDEN / 'olmoe-a' / 'model'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """An authority, a router's and a client's certificate, and two tokens."""
    directory = tmp_path_factory.mktemp('access')
    authority(directory)
    issue(directory, 'router', names='IP:127.0.0.1')
    issue(directory, 'client')
    for name in ('token', 'other-token'):
        (directory / name).write_text(f'{name:-<32}\n')
        (directory / name).chmod(0o600)
    return directory


def generate(router, *options):
    """cadrectl's exit code, and what it said."""
    done = subprocess.run([BIN / 'cadrectl', 'generate', '--router', router.grpc, '--tokens', '1,2,3', '--max-tokens', '4', '--ignore-eos', '-o', 'json', *options],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_tls_and_token(files):
    with Cluster(MODEL, experts=1, router_options=['--tls-certificate', files / 'router.pem', '--tls-key', files / 'router.key', '--token-file', files / 'token']) as cluster:
        router, trust = cluster.routers[0], ['--tls-authority', files / 'ca.pem']
        code, text = generate(router, *trust, '--token-file', files / 'token')
        assert code == 0 and '"digest"' in text, text
        for options, word in [(trust, 'UNAUTHENTICATED'), ([*trust, '--token-file', files / 'other-token'], 'UNAUTHENTICATED'), ([], 'without TLS'),
                              (['--tls', '--token-file', files / 'token'], 'certificate verify failed'), ([*trust, '--token-file', files / 'nothing'], 'nothing')]:
            code, text = generate(router, *options)
            assert code == 1 and word in text, (options, text)


def test_client_certificates(files):
    with Cluster(MODEL, experts=1, router_options=['--tls-certificate', files / 'router.pem', '--tls-key', files / 'router.key', '--tls-authority', files / 'ca.pem']) as cluster:
        router, trust = cluster.routers[0], ['--tls-authority', files / 'ca.pem']
        shown = ['--tls-certificate', files / 'client.pem', '--tls-key', files / 'client.key']
        assert generate(router, *trust, *shown)[0] == 0
        code, text = generate(router, *trust)
        assert code == 1 and 'with TLS' in text, text
        pem = [(files / name).read_bytes() for name in ('ca.pem', 'client.key', 'client.pem')]
        with grpc.secure_channel(router.grpc, grpc.ssl_channel_credentials(*pem)) as channel:
            channel.unary_unary('/grpc.health.v1.Health/Check')(b'', timeout=10)


def test_long_headers_end_their_own_call_alone():
    with Cluster(MODEL, experts=1) as cluster:
        router = cluster.routers[0]
        stream = router.stream(tokens=[1, 2, 3], max_tokens=4000, ignore_eos=True)
        got = len(next(stream).token_ids)
        generate = router.server.method('cadre.v1.Inference', 'Generate')
        for length in (17000, 300000):
            refused = generate(router.request([1], max_tokens=1), metadata=(('note', 'v' * length),), timeout=20)
            code, text = code_of(refused)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED and 'this server takes 16384: send less metadata' in text, text
        assert got + sum(len(message.token_ids) for message in stream) == 4000
