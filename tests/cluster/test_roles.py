# SPDX-License-Identifier: Apache-2.0
"""Who may do what: roles by certificate and by token on both listeners, what is refused, and where that is written down."""
import json
import subprocess
import time
import urllib.error

import grpc
import pytest

import certificates
import reflect
from certificates import shown
from cluster import BIN, GOLDEN, Cluster, http, metric, wait_for_log
from proof import proof

MODEL = GOLDEN / 'mixtral-a' / 'model'
SECRET = 'sixteen bytes and some more'
TOKENS = {'client': 'client-token-0123 client carol', 'node': 'node-token-012345 node rack', 'operator': 'operator-token-01 operator dave',
          'inspect': 'inspect-token-012 inspect dashboard', 'old': 'generate-token-01 generate erin'}
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
INVALID, OK = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp('roles')
    certificates.cluster(directory)
    certificates.issue(directory, 'unit', subject='/O=Example/OU=node/CN=unit')
    certificates.issue(directory, 'roleless')
    certificates.issue(directory, 'odd', 'URI:cadre://operater/bob')
    certificates.issue(directory, 'two', 'URI:cadre://node/a,URI:cadre://operator/a')
    for name, text in [('secret', SECRET), ('tokens', '\n'.join(TOKENS.values())), ('wrong', 'another-token-01'), *TOKENS.items()]:
        (directory / name).write_text(text + '\n')
        (directory / name).chmod(0o600)
    return directory


def become(process, files, name):
    """Shows another certificate than an expert node of the cluster, or none."""
    at = process.arguments.index('--tls-certificate')
    process.arguments[at:at + 4] = [str(option) for option in shown(files, name)] if name else []


@pytest.fixture(scope='module')
def cluster(files):
    """TLS everywhere, a token or a certificate from everybody: expert-1 has its role from its organisational unit, expert-2 from a token."""
    secret, either = ['--secret-file', files / 'secret'], ['--tls-clients', 'optional', '--token-file', files / 'tokens']
    with Cluster(MODEL, experts=1, tls=files, placement_options=[*secret, *either, '--log-format', 'json'], router_options=[*secret, *either],
                 expert_options=secret, start=False) as cluster:
        become(cluster.add_expert(), files, 'unit')
        become(cluster.add_expert(['--placement-token-file', files / 'node']), files, None)
        yield cluster.start_all().wait_ready()


@pytest.fixture
def quiet(files):
    """A cluster that has refused nobody yet: the audit log takes 20 refusals, and then 2 a second."""
    secret = ['--secret-file', files / 'secret']
    with Cluster(MODEL, experts=1, tls=files, placement_options=[*secret, '--log-format', 'json'], router_options=secret, expert_options=secret) as cluster:
        yield cluster


def channel(files, target, certificate):
    return grpc.secure_channel(target, certificates.credentials(files, certificate), options=[('grpc.use_local_subchannel_pool', 1)])

READING = ('GetMap', 'GetStatus', 'WatchMap', 'GetHistory', 'GetPlacement', 'GetAuto')
OPERATING = ('StartRebalance', 'ChangeRebalance', 'ApplyMap', 'SetAuto', 'Drain', 'SetPin', 'SetCopies', 'RecordTrace')
PLACEMENT_METHODS = ('Join', *READING, *OPERATING)


def ask(files, target, certificate, headers, method):
    """(code, sentence) of a call with an empty message."""
    with channel(files, target, certificate) as connection:
        service = 'Placement' if method in PLACEMENT_METHODS else 'Inference'
        call = connection.stream_stream(f'/cadre.v1.{service}/{method}')(iter([b'']), metadata=[('authorization', h) for h in headers], timeout=20)
        try:
            for _ in call:
                call.cancel()
                break
            return OK, ''
        except grpc.RpcError as error:
            return (OK, '') if error.code() == grpc.StatusCode.CANCELLED else (error.code(), error.details())


def bearer(name):
    return [f'Bearer {TOKENS[name].split()[0]}']


