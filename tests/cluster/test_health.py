# SPDX-License-Identifier: Apache-2.0
"""Health that tells the truth: cadrectl health, wait and status with their exit codes, and what /readyz says."""
import concurrent.futures
import json
import signal
import subprocess
import time

import pytest

import certificates
from cluster import BIN, GOLDEN, Cluster, cadrectl, free_port, http, metric, until

MODEL = GOLDEN / 'mixtral-a' / 'model'
OK, FAILED, USAGE, NOT_READY, INTERRUPTED = 0, 1, 2, 3, 130


def says(address, *words, seconds=30):
    """Until /readyz is no, with these words."""
    end = time.monotonic() + seconds
    while True:
        done = cadrectl('health', '--http', address, '--ready')
        if done.returncode == NOT_READY and all(word in done.stdout for word in words):
            return done.stdout
        assert time.monotonic() < end, done
        time.sleep(0.05)


@pytest.fixture(scope='module')
def cluster():
    with Cluster(MODEL, experts=2) as running:
        yield running


def test_health_of_each_process(cluster):
    router = cluster.routers[0]
    for where in (['--http', cluster.placement_http], ['--http', cluster.experts[0].http], ['--http', router.http], ['--grpc', router.grpc], ['--grpc', cluster.placement_grpc]):
        for ready in ([], ['--ready']):
            done = cadrectl('health', *where, *ready)
            assert (done.returncode, done.stderr) == (OK, ''), done
            assert done.stdout == f'{where[1]} is {"ready" if ready else "healthy"}\n'
    answer = json.loads(cadrectl('health', '--http', router.http, '--ready', '-o', 'json').stdout)
    assert answer == {'address': router.http, 'asked': 'ready', 'answer': True, 'why': ''}


def test_options_come_from_the_environment(cluster):
    """A container says CADRE_HTTP once: for its process, and for the probe."""
    done = subprocess.run([BIN / 'cadrectl', 'health', '--ready'], capture_output=True, text=True, timeout=30, env={'CADRE_HTTP': cluster.routers[0].http})
    assert done.returncode == OK, done


def test_who_is_asked(cluster):
    """The one that is given most strongly; of those that a container's environment names, HTTP."""
    router, nobody = cluster.routers[0], '127.0.0.1:1'
    everything = {'CADRE_HTTP': router.http, 'CADRE_GRPC': nobody, 'CADRE_PLACEMENT': nobody}
    here = {'CADRE_HTTP': nobody, 'CADRE_GRPC': nobody, 'CADRE_PLACEMENT': nobody}
    for environment, arguments, code, says in (
            (everything, ['health'], OK, f'{router.http} is healthy'), (everything, ['wait'], OK, 'ready after'),
            (everything, ['health', '--grpc', nobody], FAILED, nobody), (here, ['health', '--grpc', router.grpc], OK, f'{router.grpc} is healthy'),
            (everything, ['wait', '--placement', nobody, '--timeout', '300ms'], NOT_READY, f'placement service {nobody}'),
            (here, ['wait', '--placement', cluster.placement_grpc], OK, 'ready after'), (here, ['wait', '--grpc', router.grpc], OK, 'ready after'),
            (everything, ['health', '--grpc', router.grpc, '--generate'], USAGE, '--generate asks over HTTP'),
            ({}, ['wait', '--http', router.http, '--placement', nobody], USAGE, '--http and --placement exclude each other'),
            ({}, ['wait', '--grpc', router.grpc, '--placement', nobody], USAGE, '--grpc and --placement exclude each other'),
            ({}, ['health', '--http', router.http, '--grpc', nobody], USAGE, '--http and --grpc exclude each other')):
        done = subprocess.run([BIN / 'cadrectl', *arguments], capture_output=True, text=True, timeout=30, env=environment)
        assert done.returncode == code and says in done.stdout + done.stderr, (environment, arguments, done)


def test_health_over_tls(tmp_path):
    certificates.authority(tmp_path)
    certificates.issue(tmp_path, 'router', 'IP:127.0.0.1')
    with Cluster(MODEL, experts=1, router_options=certificates.shown(tmp_path, 'router')) as cluster:
        grpc = cluster.routers[0].grpc
        done = cadrectl('health', '--grpc', grpc, '--ready', '--tls-authority', tmp_path / 'authority.pem')
        assert done.returncode == OK, done
        done = cadrectl('health', '--grpc', grpc, '--ready')
        assert done.returncode == FAILED and grpc in done.stderr


