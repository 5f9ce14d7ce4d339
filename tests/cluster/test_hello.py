# SPDX-License-Identifier: Apache-2.0
"""Who may talk to whom: secrets, checkpoints, addresses; and what a process says when it may not, or cannot start at all."""
import concurrent.futures
import json
import re
import signal
import subprocess
import time
import urllib.error

import pytest

from cluster import BIN, GOLDEN, Cluster, Process, free_port, http, lines_with, metric, wait_for_log

MODEL = GOLDEN / 'mixtral-a' / 'model'
OTHER = GOLDEN / 'olmoe-a' / 'model'
NOWHERE = '/nowhere-at-all'


@pytest.fixture
def secrets(tmp_path):
    files = []
    for name, text in (('right', 'a secret of the right kind'), ('wrong', 'a secret of another kind')):
        file = tmp_path / name
        file.write_text(text + '\n')
        file.chmod(0o600)
        files.append(str(file))
    return files


def test_cluster_secret(secrets):
    right, wrong = secrets
    with Cluster(MODEL, experts=2, router_options=['--secret-file', right], expert_options=['--secret-file', right], placement_options=['--secret-file', right]) as cluster:
        digest = cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=4, ignore_eos=True).digest
        for options in ([], ['--secret-file', wrong]):
            stranger = cluster.add_router()
            stranger.process.stop()
            arguments = [a for a in stranger.process.arguments if a not in ('--secret-file', right)] + options
            stranger.process.arguments = arguments
            stranger.process.start()
            end = time.monotonic() + 20
            while 'secret' not in stranger.process.log.read_text():
                assert time.monotonic() < end, stranger.process.log.read_text()[-2000:]
                time.sleep(0.05)
            with pytest.raises(OSError):
                http(stranger.http, '/readyz')
            stranger.process.stop()
        assert cluster.routers[0].generate(tokens=[1, 2, 3], max_tokens=4, ignore_eos=True).digest == digest


def run(*arguments, seconds=30):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)


def generate(*routers):
    return run(BIN / 'cadrectl', 'generate', '--router', ','.join(r.grpc for r in routers), '--tokens', '1,2,3', '--max-tokens', 4, '--ignore-eos', '-o', 'json')


def test_settings_that_a_router_is_given_in_a_cluster():
    """They are the placement service's; what has no effect is not passed over in silence."""
    with Cluster(MODEL, experts=1, router_options=['--numerics', 'int8']) as cluster:
        router = cluster.routers[0]
        wait_for_log(router.process, 'the placement service says this" option=numerics from=flag')
        assert json.loads(generate(router).stdout)['settings'].startswith('profile=f32 ')


def test_a_refused_router_sends_its_clients_on(secrets):
    """It would never answer them; they are told at once, in the words of /readyz. With the secret it serves."""
    with_secret = ['--secret-file', secrets[0]]
    with Cluster(MODEL, experts=1, router_options=with_secret, expert_options=with_secret, placement_options=with_secret) as cluster:
        good = cluster.routers[0]
        digest = json.loads(generate(good).stdout)['digest']
        cluster.router_options = []
        bad = cluster.add_router()
        wait_for_log(bad.process, 'has no cluster secret')
        with pytest.raises(urllib.error.HTTPError) as unready:
            http(bad.http, '/readyz')
        why = unready.value.read().decode().strip()
        assert f'not joined; placement service at {cluster.placement_grpc}: ' in why and 'has no cluster secret' in why
        began = time.monotonic()
        done = generate(bad, good)
        seconds = time.monotonic() - began
        assert done.returncode == 0 and json.loads(done.stdout)['digest'] == digest, done
        assert why in done.stderr and 'trying the next' in done.stderr, done.stderr
        assert seconds < 2, seconds
        done = generate(bad)
        assert done.returncode == 1 and why in done.stderr, done
        assert metric(bad.http, 'cadre_router_generate_total{code="UNAVAILABLE"}') == 2

        bad.process.stop()
        bad.process.arguments += with_secret
        bad.process.start()
        cluster.wait_ready()
        done = generate(bad)
        assert done.returncode == 0 and json.loads(done.stdout)['digest'] == digest, done


