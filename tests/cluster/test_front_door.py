# SPDX-License-Identifier: Apache-2.0
"""./cadre up and down: what scripts rely on. In a directory of its own, beside whatever runs in run/."""
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time

import pytest

import certificates
from cluster import BIN, GOLDEN, ROOT, http

MODEL = GOLDEN / 'mixtral-a' / 'model'


@pytest.fixture
def door(tmp_path):
    """Calls ./cadre; everything is stopped at the end."""
    def call(*arguments, **options):
        return subprocess.run([ROOT / 'cadre', *arguments], env={**os.environ, 'CADRE_RUN': str(tmp_path)}, capture_output=True, text=True, timeout=120, **options)
    call.run = tmp_path
    yield call
    call('down')


def description(door):
    return json.loads((door.run / 'cluster.json').read_text())


def pids(cluster):
    return [cluster['placement']['pid'], *[p['pid'] for p in cluster['routers'] + cluster['experts']]]


def status(cluster):
    return json.loads(subprocess.run([BIN / 'cadrectl', 'status', '--placement', cluster['placement']['grpc'], '-o', 'json'], check=True, capture_output=True, text=True).stdout)


def alive(pid):
    try:
        return open(f'/proc/{pid}/stat').read().rsplit(') ', 1)[1][0] != 'Z'
    except FileNotFoundError:
        return False


def test_up_describes_a_ready_cluster_and_down_stops_it(door):
    done = door('up', '--model', MODEL, '--experts', '2', '--routers', '2', '--capacity-policy', 'drop', '--capacity-factor', '1.0', '--wire', 'f32')
    assert done.returncode == 0, done.stderr
    cluster = description(door)
    assert len(cluster['experts']) == 2 and len(cluster['routers']) == 2
    for address in [cluster['placement']['http'], *[p['http'] for p in cluster['routers'] + cluster['experts']]]:
        http(address, '/readyz')
    assert all(alive(pid) for pid in pids(cluster))
    memory = sum(n['memory_bytes'] for n in status(cluster)['nodes'] if n['role'] == 'expert')
    assert memory < os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')   # they share what is there
    identities = door.run / 'certificates'
    certificates.cluster(identities)
    again = door('up', '--model', MODEL, '--experts', '1', '--certificates', identities)   # another takes its place
    assert again.returncode == 0, again.stderr
    assert not any(alive(pid) for pid in pids(cluster))
    cluster = description(door)
    (door.run / 'run').symlink_to(door.run)
    for command in (['status'], ['wait'], ['generate', '--tokens', '1,2,3', '--max-tokens', '2']):   # they find how the cluster is reached
        done = subprocess.run([BIN / 'cadrectl', *command], cwd=door.run, capture_output=True, text=True)
        assert done.returncode == 0, done
    done = subprocess.run([BIN / 'cadrectl', 'status', '--placement', cluster['placement']['grpc']], capture_output=True, text=True)
    assert done.returncode == 1 and 'it may want TLS' in done.stderr, done
    assert 'is stopped' in door('down').stderr
    again = door('down')
    assert again.returncode == 0 and 'no cluster is running' in again.stderr
    assert not any(alive(pid) for pid in pids(cluster))
    assert not (door.run / 'cluster.json').exists()


def test_demo_in_other_numerics(door):
    done = door('demo', '--numerics', 'int4', '--router-numerics=int8')
    assert done.returncode == 0, done.stderr
    assert 'equal: 48 tokens' in done.stdout and done.stdout.endswith('computed again by model ' + str(ROOT / 'models' / 'demo') + '\n')
    assert 'profile=int4 router=int8' in (door.run / 'log' / 'placement.log').read_text()


