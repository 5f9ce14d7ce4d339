# SPDX-License-Identifier: Apache-2.0
"""Who may call a router: TLS, client certificates and bearer tokens, as cadrectl and grpcio see them."""
import shutil
import signal
import subprocess
import time

import grpc
import pytest

import certificates
from certificates import authority, issue
from cluster import BIN, GOLDEN, Cluster, code_of, metric, wait_for_log

MODEL = GOLDEN / 'olmoe-a' / 'model'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """An authority, certificates of a cluster and of a client, others from another authority, and two tokens."""
    directory = tmp_path_factory.mktemp('access')
    certificates.cluster(directory)
    others = directory / 'others'
    others.mkdir()
    authority(others)
    issue(others, 'stranger')
    issue(others, 'other-router', names='IP:127.0.0.1')
    (others / 'authority.pem').rename(others / 'other-ca.pem')
    for name in ('stranger.pem', 'stranger.key', 'other-router.pem', 'other-router.key', 'other-ca.pem'):
        (others / name).rename(directory / name)
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
    with Cluster(MODEL, experts=1, router_options=[*certificates.shown(files, 'router'), '--token-file', files / 'token']) as cluster:
        router, trust = cluster.routers[0], ['--tls-authority', files / 'authority.pem']
        code, text = generate(router, *trust, '--token-file', files / 'token')
        assert code == 0 and '"digest"' in text, text
        for options, words in [(trust, "UNAUTHENTICATED: this router requires a token: send the header 'authorization: Bearer TOKEN'"),
                               ([*trust, '--token-file', files / 'other-token'], 'UNAUTHENTICATED: this router does not know the token that was sent: it is wrong, or no longer in its token file'),
                               ([], 'the server ended the connection: it may want TLS (--tls-authority)'),
                               (['--tls', '--token-file', files / 'token'], "the server's certificate is not from an authority that is trusted here, or has expired"),
                               ([*trust, '--token-file', files / 'nothing'], 'nothing')]:
            code, text = generate(router, *options)
            assert code == 1 and words in text, (options, text)


def test_tokens_have_roles_and_names(files):
    """A file as it is while alice's token is changed."""
    table = files / 'table'
    table.write_text('# alice is changing\nalice-0123456789 generate alice\nalice-9876543210 generate alice\ndashboard-000000 inspect dashboard\n')
    table.chmod(0o600)
    with Cluster(MODEL, experts=1, router_options=['--streams-per-client', 1]) as cluster:
        guarded, request = cluster.add_router(['--token-file', table]), cluster.routers[0].request([1, 2, 3], max_tokens=4000, ignore_eos=True)
        cluster.wait_ready()
        assert generate(guarded, '--token-file', table)[0] == 0   # cadrectl sends the first of the file
        with grpc.insecure_channel(guarded.grpc) as channel:
            call = channel.unary_stream('/cadre.v1.Inference/Generate', request.__class__.SerializeToString)
            shown = {token: (('authorization', f'Bearer {token}'),) for token in ('alice-0123456789', 'alice-9876543210', 'dashboard-000000')}
            assert channel.unary_unary('/cadre.v1.Inference/GetModel')(b'', metadata=shown['dashboard-000000'], timeout=20)
            stream = call(request, metadata=shown['alice-0123456789'], timeout=60)
            next(stream)
            for token, code, words in [('dashboard-000000', grpc.StatusCode.PERMISSION_DENIED, "the token of 'dashboard' has the role 'inspect', which may not call Generate"),
                                       ('alice-9876543210', grpc.StatusCode.RESOURCE_EXHAUSTED, "the client 'alice' has 1 stream open")]:
                got, text = code_of(call(request, metadata=shown[token], timeout=20))
                assert got == code and words in text, text
            stream.cancel()