# certificate, token, method, code, sentence; INVALID_ARGUMENT comes from behind the door, which sees that the message is empty
CALLS = [
    (None, [], 'GetModel', UNAUTHENTICATED, "this router requires a certificate or a token: send the header 'authorization: Bearer TOKEN'"),
    (None, ['Bearer wrong-token-01234'], 'GetModel', UNAUTHENTICATED, 'this router does not know the token that was sent'),
    (None, ['Basic Y2xpZW50'], 'GetModel', UNAUTHENTICATED, "the header 'authorization' is not 'Bearer TOKEN', or there are several"),
    (None, [*bearer('inspect'), *bearer('client')], 'GetModel', UNAUTHENTICATED, 'or there are several'),
    ('client', ['Bearer wrong-token-01234'], 'Generate', UNAUTHENTICATED, 'this router does not know the token that was sent'),
    ('odd', bearer('operator'), 'GetModel', UNAUTHENTICATED, "this router cannot use the certificate that was shown: the URI 'cadre://operater/bob' is not cadre://ROLE/NAME"),
    ('two', [], 'GetModel', UNAUTHENTICATED, 'it has several URIs cadre://ROLE/NAME'),
    ('roleless', [], 'GetModel', UNAUTHENTICATED, 'the certificate names no role, and this router, which has a token file, then requires a token'),
    ('roleless', bearer('client'), 'Generate', INVALID, ''),
    ('client', [], 'Generate', INVALID, ''),
    ('operator', [], 'Generate', INVALID, ''),
    (None, bearer('client'), 'Generate', INVALID, ''),
    (None, bearer('old'), 'Generate', INVALID, ''),
    (None, bearer('inspect'), 'GetModel', OK, ''),
    (None, bearer('inspect'), 'Generate', DENIED, "the token of 'dashboard' has the role 'inspect', which may not call Generate: that takes the role 'client' or 'operator'"),
    ('expert', [], 'GetModel', OK, ''),
    ('expert', [], 'Generate', DENIED, "the certificate of 'expert' has the role 'node', which may not call Generate"),
    ('client', bearer('inspect'), 'Generate', DENIED, "the token of 'dashboard' has the role 'inspect'"),
    ('client', bearer('operator'), 'Generate', DENIED, "the token has the role 'operator', which the role 'client' of the certificate of 'client' does not cover: a token may only narrow it"),

    (None, [], 'Join', UNAUTHENTICATED, 'this placement service requires a certificate or a token: give cadrectl --token-file, routers and expert nodes --placement-token-file'),
    (None, [], 'GetStatus', UNAUTHENTICATED, 'this placement service requires a certificate or a token'),
    (None, ['Bearer wrong-token-01234'], 'Join', UNAUTHENTICATED, 'this placement service does not know the token that was sent'),
    ('client', [], 'Join', DENIED, "the certificate of 'client' has the role 'client', which may not call Join: that takes the role 'node'"),
    ('operator', [], 'Join', DENIED, "the certificate of 'operator' has the role 'operator', which may not call Join: that takes the role 'node'"),
    (None, bearer('client'), 'Join', DENIED, "the token of 'carol' has the role 'client', which may not call Join: that takes the role 'node'"),
    (None, bearer('inspect'), 'Join', DENIED, "the token of 'dashboard' has the role 'inspect'"),
    ('expert', [], 'Join', INVALID, 'the first message of a Join stream must be a hello'),
    ('unit', [], 'Join', INVALID, 'the first message of a Join stream must be a hello'),
    (None, bearer('node'), 'Join', INVALID, 'the first message of a Join stream must be a hello'),
    (None, bearer('operator'), 'RecordTrace', OK, ''),
    *[(certificate, headers, method, OK, '') for certificate, headers in [('client', []), ('expert', []), (None, bearer('inspect')), (None, bearer('operator'))]
      for method in READING],
    # one each: the audit log leaves out what is refused more often
    *[(certificate, headers, method, DENIED, f"may not call {method}: that takes the role 'operator'")
      for method, (certificate, headers) in zip(OPERATING, [('client', []), ('expert', []), (None, bearer('inspect')), (None, bearer('client'))])],
    ('operator', [], 'ChangeRebalance', INVALID, 'say what to do with the rebalance'),
]


def audit(cluster):
    lines = [json.loads(line) for line in cluster.placement.log.read_text().splitlines()]
    return [line for line in lines if line['component'] == 'audit']


def test_every_call_has_its_code_and_sentence(files, cluster):
    before = metric(cluster.placement_http, 'cadre_calls_refused_total') + metric(cluster.routers[0].http, 'cadre_calls_refused_total')
    for certificate, headers, method, code, sentence in CALLS:
        target = cluster.placement_grpc if method in PLACEMENT_METHODS else cluster.routers[0].grpc
        got, text = ask(files, target, certificate, headers, method)
        assert got == code and sentence in text, (certificate, headers, method, got, text)
    refused = sum(code in (UNAUTHENTICATED, DENIED) for _, _, _, code, _ in CALLS)
    assert metric(cluster.placement_http, 'cadre_calls_refused_total') + metric(cluster.routers[0].http, 'cadre_calls_refused_total') == before + refused


def test_health_needs_nobody(files, cluster):
    for target in (cluster.routers[0].grpc, cluster.placement_grpc):
        with channel(files, target, None) as connection:
            assert connection.unary_unary('/grpc.health.v1.Health/Check')(b'', timeout=10)


def test_joins_are_in_the_audit_log(cluster):
    """By whom, under which id: one certificate may be several nodes'."""
    joined = {line['node']: (line['role'], line['name'], line['by']) for line in audit(cluster) if line['msg'] == 'joined'}
    assert joined['expert-0'] == ('node', 'expert', 'certificate')
    assert joined['expert-1'] == ('node', 'unit', 'certificate')
    assert joined['expert-2'] == ('node', 'rack', 'token')
    assert joined['router-0'] == ('node', 'router', 'certificate')


