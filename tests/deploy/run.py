# SPDX-License-Identifier: Apache-2.0
"""Deploys docker-compose.yml for real: builds the image, starts the cluster, breaks, scales, renews and restarts it under load, and stops it.

    ./cadre test deploy [--keep]      --keep: leave the image for the next run, which then builds faster

Prints what each step took. A step that fails ends the run. 77: no container engine can run here.
"""
import argparse
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'cluster')]
sys.dont_write_bytecode = True

from cluster import ROOT, Cluster  # noqa: E402
from engine import BASE, Engine, NoEngine, output  # noqa: E402
from load import PROMPTS, TOKENS, Load  # noqa: E402
from monitoring import monitoring  # noqa: E402

IMAGE = 'cadre-deploy-test'
IMAGE_BYTES_MAX = 45_000_000
CUDA_BYTES_MAX = 8_000_000
EXPERTS, EXPERTS_MORE = 4, 6

# ---- the image ----


def build(tag, *arguments):
    command = ['docker', 'build', '-q', '-t', tag, *arguments, ROOT]
    done = subprocess.run(command, env={**os.environ, 'DOCKER_BUILDKIT': '0'}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def image(world):
    """the image is built"""
    commit = output('git', '-C', ROOT, 'rev-parse', '--short=12', 'HEAD')
    build(IMAGE, '--build-arg', f'COMMIT={commit}')
    size = int(output('docker', 'image', 'inspect', '-f', '{{.Size}}', IMAGE)) - int(output('docker', 'image', 'inspect', '-f', '{{.Size}}', BASE))
    assert size <= IMAGE_BYTES_MAX, f'the image has {size} bytes more than its base, {IMAGE_BYTES_MAX} are enough'
    _, version, built = output('docker', 'run', '--rm', '--network', 'none', '--read-only', IMAGE, 'cadrectl', '--version').split()
    assert built == f'({commit})', f'the programs say that they are {built}, not {commit}'
    label = output('docker', 'image', 'inspect', '-f', '{{index .Config.Labels "org.opencontainers.image.version"}}', IMAGE)
    assert label == version, f'the image says that it is {label}, the programs that they are {version}'
    return f'{size / 1e6:.1f} MB on top of {BASE}'


def expected(world):
    """what it should answer is computed"""
    world.cluster.prepare()


def bare_base(world):
    """the same on a base of glibc alone"""
    libraries = [line.split()[-2] for line in output('ldd', world.cluster.cadrectl).splitlines() if '/ld-linux' in line or ' => /lib' in line]
    base = world.folder / 'base'
    for path in libraries:
        (base / path.lstrip('/')).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, base / path.lstrip('/'))
    archive = subprocess.run(['tar', '-C', base, '-c', '.'], check=True, capture_output=True).stdout
    subprocess.run(['docker', 'import', '-', f'{IMAGE}:glibc'], input=archive, check=True, capture_output=True)
    build(f'{IMAGE}:bare', '--build-arg', f'BASE={IMAGE}:glibc')
    answer = output('docker', 'run', '--rm', '--network', 'none', '--read-only', '--cap-drop', 'ALL', f'{IMAGE}:bare',
                    'cadrectl', 'generate', '--model', '/model', '--max-tokens', str(TOKENS), '--ignore-eos', '-o', 'json', PROMPTS[0])
    assert world.cluster.expected[PROMPTS[0]] in answer, answer
    return f'{len(libraries)} files of glibc, no shell'



