# SPDX-License-Identifier: Apache-2.0
"""./cadre up and down: what scripts rely on. In a directory of its own, beside whatever runs in run/."""
import json
import os
import signal
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


def test_certificates_bring_their_secret(door, tmp_path):
    for name in ('authority.pem', 'secret'):
        (tmp_path / name).touch()
    done = door('up', '--model', MODEL, '--certificates', tmp_path, '--secret-file', tmp_path / 'another')
    assert done.returncode == 2 and f'--certificates brings the cluster secret {tmp_path}/secret: leave --secret-file out' in done.stderr, done


@pytest.mark.parametrize('arguments, says', [
    (['up'], 'up needs --model DIR'),
    (['up', '--model'], '--model needs a value'),
    (['up', '--model', str(MODEL), '--experts', '0'], 'there is no expert node'),
    (['up', '--model', str(MODEL), '--experts', '2', '--expert-memory', '100K'], 'do not fit on 2 expert nodes'),
    (['up', '--model', str(MODEL), '--experts', '1', '--expert-memory', '10K'], 'one expert of this model takes 49152'),
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