def test_what_is_no_answer(cluster, tmp_path):
    nobody = f'127.0.0.1:{free_port()}'
    for arguments, code, says in (
            (['health'], USAGE, 'give --http'), (['health', '--http', 'here'], USAGE, "--http: 'here' is not an address"),
            (['health', '--http', nobody], FAILED, f'{nobody}: Connection refused'), (['health', '--grpc', nobody], FAILED, nobody),
            (['health', '--http', cluster.routers[0].grpc], FAILED, 'this is no answer of HTTP'),
            (['health', '--grpc', cluster.routers[0].http], FAILED, cluster.routers[0].http),
            (['wait'], USAGE, '--placement'), (['wait', '--placement', 'here'], USAGE, "--placement: 'here' is not an address"),
            (['wait', '--http', nobody, '--timeout', '300ms'], NOT_READY, f'waiting: {nobody}: Connection refused'),
            (['wait', '--placement', nobody, '--timeout', '300ms'], NOT_READY, f'waiting: placement service {nobody}')):
        done = cadrectl(*arguments, cwd=tmp_path)
        assert done.returncode == code and says in done.stderr and done.stdout == '', (arguments, done)


def test_a_process_that_does_not_answer_in_time(cluster):
    router = cluster.routers[0]
    router.process.kill(signal.SIGSTOP)
    try:
        for where in (['--http', router.http], ['--grpc', router.grpc]):
            begun = time.monotonic()
            done = cadrectl('health', *where, '--timeout', '300ms')
            assert done.returncode == FAILED and where[1] in done.stderr, done
            assert time.monotonic() - begun < 5
    finally:
        router.process.kill(signal.SIGCONT)
    done = cadrectl('wait', '--placement', cluster.placement_grpc)   # on a busy machine it has lost its lease
    assert done.returncode == OK, done


def test_wait_for_one_process_and_for_the_cluster(cluster):
    router = cluster.routers[0]
    for where in (['--http', router.http], ['--grpc', router.grpc], ['--placement', cluster.placement_grpc, '--experts', 2]):
        done = cadrectl('wait', *where)
        assert done.returncode == OK and done.stdout.startswith('ready after') and done.stderr == '', done
    for options, says in ((['--experts', 3], '2 of 3 expert nodes have joined'), (['--routers', 2], '1 of 2 routers have joined')):
        done = cadrectl('wait', '--placement', cluster.placement_grpc, *options, '--timeout', '2s', '-o', 'json')
        assert done.returncode == NOT_READY and says in done.stderr
        answer = json.loads(done.stdout)
        assert answer['ready'] is False and answer['why'] == says and answer['waited_ms'] >= 2000


