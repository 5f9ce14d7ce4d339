# SPDX-License-Identifier: Apache-2.0
"""A cluster of docker-compose.yml, in a folder and under a name of its own."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import grpc

from engine import output
from load import PROMPTS, TOKENS, embedded
from reflect import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Cluster:
    def __init__(self, engine, folder, image):
        """folder: an empty one. It gets docker-compose.yml and what that names; what the image holds is there as image/."""
        self.engine, self.folder, self.image = engine, folder, image
        shutil.copy(ROOT / 'docker-compose.yml', folder)
        (folder / 'orchestration').symlink_to(ROOT / 'orchestration')
        self.routers = [f'127.0.0.1:{free_port()}' for _ in range(2)]
        subnet = f'172.29.{os.getpid() % 250}.0/24'
        self.environment = {**{name: value for name, value in os.environ.items() if not name.startswith('CADRE_')}, 'CADRE_IMAGE': image, 'CADRE_SUBNET': subnet,
                            'CADRE_ROUTER_0': self.routers[0], 'CADRE_ROUTER_1': self.routers[1]}

    def prepare(self):
        """Programs and the model out of the image, for clients on the host; what they should answer."""
        container = output('docker', 'create', self.image)
        output('docker', 'cp', f'{container}:/opt/cadre', self.folder / 'image')
        output('docker', 'rm', container)
        self.cadrectl = self.folder / 'image/bin/cadrectl'
        self.model = self.folder / 'image/models/demo'
        self.expected = {prompt: embedded(self.cadrectl, self.model, prompt) for prompt in PROMPTS}

    def certificates(self):
        """Made, or renewed; docker-compose.yml finds them in .env."""
        output(ROOT / 'scripts/certificates.sh', 'certificates', '--compose', cwd=self.folder)

    # ---- compose ----

    def compose(self, *arguments, **variables):
        """What it says, stderr too; CalledProcessError when it fails."""
        return subprocess.run([*self.engine.compose, *arguments], cwd=self.folder, env={**self.environment, **variables}, check=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout

    def is_v2(self):
        return self.engine.compose[0] == 'docker'

    def containers(self, service):
        """Those that run, by id."""
        labels = [f'label=com.docker.compose.project={self.project()}', f'label=com.docker.compose.service={service}', 'status=running']
        return output('docker', 'ps', '-q', '--no-trunc', *[word for label in labels for word in ('--filter', label)]).split()

    def project(self):
        return re.sub('[^a-z0-9_-]', '', self.folder.name.lower())

    def inspect(self, container, template):
        return output('docker', 'inspect', '-f', template, container)

    def address(self, container):
        return self.inspect(container, f'{{{{(index .NetworkSettings.Networks "{self.project()}_cluster").IPAddress}}}}')

    def until_healthy(self, container, seconds=60):
        deadline = time.monotonic() + seconds
        while self.inspect(container, '{{.State.Health.Status}}') != 'healthy':
            assert time.monotonic() < deadline, f'{container} is not healthy after {seconds} s: ' + output('docker', 'logs', '--tail', '5', container, stderr=subprocess.STDOUT)
            time.sleep(0.1)

    # ---- what is in it ----

    def inside(self, *arguments):
        """cadrectl in a container of the cluster; what it prints. CADRE_HTTP would have `wait` ask one process."""
        return output('docker', 'exec', '-e', 'CADRE_HTTP=', self.containers('placement')[0], 'cadrectl', *arguments)

    def wait(self, experts, routers=2, seconds=60):
        """Until every expert is on a live node."""
        self.inside('wait', '--experts', str(experts), '--routers', str(routers), '--timeout', f'{seconds}s')

    def until_even(self, experts, seconds=60):
        """Until so many live nodes hold about as many experts each, and no expert is on none."""
        self.wait(experts, seconds=seconds)
        deadline = time.monotonic() + seconds
        while True:
            held = [node['experts'] for node in self.status()['nodes'] if node['role'] == 'expert' and node['state'] == 'live']
            if len(held) == experts and min(held) * 2 > max(held):
                return
            assert time.monotonic() < deadline, f'experts on each node: {held}'
            time.sleep(0.1)

    def status(self):
        return json.loads(self.inside('status', '-o', 'json'))

    # ---- clients ----

    def credentials(self, name):
        return grpc.ssl_channel_credentials(*[(self.folder / 'certificates' / file).read_bytes() for file in ('authority.pem', f'{name}.key', f'{name}.pem')])

    def until_answered(self, seconds=60):
        """Until a router answers a prompt, as it should."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                digest = self.generate(PROMPTS[0], TOKENS)['digest']
                break
            except RuntimeError:
                assert time.monotonic() < deadline, 'no answer'
        assert digest == self.expected[PROMPTS[0]], digest

    def learn(self):
        """The messages of Generate, from a router."""
        server = Server(self.routers[0], tls=self.folder / 'certificates')
        self.Request, self.Response = (type(server.message(f'cadre.v1.Generate{name}')) for name in ('Request', 'Response'))
        server.close()

    def client_command(self, command, *arguments):
        certificates = self.folder / 'certificates'
        return [str(self.cadrectl), command, '--router', ','.join(self.routers), '--tls-authority', str(certificates / 'authority.pem'),
                '--tls-certificate', str(certificates / 'client.pem'), '--tls-key', str(certificates / 'client.key'), *arguments]

    def generate(self, prompt, tokens, *arguments):
        done = subprocess.run(self.client_command('generate', '--max-tokens', str(tokens), '--ignore-eos', '-o', 'json', *arguments, prompt), env=self.environment,
                              capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f'cadrectl ended with {done.returncode}: {done.stderr.strip()}')
        return json.loads(done.stdout)