def image_with_gpus(world):
    """the image for GPUs, by this machine's nvcc"""
    toolkit = pathlib.Path('/usr/local/cuda')
    if not (toolkit / 'bin/nvcc').exists():
        return f'left out: there is no nvcc in {toolkit}'
    files = ['bin', 'nvvm', 'include', 'lib64/libcudart_static.a', 'lib64/libcudadevrt.a']
    archive = subprocess.Popen(['tar', '-C', toolkit.resolve(), '--transform', 's,^,usr/local/cuda/,', '-c', *files], stdout=subprocess.PIPE)
    output('docker', 'import', '-', f'{IMAGE}:toolkit', stdin=archive.stdout)
    assert archive.wait() == 0
    build(f'{IMAGE}:cuda', '-f', ROOT / 'Dockerfile.cuda', '--build-arg', f'CADRE={IMAGE}', '--build-arg', f'CUDA={IMAGE}:toolkit')
    done = subprocess.run(['docker', 'run', '--rm', '--network', 'none', '--read-only', '--cap-drop', 'ALL', f'{IMAGE}:cuda', 'cadre-expert', '--model', '/model',
                           '--placement', '127.0.0.1:1', '--exchange', '127.0.0.1:0', '--http', '127.0.0.1:0', '--device', 'cuda'], capture_output=True, text=True)
    assert done.returncode == 1 and "device 'cuda': there is no NVIDIA driver here" in done.stderr, done
    environment = output('docker', 'image', 'inspect', '-f', '{{.Config.Env}}', f'{IMAGE}:cuda')
    assert 'NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility' in environment, environment
    more = int(output('docker', 'image', 'inspect', '-f', '{{.Size}}', f'{IMAGE}:cuda')) - int(output('docker', 'image', 'inspect', '-f', '{{.Size}}', IMAGE))
    assert more < CUDA_BYTES_MAX, f'it has {more} bytes more, {CUDA_BYTES_MAX} are enough: is a part of the toolkit in it?'
    return f'{more / 1e6:.1f} MB more; without a driver, a program says so'

# ---- the cluster ----


def refusals(world):
    """wrong variables are refused"""
    cluster = world.cluster

    def refused(sentence, *arguments, **variables):
        try:
            said = cluster.compose(*arguments, **variables)
        except subprocess.CalledProcessError as error:
            said = error.stdout
            assert sentence in said, f'{variables}: not "{sentence}" but: {said}'
        else:
            raise AssertionError(f'{variables} was accepted: {said}')

    refused('run scripts/certificates.sh certificates --compose first', 'config', '-q')
    cluster.certificates()
    cluster.compose('config', '-q')
    refused('scale', 'config', '-q', CADRE_EXPERTS='four')
    refused('hostPort' if cluster.is_v2() else 'router-0.ports', 'config', '-q', CADRE_ROUTER_0='127.0.0.1:x')
    refused('bind source path does not exist', 'run', '--rm', 'cadrectl', 'status', CADRE_CERTIFICATES='elsewhere')
    program = ['run', '--rm', '--no-deps']
    refused('/model', *program, 'placement', CADRE_MODEL=f'{cluster.folder}/empty')   # which the engine makes
    refused("'/run/secrets/cluster_secret'", *program, 'expert', CADRE_USER='12345:12345')
    cluster.compose('down', '-v')


def up(world):
    """up, until a prompt is answered over gRPC"""
    cluster = world.cluster
    cluster.compose('up', '-d')
    cluster.until_answered()
    cluster.learn()
    for container in [c for service in ('placement', 'expert', 'router-0', 'router-1') for c in cluster.containers(service)]:
        cluster.until_healthy(container)
        confined = cluster.inspect(container, '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}')
        assert confined.startswith('true [ALL] ') and not confined.endswith(' 0:0'), confined
        environment = cluster.inspect(container, '{{.Config.Env}}')
        assert 'CADRE_MODEL' not in environment, environment


def from_inside(world):
    """a prompt from a container of the cluster"""
    said = world.cluster.compose('run', '--rm', 'cadrectl', 'generate', '--max-tokens', str(TOKENS), '--ignore-eos', PROMPTS[0])
    assert world.cluster.expected[PROMPTS[0]] in said, said


