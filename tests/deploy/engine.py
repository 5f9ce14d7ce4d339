# SPDX-License-Identifier: Apache-2.0
"""A container engine for tests: the one that runs, or one that is started for them and leaves nothing behind; and a base image for it."""
import os
import shutil
import subprocess
import tempfile
import time
import pathlib

BASE = 'debian:12-slim'
PULL_S = 120   # a registry that cannot be reached may say nothing at all


class NoEngine(Exception):
    """None runs, and none can be started; the sentence says why."""


def output(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout.strip()


def pulled(image, seconds=PULL_S):
    try:
        return subprocess.run(['docker', 'pull', '-q', image], timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def answers():
    return subprocess.run(['docker', 'info'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30).returncode == 0


class Engine:
    """with Engine() as engine: docker, and docker-compose or `docker compose` of engine.compose, can be called."""

    def __init__(self):
        self.process = self.folder = None

    def __enter__(self):
        if not shutil.which('docker'):
            raise NoEngine('there is no docker')
        try:
            if not answers():
                self.start()
            v2 = subprocess.run(['docker', 'compose', 'version'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
            self.compose = ['docker', 'compose'] if v2 else ['docker-compose']
            if not v2 and not shutil.which('docker-compose'):
                raise NoEngine('there is neither docker compose nor docker-compose')
            self.provide_base()
        except BaseException:
            self.close()
            raise
        return self

    def start(self):
        if os.geteuid() != 0 or not shutil.which('dockerd'):
            raise NoEngine('no container engine answers, and only root can start one' if os.geteuid() else 'there is no dockerd')
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='cadre-engine-'))
        socket = f'unix://{self.folder}/docker.sock'
        with open(self.folder / 'log', 'w') as log:
            self.process = subprocess.Popen(['dockerd', '--data-root', self.folder / 'data', '--exec-root', self.folder / 'exec', '-H', socket,
                                             '-p', self.folder / 'pid'], stdout=log, stderr=log, start_new_session=True)
        os.environ['DOCKER_HOST'] = socket
        deadline = time.monotonic() + 60
        while not answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise NoEngine('dockerd does not start: ' + (self.folder / 'log').read_text().strip().rsplit('\n', 1)[-1])
            time.sleep(0.2)

    def provide_base(self):
        """Pulled, or where there is no registry made of Debian's packages."""
        if subprocess.run(['docker', 'image', 'inspect', BASE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            return
        if pulled(BASE):
            return
        if os.geteuid() != 0 or not shutil.which('debootstrap'):
            raise NoEngine(f'{BASE} cannot be pulled, and debootstrap as root is not there to make it')
        with tempfile.TemporaryDirectory() as root:
            output('debootstrap', '--variant=minbase', 'bookworm', root)
            archive = subprocess.Popen(['tar', '-C', root, '-c', '.'], stdout=subprocess.PIPE)
            output('docker', 'import', '-', BASE, stdin=archive.stdout)
            if archive.wait() != 0:
                raise NoEngine(f'{BASE} cannot be made by debootstrap')

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)
            del os.environ['DOCKER_HOST']
        if self.folder:
            with open('/proc/mounts') as mounts:   # what containers left, deepest first
                for place in sorted((line.split()[1] for line in mounts if line.split()[1].startswith(f'{self.folder}/')), reverse=True):
                    subprocess.run(['umount', place])
            shutil.rmtree(self.folder)

    def __exit__(self, *_):
        self.close()