def test_a_router_that_waits_for_others_takes_requests():
    """Not refused: what comes before the first expert node is answered when there is one."""
    with Cluster(MODEL, experts=1, start=False) as cluster:
        cluster.placement.start()
        router = cluster.routers[0]
        router.process.start()
        wait_for_log(router.process, 'msg=joined')
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(generate, router)
            end = time.monotonic() + 20
            while metric(router.http, 'cadre_router_streams') < 1:
                assert time.monotonic() < end and not answer.done(), cluster.logs()
                time.sleep(0.02)
            cluster.experts[0].start()
            assert answer.result().returncode == 0, answer.result()


def test_other_checkpoint_is_refused_with_both_fingerprints():
    with Cluster(MODEL, experts=1) as cluster:
        for program, options in (('cadre-expert', ['--exchange', '127.0.0.1:0']), ('cadre-router', ['--grpc', '127.0.0.1:0'])):
            done = run(BIN / program, '--model', OTHER, '--placement', cluster.placement_grpc, '--http', '127.0.0.1:0', *options)
            assert done.returncode == 1, done.stderr
            assert 'checkpoint' in done.stderr and str(OTHER) in done.stderr and 'same files' in done.stderr, done.stderr


def wait_for_settings(placement, times):
    """What it logged as its settings when it started for the times-th time."""
    wait_for_log(placement, 'msg=settings', times=times)
    return re.search(r'settings="([^"]*)"', lines_with(placement, 'msg=settings')[times - 1])[1]


def test_other_settings_are_refused_with_both():
    """The placement service comes back with other settings: a router and an expert node that run with those of before are refused, and both sides' logs say both."""
    with Cluster(MODEL, experts=1) as cluster:
        before = wait_for_settings(cluster.placement, 1)
        cluster.placement.stop()
        cluster.placement.arguments += ['--numerics', 'int8', '--router-numerics', 'f32', '--kv', 'bf16']
        cluster.placement.start()
        after = wait_for_settings(cluster.placement, 2)
        assert before.startswith('profile=f32 router=f32 ') and after.startswith('profile=int8 router=f32 wire=q8 weights=f32 kv=bf16 ')
        for process in (cluster.experts[0], cluster.routers[0].process):
            for log in (process, cluster.placement):
                wait_for_log(log, f"node '{process.name}' runs with the settings '{before}'")
                [line, *_] = lines_with(log, f"node '{process.name}' runs with the settings")
                assert f"but this cluster with '{after}'" in line and "restart it, and it takes the cluster's settings" in line, line