def expert_killed(world):
    """an expert node is killed in the middle of an answer, and is back"""
    cluster = world.cluster
    answer = {}
    asking = threading.Thread(target=lambda: answer.update(cluster.generate(PROMPTS[1], 1500)))
    asking.start()
    time.sleep(0.5)
    victim = cluster.containers('expert')[0]
    restarts = cluster.inspect(victim, '{{.RestartCount}}')
    kill_process(cluster.inspect(victim, '{{.State.Pid}}'))
    asking.join()
    alone = subprocess.run([cluster.cadrectl, 'generate', '--model', cluster.model, '--max-tokens', '1500', '--ignore-eos', '-o', 'json', PROMPTS[1]],
                           check=True, capture_output=True, text=True).stdout
    assert answer['digest'] in alone, (answer['digest'], alone[-200:])
    cluster.wait(EXPERTS)
    cluster.until_even(EXPERTS)
    assert cluster.inspect(victim, '{{.RestartCount}}') != restarts, 'it was not restarted'


def kill_process(pid):
    """As the kernel kills a process that ran out of memory; after `docker kill`, an engine would not restart the container."""
    output('docker', 'run', '--rm', '--pid', 'host', '--network', 'none', BASE, 'sh', '-c', f'kill -9 {pid}')


def more(world):
    """scaled to 6 expert nodes, which hold experts"""
    world.cluster.compose('up', '-d', '--no-recreate', '--scale', f'expert={EXPERTS_MORE}', 'expert')
    world.cluster.until_even(EXPERTS_MORE)


def monitored(world):
    """the profile monitoring"""
    return monitoring(world.cluster, EXPERTS_MORE + 3)


def renewed(world):
    """certificates are renewed without a restart"""
    cluster = world.cluster

    def shown():
        context = ssl.create_default_context(cafile=cluster.folder / 'certificates/authority.pem')
        context.load_cert_chain(cluster.folder / 'certificates/client.pem', cluster.folder / 'certificates/client.key')
        host, port = cluster.routers[0].split(':')
        with context.wrap_socket(socket.create_connection((host, int(port)), timeout=10), server_hostname='localhost') as connection:
            return connection.getpeercert()['serialNumber']

    before = shown()
    started = [cluster.inspect(c, '{{.State.StartedAt}}') for c in cluster.containers('router-0')]
    cluster.certificates()
    cluster.compose('kill', '-s', 'HUP', 'placement', 'expert', 'router-0', 'router-1')
    assert shown() != before, 'the router shows the certificate of before'
    assert cluster.generate(PROMPTS[0], TOKENS)['digest'] == cluster.expected[PROMPTS[0]]
    assert [cluster.inspect(c, '{{.State.StartedAt}}') for c in cluster.containers('router-0')] == started

# ---- every container is replaced, one after the other, while clients ask ----


def remove(cluster, container):
    output('docker', 'stop', '-t', '40', container)
    code = cluster.inspect(container, '{{.State.ExitCode}}')
    assert code == '0', f'a container ended with {code} when it was stopped'
    output('docker', 'rm', container)


def replace(cluster, service, count=1):
    """Each container of a service, one after the other, by a new one: another id, another address."""
    for container in cluster.containers(service):
        remove(cluster, container)
        before = set(cluster.containers(service))
        cluster.compose('up', '-d', '--no-deps', '--no-recreate', '--scale', f'{service}={count}', service)
        for new in set(cluster.containers(service)) - before:
            cluster.until_healthy(new)
        cluster.until_even(EXPERTS_MORE)


def experts_replaced(world):
    """each expert node is replaced"""
    replace(world.cluster, 'expert', EXPERTS_MORE)


def routers_replaced(world):
    """each router is replaced"""
    for router in ('router-0', 'router-1'):
        replace(world.cluster, router)


def placement_replaced(world):
    """the placement service is replaced, and has another address"""
    cluster = world.cluster
    container = cluster.containers('placement')[0]
    address = cluster.address(container)
    remove(cluster, container)
    squatter = output('docker', 'run', '-d', '--network', f'{cluster.project()}_cluster', '--ip', address, BASE, 'sleep', '600')
    try:
        cluster.compose('up', '-d', '--no-deps', '--no-recreate', 'placement')
        new = cluster.containers('placement')[0]
        cluster.until_healthy(new)
        assert cluster.address(new) != address
        cluster.until_even(EXPERTS_MORE)
    finally:
        output('docker', 'rm', '-f', squatter)


