# SPDX-License-Identifier: Apache-2.0
"""Hosts that are network namespaces, each with an Ethernet device on one switch, and with name servers of the test's choice."""
import functools
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

from cluster import BIN, Process
from name_server import NameServer

DEVICE = 'eth0'
NETWORK = ['--cluster-network', DEVICE, '--http-plaintext-anywhere']


class Host:
    """A network and a mount namespace, which live as long as a process that holds them; that ends when this one does, however it ends."""

    def __init__(self, name, files):
        self.name, self.address, self.address6 = name, None, None
        self.holder = subprocess.Popen(['unshare', '--net', '--mount', 'sh', '-c', 'mount -t sysfs none /sys && ip link set lo up && echo ready && exec cat'], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != 'ready\n':
            raise OSError('a process cannot have a network and mounts of its own')
        for file in files.iterdir():
            self.run('mount', '--bind', file, f'/etc/{file.name}')

    @property
    def pid(self):
        return str(self.holder.pid)

    def inside(self):
        """The words before a command that run it there, under its own process id. /sys shows the namespace's devices: UCX looks there."""
        return ['nsenter', f'--net=/proc/{self.pid}/ns/net', f'--mount=/proc/{self.pid}/ns/mnt', f'--wdns={os.getcwd()}']

    def run(self, *command, text=None):
        """What it says; `text` is its input."""
        return subprocess.run([*self.inside(), *map(str, command)], check=True, capture_output=True, input=text, text=True).stdout

    def have(self, address, address6):
        """These addresses, and no others."""
        self.run('ip', 'address', 'flush', 'dev', DEVICE)
        self.run('ip', 'address', 'add', f'{address}/24', 'dev', DEVICE)
        self.run('ip', 'address', 'add', f'{address6}/64', 'dev', DEVICE, 'nodad')
        self.run('ip', 'link', 'set', DEVICE, 'up')
        self.address, self.address6 = address, address6

    def counted(self):
        """Packets that its firewall's rules have counted, by chain and by what is said of the rule."""
        rules = [entry['rule'] for entry in json.loads(self.run('nft', '-j', 'list', 'ruleset'))['nftables'] if 'rule' in entry]
        return {(rule['chain'], rule['comment']): next(e['counter']['packets'] for e in rule['expr'] if 'counter' in e) for rule in rules if 'comment' in rule}

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()
        self.holder.stdout.close()


class Hosts:
    """One for each name. The test itself is a host of this network too, at `here`, where its name server may be."""

    def __init__(self, names):
        number = random.randrange(250)   # others may be testing as well
        self.net, self.net6 = f'198.18.{number}', f'fd18:{number:x}:'   # for measurements (RFC 2544): nobody uses it
        self.here = self.address(1)
        self.files = pathlib.Path(tempfile.mkdtemp(prefix='cadre-test-'))
        (self.files / 'resolv.conf').write_text(f'nameserver {self.here}\nsearch test\n')
        (self.files / 'hosts').write_text('127.0.0.1 localhost\n')
        self.hosts, self.switch = {}, None
        try:
            self.make(names, f'cadre-net-{number}')
        except BaseException:
            self.close()
            raise

    def make(self, names, device):
        self.switch = Host('switch', self.files)
        self.switch.run('ip', 'link', 'add', 'switch', 'type', 'bridge')
        self.switch.run('ip', 'link', 'set', 'switch', 'up')
        self.plug('here', device, '1')
        for words in (f'address add {self.here}/24 dev {device}', f'link set {device} up'):
            subprocess.run(['ip', *words.split()], check=True, capture_output=True)
        for last, name in enumerate(names, 2):
            self.hosts[name] = host = Host(name, self.files)
            self.plug(name, DEVICE, host.pid)
            host.have(self.address(last), self.address6(last))

    def plug(self, port, device, where):
        """A cable from a port of the switch to a device where that process is."""
        subprocess.run(['ip', 'link', 'add', device, 'netns', where, 'type', 'veth', 'peer', 'name', port, 'netns', self.switch.pid], check=True, capture_output=True)
        self.switch.run('ip', 'link', 'set', 'dev', port, 'master', 'switch', 'up')

    def address(self, last):
        return f'{self.net}.{last}'

    def address6(self, last):
        return f'{self.net6}:{last}'

    def __getitem__(self, name):
        return self.hosts[name]

    def close(self):
        for host in [*self.hosts.values(), *filter(None, [self.switch])]:
            host.close()
        shutil.rmtree(self.files)


class Site:
    """Hosts, their name server, and processes on them, which end with it."""

    def __init__(self, directory, names):
        self.directory, self.processes, self.hosts = directory, [], Hosts(names)
        self.names = NameServer(self.hosts.here)
        self.names.start()

    def start(self, host, program, *arguments):
        process = Process(f'{program}-{host}-{len(self.processes)}', [*self.hosts[host].inside(), BIN / program, *arguments], self.directory)
        self.processes.append(process)
        return process

    def run(self, host, program, *arguments):
        return subprocess.run([*self.hosts[host].inside(), BIN / program, *map(str, arguments)], capture_output=True, text=True, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.stop()
        self.names.close()
        self.hosts.close()


@functools.cache
def not_root_with(*programs):
    """Why this process is not root with these programs; None if it is."""
    for program in programs:
        if not shutil.which(program):
            return f'there is no program {program}'
    return None if os.geteuid() == 0 else 'only root may create network namespaces'


@functools.cache
def no_hosts(*programs):
    """What is missing for hosts, and for what they run; or None."""
    reason = not_root_with('ip', 'nsenter', 'unshare', *programs)
    if reason:
        return reason
    try:
        Hosts(['probe']).close()
    except (OSError, subprocess.CalledProcessError) as error:
        return f'no network namespaces: {getattr(error, "stderr", None) or error}'
    return None
