# SPDX-License-Identifier: Apache-2.0
"""TLS on every hop of gRPC: who joins and who does not, with the sentences; certificates that are replaced while all of it runs."""
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error

import grpc
import pytest

import certificates
from cluster import BIN, GOLDEN, Cluster, Process, embedded, free_port, http, lines_with, metric, wait_for_log

MODEL = GOLDEN / 'olmoe-a' / 'model'
NAMES = ('placement', 'router', 'expert', 'operator', 'client')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A cluster's certificates, and in others/ those of another one."""
    directory = tmp_path_factory.mktemp('tls')
    certificates.cluster(directory)
    certificates.cluster(directory / 'others')
    certificates.issue(directory, 'late', 'IP:127.0.0.1', days=-1)
    return directory


def install(directory, name, data):
    """As somebody should who replaces a file that others read."""
    (directory / f'{name}.new').write_bytes(data)
    (directory / f'{name}.new').rename(directory / name)


class Load:
    """Generations, one after the other, each on a connection of its own, with whatever identity is in force."""

    def __init__(self, router, request, identity):
        self.router, self.request, self.identity = router, request, identity   # authority, key, certificate
        self.done, self.failed, self.stopped = 0, [], False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopped:
            with grpc.secure_channel(self.router.grpc, grpc.ssl_channel_credentials(*self.identity), options=[('grpc.use_local_subchannel_pool', 1)]) as channel:
                try:
                    list(channel.unary_stream('/cadre.v1.Inference/Generate')(self.request, timeout=30))
                    self.done += 1
                except grpc.RpcError as error:
                    self.failed.append(error.details())

    def some(self, count=3):
        """Waits for a few more of them."""
        wanted, end = self.done + count, time.monotonic() + 30
        while self.done < wanted:
            assert not self.failed and time.monotonic() < end, self.failed
            time.sleep(0.01)

    def stop(self):
        self.stopped = True
        self.thread.join()
        assert not self.failed, self.failed


def new_files(cluster, count):
    """Everybody reads its files again. Each member has then taken up new ones so often."""
    for process in cluster.processes():
        process.kill(signal.SIGHUP)
    for process in (*cluster.experts, cluster.routers[0].process):
        wait_for_log(process, 'msg="new TLS files', seconds=20, times=count)


def joins_again(cluster, *members):
    """The placement service dies, and is back; then they join it once more."""
    cluster.placement.kill()
    cluster.placement.stop()
    joined = [len(lines_with(process, 'msg=joined')) for process in members]
    cluster.placement.start()
    end = time.monotonic() + 20
    for process, before in zip(members, joined):
        wait_for_log(process, 'msg=joined', seconds=end - time.monotonic(), times=before + 1)


def test_certificates_of_another_authority_are_taken_up_under_load(files, tmp_path):
    live, others = tmp_path / 'live', files / 'others'
    shutil.copytree(files, live, ignore=shutil.ignore_patterns('others'))
    both = (files / 'authority.pem').read_bytes() + (others / 'authority.pem').read_bytes()
    with Cluster(MODEL, experts=2, tls=live) as cluster:
        router = cluster.routers[0]
        expected = embedded(MODEL, [1, 2, 3], 8)['digest']
        assert router.generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest == expected
        assert len(cluster.status()['nodes']) == 3
        for address in (cluster.placement_http, router.http, cluster.experts[0].http):
            days = (metric(address, 'cadre_tls_certificate_expires_seconds') - time.time()) / 86400
            assert 363 < days < 366, days

        request = router.request([1, 2, 3], max_tokens=8, ignore_eos=True).SerializeToString()
        load = Load(router, request, [both, *[(files / f'client.{kind}').read_bytes() for kind in ('key', 'pem')]])
        pids = [process.popen.pid for process in cluster.processes()]
        try:
            # first everybody trusts both, then everybody is somebody else, then nobody trusts the old one
            install(live, 'authority.pem', both)
            new_files(cluster, 1)
            load.some()
            for name in NAMES:
                for kind in ('key', 'pem'):
                    install(live, f'{name}.{kind}', (others / f'{name}.{kind}').read_bytes())
            new_files(cluster, 2)
            load.some()
            load.identity = [both, *[(others / f'client.{kind}').read_bytes() for kind in ('key', 'pem')]]
            load.some()
            install(live, 'authority.pem', (others / 'authority.pem').read_bytes())
            new_files(cluster, 3)
            load.some()

            # and all of them find together again
            joins_again(cluster, *cluster.experts, router.process)
            load.some()
        finally:
            load.stop()
        assert [process.popen.pid for process in cluster.processes()][1:] == pids[1:] and all(process.alive() for process in cluster.processes())
        done = subprocess.run([BIN / 'cadrectl', 'status', '--placement', cluster.placement_grpc, '--tls-authority', others / 'authority.pem', *certificates.shown(files, 'client')],
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and 'it may not accept the certificate that was presented' in done.stderr, done


def test_files_that_do_not_belong_together_leave_the_old_ones(files, tmp_path):
    """On the way of a member to the placement service, too."""
    live = tmp_path / 'live'
    shutil.copytree(files, live)
    with Cluster(MODEL, experts=1, tls=live) as cluster:
        expert = cluster.experts[0]
        install(live, 'expert.pem', (files / 'operator.pem').read_bytes())
        expert.kill(signal.SIGHUP)
        wait_for_log(expert, 'the TLS files cannot be used: the old ones stay in force')
        assert 'side=client' in expert.log.read_text() and 'does not belong to the certificate' in expert.log.read_text()
        assert metric(expert.http, 'cadre_rereads_total{result="failed"}') == 1
        joins_again(cluster, expert)


# ---- who does not get in ----

class Late(threading.Thread):
    """A TLS server whose certificate has expired: ours do not start with one."""

    def __init__(self, files):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files / 'late.pem', files / 'late.key')
        self.context.set_alpn_protocols(['h2'])
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.address = f'127.0.0.1:{self.listener.getsockname()[1]}'
        self.start()

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            try:
                self.context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()