def test_client_certificates(files):
    with Cluster(MODEL, experts=1, tls=files) as cluster:
        router, trust = cluster.routers[0], ['--tls-authority', files / 'authority.pem']
        shown, other = (certificates.shown(files, name) for name in ('client', 'stranger'))
        assert generate(router, *trust, *shown)[0] == 0
        for options, words in [(trust, 'it may want a certificate, and none was presented'), ([*trust, *other], 'it may not accept the certificate that was presented')]:
            code, text = generate(router, *options)
            assert code == 1 and words in text, text
        with grpc.secure_channel(router.grpc, certificates.credentials(files, 'client')) as channel:
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


def hang_up(process, http_address, result):
    """SIGHUP, until the process has read its files again, with this result."""
    name = f'cadre_rereads_total{{result="{result}"}}'
    before, end = metric(http_address, name), time.monotonic() + 20
    process.kill(signal.SIGHUP)
    while metric(http_address, name) == before:
        assert process.alive() and time.monotonic() < end, process.log.read_text()
        time.sleep(0.02)


def test_sighup_reads_tokens_and_certificates(files, tmp_path):
    table, certificate, key = tmp_path / 'tokens', tmp_path / 'live.pem', tmp_path / 'live.key'

    def write(*tokens):
        table.write_text(''.join(f'{token} generate\n' for token in tokens))

    def shown(token):
        (tmp_path / token).write_text(token)
        return ['--tls-authority', files / 'authority.pem', '--token-file', tmp_path / token]

    write('first-0123456789')
    shutil.copy(files / 'router.pem', certificate)
    shutil.copy(files / 'router.key', key)
    with Cluster(MODEL, experts=1, router_options=['--tls-certificate', certificate, '--tls-key', key, '--token-file', table]) as cluster:
        router = cluster.routers[0]
        process = router.process
        assert generate(router, *shown('first-0123456789'))[0] == 0

        # both tokens for a while, then the new one alone
        write('first-0123456789', 'second-0123456789')
        hang_up(process, router.http, 'ok')
        assert generate(router, *shown('first-0123456789'))[0] == 0 and generate(router, *shown('second-0123456789'))[0] == 0
        write('second-0123456789')
        hang_up(process, router.http, 'ok')
        code, text = generate(router, *shown('first-0123456789'))
        assert code == 1 and 'this router does not know the token that was sent' in text, text

        # a damaged file changes nothing, and is told
        write('short')
        hang_up(process, router.http, 'failed')
        wait_for_log(process, 'the token file cannot be used: the old tokens stay in force')
        assert generate(router, *shown('second-0123456789'))[0] == 0
        write('second-0123456789')
        key.write_text('not a key')
        hang_up(process, router.http, 'failed')
        wait_for_log(process, 'the TLS files cannot be used: the old ones stay in force')
        assert generate(router, *shown('second-0123456789'))[0] == 0

        # another authority's certificate: clients that trust only the first one do not trust it
        shutil.copy(files / 'other-router.pem', certificate)
        shutil.copy(files / 'other-router.key', key)
        hang_up(process, router.http, 'ok')
        code, text = generate(router, *shown('second-0123456789'))
        assert code == 1 and "the server's certificate is not from an authority that is trusted here" in text, text
        assert generate(router, '--tls-authority', files / 'other-ca.pem', '--token-file', tmp_path / 'second-0123456789')[0] == 0


def test_sighup_reads_the_log_level(tmp_path):
    """In all three services, and from wherever the level comes; a flag stays what it is."""
    config = tmp_path / 'config.yaml'
    config.write_text('log-level: info\n')
    flags = ['--config', config]
    with Cluster(MODEL, experts=1, router_options=flags, expert_options=flags, placement_options=flags) as cluster:
        services = [(cluster.placement, cluster.placement_http), (cluster.experts[0], cluster.experts[0].http), (cluster.routers[0].process, cluster.routers[0].http)]
        for level, result, says in [('warn', 'ok', 0), ('loud', 'failed', 0), ('info', 'ok', 1)]:
            config.write_text(f'log-level: {level}\n')
            for process, http_address in services:
                hang_up(process, http_address, result)
                lines = process.log.read_text().splitlines()
                assert sum('msg="read again"' in line for line in lines) == says, lines
                assert any('the options cannot be used: the log level stays as it is' in line for line in lines) == (level != 'warn')
        assert cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=4).tokens