def test_an_identity_that_may_not_join_says_so(files, cluster):
    """A client's certificate: in the log of the process, its /readyz, cadrectl status and the audit log. With a node's it joins."""
    why = "the certificate of 'client' has the role 'client', which may not call Join: that takes the role 'node'"
    stray = cluster.add_expert()
    become(stray, files, 'client')
    stray.start()
    wait_for_log(stray, why)
    with pytest.raises(urllib.error.HTTPError) as unready:
        http(stray.http, '/readyz')
    assert f'not joined; placement service at {cluster.placement_grpc}: {why}' in unready.value.read().decode()
    refused = [refusal for refusal in cluster.status()['refused'] if refusal['why'] == why]
    assert [refusal['id'] for refusal in refused] == ['client'], refused
    assert any(line['msg'] == 'refused' and line['why'] == why and line['role'] == 'client' and line['name'] == 'client' and line['method'] == 'Join' for line in audit(cluster))

    stray.stop()
    become(stray, files, 'expert')
    stray.start()
    wait_for_log(stray, 'msg=joined')
    stray.stop()


@pytest.mark.parametrize('options,why', [
    ([], 'this placement service requires a certificate or a token: give cadrectl --token-file, routers and expert nodes --placement-token-file'),
    (['--placement-token-file', 'wrong'], 'this placement service does not know the token that was sent'),
])
def test_a_process_that_nobody_knows_ends_with_a_sentence(files, cluster, options, why):
    for program in ('cadre-router', 'cadre-expert'):
        done = subprocess.run([BIN / program, '--model', MODEL, '--placement', cluster.placement_grpc, '--placement-tls-authority' if program == 'cadre-router' else '--tls-authority', files / 'authority.pem',
                               '--http', '127.0.0.1:0', *(['--grpc', '127.0.0.1:0'] if program == 'cadre-router' else []), *[files / o if o == 'wrong' else o for o in options]],
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and f'placement service at {cluster.placement_grpc}: ' in done.stderr and why in done.stderr, done.stderr


def test_cadrectl_shows_who_it_is(files, cluster):
    status = [BIN / 'cadrectl', 'status', '--placement', cluster.placement_grpc, '--tls-authority', files / 'authority.pem']
    for options, code, words in [(['--token-file', files / 'inspect'], 0, 'expert-2'), (shown(files, 'client'), 0, 'expert-2'),
                                 ([], 1, 'UNAUTHENTICATED: this placement service requires a certificate or a token: give cadrectl --token-file'),
                                 (['--token-file', files / 'wrong'], 1, 'UNAUTHENTICATED: this placement service does not know the token that was sent')]:
        done = subprocess.run([*status, *options], capture_output=True, text=True, timeout=30)
        assert done.returncode == code and words in done.stdout + done.stderr, done


def test_a_replayed_hello_is_refused(files, quiet):
    """Whoever knows the secret gets as far as the settings; whoever only heard the same words does not, because the service's nonce is another."""
    server = reflect.Server(quiet.placement_grpc, files)
    nonce, said = b'n' * 32, None
    sentences = []
    with channel(files, quiet.placement_grpc, 'expert') as connection:
        for _ in range(2):
            report, order = server.message('cadre.v1.NodeReport').__class__, server.message('cadre.v1.NodeOrder').__class__
            reports = [report(challenge={'id': 'replay', 'nonce': nonce})]

            def words():
                yield reports[0]
                while len(reports) < 2:
                    time.sleep(0.005)
                yield reports[1]

            call = connection.stream_stream('/cadre.v1.Placement/Join', report.SerializeToString, order.FromString)(words(), timeout=20)
            challenge = next(call).challenge
            if said is None:
                said = report(hello={'id': 'replay', 'role': 2, 'cluster': 'cadre', 'exchange_version': 3, 'model_fingerprint': quiet.status()['model_fingerprint']})
                said.hello.mac = proof(SECRET.encode(), said.hello, nonce, challenge.nonce)
            reports.append(said)
            with pytest.raises(grpc.RpcError) as refused:
                next(call)
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            sentences.append(refused.value.details())
    server.close()
    assert "node 'replay' runs with the settings ''" in sentences[0]
    assert sentences[1] == "'replay' does not know the cluster secret of this placement service: give both the same --secret-file"
    end = time.monotonic() + 10
    while not (strangers := [line for line in audit(quiet) if line.get('node') == 'replay']):   # written after the answer
        assert time.monotonic() < end, quiet.logs()
        time.sleep(0.01)
    assert [(line['msg'], line['name'], line['why']) for line in strangers] == [('refused', 'expert', sentences[1])]
    assert metric(quiet.placement_http, 'cadre_calls_refused_total{reason="wrong_secret"}') == 1


def test_no_log_shows_a_token(cluster):
    """Last: after all the others have been refused."""
    for process in cluster.processes():
        text = process.log.read_text()
        assert not [token for token in [*TOKENS.values(), 'wrong-token-01234'] if token.split()[0] in text], process.name