def unready(address):
    try:
        http(address, '/readyz')
    except urllib.error.HTTPError as answer:
        return answer.read().decode()
    except OSError:
        return ''
    raise AssertionError('it is ready')


def shows(files, name=None, authority='authority.pem'):
    return [*(certificates.shown(files, name) if name else []), '--tls-authority', files / authority]


def test_who_is_not_let_in_is_told_why(files, tmp_path):
    """A member says it in its log and on /readyz, cadrectl when it is asked."""
    def placement(name, *options):
        grpc_address = f'127.0.0.1:{free_port()}'
        return Process(name, [BIN / 'cadre-placement', '--model', MODEL, '--grpc', grpc_address, '--http', '127.0.0.1:0', *options], tmp_path), grpc_address

    mutual, plain, nameless = placement('mutual', *shows(files, 'placement')), placement('plain'), placement('nameless', *shows(files, 'expert'))
    late = Late(files)
    cases = [
        (mutual[1], [], 'the server ended the connection: it may want TLS'),
        (mutual[1], shows(files), 'it may want a certificate, and none was presented (--tls-certificate)'),
        (mutual[1], [*certificates.shown(files / 'others', 'expert'), *shows(files)], 'it may not accept the certificate that was presented: another authority, or expired'),
        (mutual[1], shows(files, 'expert', 'others/authority.pem'), "the server's certificate is not from an authority that is trusted here, or has expired"),
        (late.address, shows(files, 'expert'), "the server's certificate is not from an authority that is trusted here, or has expired"),
        (plain[1], shows(files, 'expert'), 'the server does not speak TLS'),
        (nameless[1], shows(files, 'expert'), "the server's certificate does not have the name by which it is called here"),
    ]
    members = []
    for i, (address, options, _) in enumerate(cases):
        at, program = f'127.0.0.1:{free_port()}', ['cadre-expert']
        if i % 2:   # a router, that shows this to the placement service alone
            program = ['cadre-router', '--grpc', '127.0.0.1:0']
            options = [str(word).replace('--tls', '--placement-tls') for word in options]
        members.append((Process(f'member-{i}', [BIN / program[0], *program[1:], '--model', MODEL, '--placement', address, '--http', at, *options], tmp_path), at))
    try:
        for (address, options, says), (process, at) in zip(cases, members):
            wait_for_log(process, says)
            end = time.monotonic() + 10
            while says not in unready(at):
                assert process.alive() and time.monotonic() < end, (says, unready(at))
                time.sleep(0.02)
            done = subprocess.run([BIN / 'cadrectl', 'status', '--placement', address, *options], capture_output=True, text=True, timeout=30)
            assert done.returncode == 1 and says in done.stderr, done
    finally:
        for process in [*(member[0] for member in members), mutual[0], plain[0], nameless[0]]:
            process.kill()
            process.stop()