def under_load(steps):
    def run(world):
        with Load(world.cluster) as load:
            for step in steps:
                world.timed(step)
                assert not load.failures(), load.failures()
            time.sleep(1)
        assert not load.failures(), load.failures()
        return load.summary()
    run.__doc__ = 'in all, with 4 clients at a time and no failed request'
    return run


def shared_memory(world):
    """the profile shm, alone"""
    cluster = world.cluster
    down(world)
    cluster.environment['CADRE_ROUTER_SHM'] = cluster.routers[0]
    cluster.compose('up', '-d', 'expert-shm-0', 'expert-shm-1', CADRE_EXPERTS='2')
    cluster.until_answered()
    network = f'/proc/{cluster.inspect(cluster.containers("router-shm")[0], "{{.State.Pid}}")}/net/dev'
    read = ['docker', 'run', '--rm', '--pid', 'host', '--network', 'none', '--user', '0', BASE, 'awk', '/lo:/ { print $2 }', network]
    before = int(output(*read))
    for _ in range(10):
        cluster.generate(PROMPTS[0], TOKENS)
    received = int(output(*read)) - before
    assert received < 100_000, f'{received} bytes went over the network to compute {10 * TOKENS} tokens'
    return f'{received / 10 / TOKENS:.0f} bytes per token over TCP'


def down(world):
    """down"""
    world.cluster.compose('--profile', 'shm', '--profile', 'monitoring', 'down', '-v', '-t', '40')
    left = output('docker', 'ps', '-aq', '--filter', f'label=com.docker.compose.project={world.cluster.project()}')
    assert not left, left


STEPS = [image, expected, bare_base, image_with_gpus, refusals, up, from_inside, expert_killed, more, monitored, renewed,
         under_load([experts_replaced, routers_replaced, placement_replaced]), shared_memory, down]


def show(seconds, what):
    print(f'{seconds:7.1f} s  {what}', flush=True)


class World:
    def __init__(self, engine, folder):
        self.engine, self.folder, self.passed = engine, folder, 0
        (folder / 'compose').mkdir()
        self.cluster = Cluster(engine, folder / 'compose', IMAGE)

    def timed(self, step):
        begun = time.monotonic()
        note = step(self)
        self.passed += 1
        show(time.monotonic() - begun, step.__doc__ + (f': {note}' if note else ''))

    def run(self):
        for step in STEPS:
            try:
                self.timed(step)
            except Exception as error:
                said = error.stdout if isinstance(error, subprocess.CalledProcessError) else ''
                print(f'FAILED: {step.__doc__}: {type(error).__name__}: {error}\n{said or ""}', flush=True)
                self.show_logs()
                return 1
        return 0

    def show_logs(self):
        print(subprocess.run([*self.engine.compose, 'logs', '--tail', '30'], cwd=self.cluster.folder, env=self.cluster.environment, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True).stdout[-20000:], flush=True)

    def close(self, keep):
        subprocess.run([*self.engine.compose, '--profile', 'shm', '--profile', 'monitoring', 'down', '-v', '-t', '5'], cwd=self.cluster.folder, env=self.cluster.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not keep:
            subprocess.run(['docker', 'rmi', '-f', IMAGE, *[f'{IMAGE}:{tag}' for tag in ('bare', 'glibc', 'cuda', 'toolkit')]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            subprocess.run(['docker', 'image', 'prune', '-f', '--filter', 'label=cadre=build'], stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--keep', action='store_true', help='leave the image and what it was built with')
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    begun = time.monotonic()
    try:
        with Engine() as engine, tempfile.TemporaryDirectory(prefix='cadre-deploy-') as folder:
            show(time.monotonic() - begun, 'an engine and a base image')
            world = World(engine, pathlib.Path(folder))
            try:
                code = world.run()
            finally:
                world.close(arguments.keep)
    except NoEngine as why:
        print(f'skipped: deploy: {why}')
        return 77
    print(f'{world.passed} passed, {code} failed, in {time.monotonic() - begun:.0f} s')
    return code


if __name__ == '__main__':
    sys.exit(main())