def test_down_leaves_strangers_alone(door):
    stranger = subprocess.Popen(['sleep', '60'])
    (door.run / 'processes').write_text(f'router-0 {stranger.pid} 12345\nexpert-0 999999999 1\n')   # pids that have other owners now
    assert door('down').returncode == 0
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_interrupt_stops_what_was_started(door):
    # A shell that was started with SIGINT ignored (in the background of a script) can never trap it: here it is as for a person at a terminal.
    process = subprocess.Popen([ROOT / 'cadre', 'up', '--model', MODEL], env={**os.environ, 'CADRE_RUN': str(door.run)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not (door.run / 'processes').exists() or not (door.run / 'processes').read_text():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    started = [int(line.split()[1]) for line in (door.run / 'processes').read_text().splitlines()] if (door.run / 'processes').exists() else []
    assert process.wait(60) == 130
    assert not any(alive(pid) for pid in started)
    assert not (door.run / 'cluster.json').exists()


def test_nothing_that_the_caller_has_open_stays_open(door):
    """Whoever reads a pipe that ./cadre inherits would wait for its end for as long as the cluster runs."""
    reading, writing = os.pipe()
    done = door('up', '--model', MODEL, '--experts', '1', pass_fds=[writing])
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert select.select([reading], [], [], 10)[0] and os.read(reading, 1) == b''
    os.close(reading)
    for pid in pids(description(door)):
        open_files = [os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')]
        assert str(door.run / 'lock') not in open_files and not any(name.startswith(str(ROOT / 'scripts')) or name == str(ROOT / 'cadre') for name in open_files), open_files


def free_ports(count):
    """The first of so many that follow each other."""
    for port in range(20000, 30000, count):
        try:
            for i in range(count):
                socket.create_server(('127.0.0.1', port + i)).close()
            return port
        except OSError:
            pass
    raise AssertionError('no free ports')


def test_addresses_that_are_given(door):
    """Each further process of a kind has the next port. Another cluster in another directory does not mind."""
    port = free_ports(42)
    at = {name: f'127.0.0.1:{port + 2 * i}' for i, name in enumerate(['grpc', 'http', 'placement-grpc', 'placement-http', 'expert-http', 'expert-exchange'])}
    done = door('up', '--model', MODEL, '--experts', '2', '--routers', '2', *[word for name, address in at.items() for word in (f'--{name}', address)])
    assert done.returncode == 0, done.stderr
    cluster, following = description(door), {name: f'127.0.0.1:{int(address.rsplit(":", 1)[1]) + 1}' for name, address in at.items()}
    assert (cluster['placement']['grpc'], cluster['placement']['http']) == (at['placement-grpc'], at['placement-http'])
    assert [(r['grpc'], r['http']) for r in cluster['routers']] == [(way['grpc'], way['http']) for way in (at, following)]
    assert [e['http'] for e in cluster['experts']] == [at['expert-http'], following['expert-http']]
    ports = [int(e['exchange'].rsplit(':', 1)[1]) for e in cluster['experts']]
    assert [(found - port - 10) // 16 for found in ports] == [0, 1], ports   # of 16, UCX takes any
    env = {**os.environ, 'CADRE_RUN': str(door.run)}
    for command in (['status'], ['generate', '--tokens', '1,2,3', '--max-tokens', '2']):   # CADRE_RUN tells cadrectl, too
        done = subprocess.run([BIN / 'cadrectl', *command], cwd='/', env=env, capture_output=True, text=True)
        assert done.returncode == 0, done
    other = {**os.environ, 'CADRE_RUN': str(door.run / 'other')}
    try:
        done = subprocess.run([ROOT / 'cadre', 'up', '--model', MODEL, '--experts', '1'], env=other, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and 'with the same CADRE_RUN' in done.stderr, done.stderr
        assert all(alive(pid) for pid in pids(cluster))
        taken = subprocess.run([ROOT / 'cadre', 'up', '--model', MODEL, '--experts', '1', '--grpc', at['grpc']], env=other, capture_output=True, text=True, timeout=120)
        assert taken.returncode == 1 and 'router-0 has ended' in taken.stderr and at['grpc'] in taken.stderr, taken.stderr
    finally:
        subprocess.run([ROOT / 'cadre', 'down'], env=other, capture_output=True, timeout=120)
    done = subprocess.run([BIN / 'cadrectl', 'status'], env=other, capture_output=True, text=True)
    assert done.returncode == 2 and f"there is no {door.run}/other/cluster.json here" in done.stderr, done


def test_a_mistake_stops_no_cluster(door):
    assert door('up', '--model', MODEL, '--experts', '1').returncode == 0
    cluster = description(door)
    for mistake in ['--exprts', '2'], ['--expert-thraeds', '2'], ['--placement-leese', '2s'], ['--expert-ucx-devices', 'nope0']:
        done = door('up', '--model', MODEL, *mistake)
        assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith('cadre-') and 'stopping' not in done.stderr, done.stderr
        assert description(door) == cluster and all(alive(pid) for pid in pids(cluster))


def test_a_place_that_is_no_place(tmp_path):
    """A sentence each, and nothing is removed that is not a cluster's."""
    (tmp_path / 'file').touch()
    (tmp_path / 'theirs' / 'log').mkdir(parents=True)
    (tmp_path / 'theirs' / 'log' / 'diary').touch()
    for run, says in ('file/run', "file/run', where a cluster keeps its logs and its state, cannot be written"), ('theirs', "theirs' has a 'log' that is not of a cluster"):
        done = subprocess.run([ROOT / 'cadre', 'up', '--model', MODEL], env={**os.environ, 'CADRE_RUN': str(tmp_path / run)}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and says in done.stderr and all(line.startswith('cadre: ') for line in done.stderr.splitlines()), done.stderr
    assert (tmp_path / 'theirs' / 'log' / 'diary').exists()
    done = subprocess.run([ROOT / 'cadre', 'up', '--model', MODEL], env={**os.environ, 'CADRE_BIN': str(tmp_path)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and f"there is no program cadre-router in '{tmp_path}', which CADRE_BIN names" in done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one source, programs that do nothing, and tools that only write down how they were called."""
    root = tmp_path / 'checkout'
    for folder in ('cmake', 'common', 'embedded', 'expert-svc', 'kernels', 'orchestration', 'proto', 'router-svc', 'build/bin', 'tools'):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / 'cadre', root)
    shutil.copytree(ROOT / 'scripts', root / 'scripts')
    (root / 'CMakeLists.txt').touch()
    (root / 'common' / 'a.c').touch()

    def script(path, text):
        path.write_text('#!/bin/sh\n' + text)
        path.chmod(0o755)

    for program in ('cadre-router', 'cadre-expert', 'cadre-placement', 'cadrectl'):
        script(root / 'build' / 'bin' / program, 'echo it ran >&2; exit 3\n')
    script(root / 'tools' / 'dpkg-query', 'printf installed\n')
    for tool in ('cmake', 'ninja'):
        script(root / 'tools' / tool, f'echo {tool} "$@" >>{tmp_path}/called\n')
    os.utime(root / 'common' / 'a.c', (1, 1))
    os.utime(root / 'CMakeLists.txt', (1, 1))

    def call(**env):
        base = {name: value for name, value in os.environ.items() if not name.startswith('CADRE_')}
        called = tmp_path / 'called'
        called.unlink(missing_ok=True)
        done = subprocess.run([root / 'cadre', 'up', '--model', MODEL], env={**base, 'PATH': f'{root}/tools:{os.environ["PATH"]}', **env}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 3 and 'it ran' in done.stderr, done
        return done.stderr, called.read_text() if called.exists() else ''

    call.root = root
    return call


def test_programs_are_not_older_than_their_sources(checkout):
    said, called = checkout()
    assert 'not older than their sources' in said and 'ninja' in called   # nobody knows yet
    assert checkout() == ('it ran\n', '')
    os.utime(checkout.root / 'common' / 'a.c')
    said, called = checkout()
    assert 'making sure that the programs are not older than their sources' in said and 'cadre-router' in called
    assert checkout() == ('it ran\n', '')
    bin = {'CADRE_BIN': str(checkout.root / 'build' / 'bin')}   # which is the caller's
    said, called = checkout(**bin)
    assert 'may be older than their sources' in said and called == ''
    os.utime(checkout.root / 'common' / 'a.c', (1, 1))
    assert checkout(**bin) == ('it ran\n', '')


def test_certificates_bring_their_secret(door, tmp_path):
    for name in ('authority.pem', 'secret'):
        (tmp_path / name).touch()
    done = door('up', '--model', MODEL, '--certificates', tmp_path, '--secret-file', tmp_path / 'another')
    assert done.returncode == 2 and f'--certificates brings the cluster secret {tmp_path}/secret: leave --secret-file out' in done.stderr, done


@pytest.mark.parametrize('arguments', [['help'], ['--help'], ['up', '--help'], ['test', '-h'], ['build', '--help'], ['down', '--help']], ids=' '.join)
def test_help(door, arguments):
    done = door(*arguments)
    assert done.returncode == 0 and done.stdout.startswith('Usage: ./cadre COMMAND [options]') and done.stderr == '', done


@pytest.mark.parametrize('arguments, says', [
    (['up'], 'up needs --model DIR'),
    (['up', '--modle', 'x'], 'up needs --model DIR; --modle x would go to routers'),
    (['up', '--model'], '--model needs a value'),
    (['up', '--model', str(MODEL), '--grpc'], '--grpc needs a value'),
    (['up', '--model', str(MODEL), '--expert-exchange', 'here'], "--exchange: 'here' is not an address: give HOST:PORT"),
    (['up', '--model', str(MODEL), '--experts', '0'], 'there is no expert node'),
    (['up', '--model', str(MODEL), '--experts', '2', '--expert-memory', '100K'], 'do not fit on 2 expert nodes'),
    (['up', '--model', str(MODEL), '--experts', '1', '--expert-memory', '10K'], '--memory is 10240 bytes, and one expert of this model takes'),
    (['up', '--model', str(MODEL), '--tls-authority', 'a.pem'], 'give --certificates DIR'),
    (['up', '--model', str(MODEL), '--placement-tls-authority', 'a.pem'], 'give --certificates DIR'),
    (['up', '--model', str(MODEL), '--cluster-network', 'lo'], 'start the programs by hand for --cluster-network'),
    (['up', '--model', str(MODEL), '--experts', '1', '--placement-token-file', '/nonexistent'], '/nonexistent'),
    (['up', '--model', str(MODEL), '--certificates', '/nonexistent'], 'has no authority.pem'),
    (['up', '--model', '/nonexistent'], "'/nonexistent' is not a checkpoint"),
    (['up', '--model', str(MODEL), '--experts', 'many'], 'take numbers'),
    (['up', '--model', str(MODEL), '--experts', '1', '--capacity-polcy', 'drop'], 'did you mean --capacity-policy?'),
    (['up', '--model', str(MODEL), '--numerics', 'int8', '--wire', 'f32'], 'cadre-placement: --wire f32 does not go with --numerics int8'),
    (['demo', '--model', str(MODEL), '--numerics', 'int9'], "--numerics"),
    (['demo', '--numerics'], 'demo: --numerics needs a value'),
    (['down', 'now'], 'down takes no options'),
    (['test', 'unit', 'deploy'], "'deploy' runs by itself: ./cadre test deploy"),
    (['test', 'attempts', 'bogus'], 'test attempts takes no arguments'),
    (['bench', 'nonsense'], "there is no benchmark with 'nonsense' in its name"),
    (['dmeo'], "there is no command 'dmeo'"),
])
def test_mistakes_are_told(door, arguments, says):
    done = door(*arguments)
    assert done.returncode != 0
    assert says in done.stderr