@pytest.mark.parametrize('arguments,words', [
    (['cadre-router', '--model', MODEL], ['--placement', '--local-experts']),
    (['cadre-router', '--modle', MODEL], ['--modle', '--model']),
    (['cadre-router', '--model', '/nowhere', '--local-experts', '--http', '127.0.0.1:0'], ['/nowhere']),
    (['cadre-router', '--model', MODEL, '--local-experts', '--http', '127.0.0.1:0', '--grpc', '0.0.0.0:0'], ['0.0.0.0:0', '--grpc-plaintext-anywhere']),
    (['cadre-router', '--model', MODEL, '--local-experts', '--http', '0.0.0.0:0'], ['--http 0.0.0.0:0', '--http-plaintext-anywhere']),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--http', '0.0.0.0:0'], ['--http 0.0.0.0:0', '--http-plaintext-anywhere']),
    (['cadre-placement', '--model', MODEL, '--http', '0.0.0.0:0'], ['--http 0.0.0.0:0', '--http-plaintext-anywhere']),
    (['cadre-router', '--model', MODEL, '--local-experts', '--capacity-policy', 'drpo'], ['drpo', 'drop']),
    (['cadre-router', '--model', MODEL, '--local-experts', '--http', '127.0.0.1:0', '--kv-memory', '5K'], ['--kv-memory']),
    (['cadre-expert', '--model', MODEL], ['--placement']),
    (['cadre-placement'], ['--model']),
    (['cadre-placement', '--model', MODEL, '--wire', 'f16'], ['f16', 'fix16']),
    (['cadre-placement', '--model', MODEL, '--numerics', 'fp8'], ['fp8', 'int8']),
    (['cadre-placement', '--model', MODEL, '--numerics', 'int8', '--wire', 'f32', '--check-config'], ['--wire f32', '--numerics int8']),
    (['cadre-placement', '--model', MODEL, '--numerics', 'bf16', '--wire', 'fix16', '--check-config'], ['--wire fix16', '--numerics bf16', 'bf16 alone']),
    (['cadre-router', '--model', MODEL, '--local-experts', '--wire', 'q8', '--check-config'], ['--wire q8', '--numerics f32']),
    (['cadrectl', 'generate', '--model', MODEL, '--tokens', '1', '--numerics', 'int4', '--weights', 'bf16'], ['--weights bf16', '--numerics int4']),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--numerics', 'int8', '--check-config'], ['--numerics']),
    *[(['cadrectl', *command, *settings], words)
      for command in (['eval', '--model', NOWHERE, '--input', '/nowhere.json', '--output', '/tmp/x'], ['verify', '--model', NOWHERE, '/nowhere.json'],
                      ['generate', '--model', NOWHERE, '--tokens', '1'])
      for settings, words in ((['--numerics', 'int8', '--wire', 'bf16'], ['--wire bf16', '--numerics int8']),
                              (['--numerics', 'int8', '--weights', 'bf16'], ['--weights bf16', '--router-numerics int8']))],
    (['cadrectl', 'model', 'inspect', NOWHERE, '--numerics', 'int4', '--weights', 'bf16'], ['--weights bf16', '--numerics int4']),
    (['cadrectl', 'generat'], ['generate']),
    (['cadrectl', 'generate', '--model', MODEL, '--tokens', '1,x'], ["'x'", '--tokens']),
    (['cadrectl', 'eval', '--model', MODEL, '--input', '/nowhere.json', '--output', '/tmp/x'], ['/nowhere.json']),
])
def test_wrong_words_get_a_sentence(arguments, words):
    done = run(BIN / arguments[0], *arguments[1:])
    assert done.returncode in (1, 2) and done.stdout == ''
    assert NOWHERE not in arguments or NOWHERE not in done.stderr   # nothing was read yet
    for word in words:
        assert word in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr


def test_ctrl_c_while_waiting_for_placement():
    process = subprocess.Popen([BIN / 'cadre-router', '--model', MODEL, '--placement', f'127.0.0.1:{free_port()}', '--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    assert 'waiting for the placement service' in line
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and 'interrupted' in errors


def test_processes_that_wait_are_alive_and_not_ready(tmp_path):
    """Without a placement service a router and an expert node wait: HTTP says that they live, that they are not ready, and SIGTERM ends them."""
    nowhere = f'127.0.0.1:{free_port()}'
    for program, options in (('cadre-router', ['--grpc', f'127.0.0.1:{free_port()}']), ('cadre-expert', [])):
        address = f'127.0.0.1:{free_port()}'
        process = Process(program, [BIN / program, '--model', MODEL, '--placement', nowhere, '--http', address, *options], tmp_path)
        end = time.monotonic() + 20
        while True:
            try:
                http(address, '/healthz')
                break
            except OSError:
                assert process.alive() and time.monotonic() < end, process.log.read_text()
                time.sleep(0.02)
        with pytest.raises(OSError, match='503'):
            http(address, '/readyz')
        assert process.alive()
        assert process.stop() == 0