def test_wait_begins_before_the_cluster(tmp_path):
    with Cluster(MODEL, experts=2, start=False) as cluster:
        waiting = subprocess.Popen([BIN / 'cadrectl', 'wait', '--placement', cluster.placement_grpc, '--experts', '2'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = waiting.stderr.readline()
        assert line.startswith('cadrectl wait: waiting: placement service'), line
        cluster.start_all()
        out, errors = waiting.communicate(timeout=60)
        assert waiting.returncode == OK and out.startswith('ready after'), errors
        assert cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=2, ignore_eos=True).finish_reason == 1
        assert http(cluster.routers[0].http, '/readyz') == 'ready\n'


def test_interrupt_ends_waiting():
    for where in ('--http', '--placement'):
        waiting = subprocess.Popen([BIN / 'cadrectl', 'wait', where, f'127.0.0.1:{free_port()}'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=20)
        assert waiting.returncode == INTERRUPTED and 'interrupted' in errors


def test_experts_without_a_place_are_told_by_exit_codes():
    with Cluster(MODEL, experts=1, memory='100K', start=False) as cluster:
        cluster.start_all()
        until(lambda: cadrectl('status', '--placement', cluster.placement_grpc).returncode != FAILED)
        until(lambda: [node for node in cluster.status()['nodes'] if node['role'] == 'expert' and node['experts'] > 0])
        done = cadrectl('status', '--placement', cluster.placement_grpc)
        assert done.returncode == NOT_READY and 'ATTENTION: no node holds' in done.stdout, done
        assert cadrectl('status', '--placement', cluster.placement_grpc, '-o', 'json').returncode == NOT_READY
        done = cadrectl('health', '--http', cluster.placement_http, '--ready')
        assert done.returncode == NOT_READY and 'is not ready: ' in done.stdout and 'do not fit on 1 expert node:' in done.stdout, done
        done = cadrectl('health', '--http', cluster.placement_http)
        assert done.returncode == OK, done
        done = cadrectl('wait', '--placement', cluster.placement_grpc, '--timeout', '2s')
        assert done.returncode == NOT_READY and 'experts are on no node' in done.stderr, done
        done = cadrectl('health', '--grpc', cluster.routers[0].grpc, '--ready')
        assert done.returncode == NOT_READY and 'NOT_SERVING' in done.stdout, done


def test_readyz_names_a_refused_secret(tmp_path):
    secrets = []
    for name in ('one', 'other'):
        secrets.append(tmp_path / name)
        secrets[-1].write_text(f'the secret of the {name} kind\n')
        secrets[-1].chmod(0o600)
    with Cluster(MODEL, experts=1, routers=2, placement_options=['--secret-file', secrets[0]], expert_options=['--secret-file', secrets[1]], start=False) as cluster:
        cluster.routers[0].process.arguments += ['--secret-file', str(secrets[0])]
        cluster.start_all()
        says(cluster.routers[0].http, 'waiting for expert nodes')
        says(cluster.routers[1].http, 'not joined', "'router-1' has no cluster secret")
        says(cluster.experts[0].http, 'not joined', "'expert-0' does not know the cluster secret")
        assert cadrectl('health', '--http', cluster.experts[0].http).returncode == OK


def test_readyz_names_who_is_waited_for_and_what_placement_refuses():
    with Cluster(MODEL, experts=1, start=False) as cluster:
        router, expert = cluster.routers[0], cluster.experts[0]
        router.process.start()
        expert.start()
        says(router.http, 'waiting for the placement service', cluster.placement_grpc)
        says(expert.http, 'waiting for the placement service', cluster.placement_grpc)
        cluster.placement.start()
        cluster.wait_ready()

        twin, other = cluster.add_router(), cluster.add_expert()
        for process, name in ((twin.process, 'router'), (other, 'expert')):
            process.arguments[process.arguments.index(f'{name}-1')] = f'{name}-0'
        twin.process.start()
        other.start()
        says(twin.http, 'not joined', "'router-0' is already in use")
        says(other.http, 'not joined', "'expert-0' is already in use")

        expert.kill(signal.SIGKILL)   # a router that has been ready stays so, and a new one says what is missing
        other.stop()
        twin.process.stop()
        late = cluster.add_router()
        late.process.start()
        says(late.http, 'waiting for expert nodes')
        assert http(router.http, '/readyz') == 'ready\n'


def test_generating_is_more_than_connected():
    """A router that has been ready stays so when nodes die, because clients may wait; whether tokens come out is another question."""
    with Cluster(MODEL, experts=2) as cluster:
        router = cluster.routers[0]
        always = cluster.add_router(['--ready-means', 'generating'])
        done = cadrectl('wait', '--placement', cluster.placement_grpc, '--routers', 2, '--generate')
        assert done.returncode == OK, done
        assert http(router.http, '/readyz?generate') == 'generating\n'
        assert http(router.http, '/readyz') == 'ready\n'
        assert http(always.http, '/readyz') == 'generating\n'

        for expert in cluster.experts:
            expert.kill()
        time.sleep(1.1)   # what was computed before is no answer any more
        begun = time.monotonic()
        done = cadrectl('health', '--http', router.http, '--generate', '--timeout', '10s')
        assert done.returncode == NOT_READY and 'is not generating: no token' in done.stdout and 'expert nodes: ' in done.stdout, done
        assert 1.5 < time.monotonic() - begun < 8
        says(always.http, 'is not ready: no token')
        assert http(router.http, '/readyz') == 'ready\n'
        assert cadrectl('wait', '--http', router.http, '--generate', '--timeout', '1s').returncode == NOT_READY

        for expert in cluster.experts:
            expert.popen.wait()
            expert.start()
        done = cadrectl('wait', '--placement', cluster.placement_grpc, '--experts', 2, '--routers', 2, '--generate')
        assert done.returncode == OK, done


def test_probes_load_nobody(cluster):
    router = cluster.routers[0]
    before = {name: metric(router.http, name) for name in ('cadre_router_trials_total', 'cadre_router_requests_total', 'cadre_router_requests_finished_total', 'cadre_router_generate_total')}
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:   # all of them, for 2 s
        def probe(_):
            while time.monotonic() < begun + 2:
                assert http(router.http, '/readyz?generate') == 'generating\n'
        list(pool.map(probe, range(6)))
    seconds = time.monotonic() - begun
    assert 1 <= metric(router.http, 'cadre_router_trials_total') - before.pop('cadre_router_trials_total') <= seconds + 1
    assert {name: metric(router.http, name) for name in before} == before
    assert metric(router.http, 'cadre_router_streams') == 0


def test_a_busy_router_computes_nothing_for_probes(cluster):
    router = cluster.routers[0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(router.generate, tokens=[1, 2, 3], max_tokens=3000, ignore_eos=True)
        until(lambda: metric(router.http, 'cadre_router_sequences_running') == 1)
        assert http(router.http, '/readyz?generate') == 'generating\n'
        before, asked = metric(router.http, 'cadre_router_trials_total'), 0
        while not running.done():
            assert http(router.http, '/readyz?generate') == 'generating\n'
            asked += 1
        assert metric(router.http, 'cadre_router_trials_total') == before and asked > 0
        assert running.result().usage.generated_tokens == 3000


def test_who_generates_nothing_says_so(cluster):
    for address in (cluster.placement_http, cluster.experts[0].http):
        done = cadrectl('health', '--http', address, '--generate')
        assert done.returncode == FAILED and 'this process generates nothing' in done.stderr, done
    done = cadrectl('health', '--grpc', cluster.routers[0].grpc, '--generate')
    assert done.returncode == USAGE and '--generate asks over HTTP' in done.stderr, done
