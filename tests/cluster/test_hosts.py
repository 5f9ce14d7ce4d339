# SPDX-License-Identifier: Apache-2.0
"""Six hosts that call each other by names, with TLS on every hop of gRPC, each behind a firewall that lets through what docs/OPERATIONS.md lists, and no more."""
import json
import re

import certificates
import pytest
from cluster import ROOT, embedded, metric
from hosts import NETWORK, Site, no_hosts

MODEL = ROOT / 'models' / 'demo'
PROMPT = [5, 6, 7]
ROLES = {'placement': {'placement'}, 'router': {'router'}, 'expert': {'expert'}, 'client': {'client', 'operator'}}
HOSTS = ['placement', 'router-0', 'router-1', 'expert-0', 'expert-1', 'client']


def role_of(name):
    return name.split('-')[0]


def documented():
    """(from, to, port) of the table."""
    page = (ROOT / 'docs' / 'OPERATIONS.md').read_text()
    section = page.split('### Ports for firewalls\n')[1].split('\n### ')[0]
    return re.findall(r'^\| (\w+) \| (\w+) \| ([\d-]+) \|', section, re.MULTILINE)


def firewall(roles):
    """Rules for nft, which count what they let through by port, and what they refuse."""
    def chain(hook, ports):
        lines = [f'tcp dport {port} counter accept comment "{port}"' for port in sorted(ports)]
        return '\n'.join([f'chain {hook} {{', f'type filter hook {hook} priority 0; policy drop;', 'meta oif lo accept' if hook == 'output' else 'meta iif lo accept', 'meta l4proto { icmp, ipv6-icmp } accept',
                          'ct state established,related accept', 'ct state invalid drop', *lines, 'udp dport 53 accept', 'counter drop comment "refused"', '}'])
    rows = documented()
    return '\n'.join(['table inet cadre {', chain('input', {port for _, to, port in rows if to in roles}), chain('output', {port for of, _, port in rows if of in roles}), '}', ''])


class Cluster(Site):
    def __init__(self, directory):
        super().__init__(directory, HOSTS)
        certificates.cluster(directory)
        for name in HOSTS:
            self.hosts[name].run('nft', '-f', '-', text=firewall(ROLES[role_of(name)]))
            self.point(name, self.hosts[name].address)

    def point(self, name, address):
        self.names.records[f'{name}.test'] = [address]

    def identity(self, name):
        return certificates.identity(self.directory, name)

    def member(self, name):
        role = role_of(name)
        return self.start(name, f'cadre-{role}', '--model', MODEL, '--placement', 'placement:7300', '--id', name, '--threads', 1, *NETWORK, *self.identity(role), '--secret-file', self.directory / 'secret')

    def placement(self):
        return self.start('placement', 'cadre-placement', '--model', MODEL, *NETWORK, *self.identity('placement'), '--secret-file', self.directory / 'secret',
                          '--state', self.directory / 'state.db', '--experts-min', 2, '--copies-min', 2)

    def wait(self, experts):
        done = self.run('client', 'cadrectl', 'wait', '--placement', 'placement:7300', '--experts', experts, '--routers', 2, '--timeout', '20s', *self.identity('operator'))
        assert done.returncode == 0, done.stderr

    def generate(self, router, count):
        arguments = ['--router', f'{router}:7100', '--tokens', ','.join(map(str, PROMPT)), '--max-tokens', count, '--ignore-eos', '-o', 'json', *self.identity('client')]
        return self.start('client', 'cadrectl', 'generate', *arguments)


def digest(generation):
    assert generation.popen.wait(30) == 0, generation.log.read_text()
    return json.loads(generation.log.read_text())['digest']


def test_a_cluster_of_hosts(tmp_path):
    if no_hosts('nft'):
        pytest.skip(f'hosts: {no_hosts("nft")}')
    short, long = (embedded(MODEL, PROMPT, count)['digest'] for count in (8, 100))
    with Cluster(tmp_path) as cluster:
        placement = cluster.placement()
        members = {name: cluster.member(name) for name in HOSTS[1:5]}
        cluster.wait(experts=2)
        for router in ('router-0', 'router-1'):
            assert digest(cluster.generate(router, 8)) == short

        generation = cluster.generate('router-0', 100)
        while metric(f"{cluster.hosts['router-0'].address}:7101", 'cadre_router_tokens_generated_total') < 20:
            assert generation.alive(), generation.log.read_text()
        members['expert-1'].kill()
        assert digest(generation) == long

        placement.kill()
        placement.popen.wait()
        host = cluster.hosts['placement']
        host.have(cluster.hosts.address(77), cluster.hosts.address6(77))
        cluster.point('placement', host.address)
        cluster.placement()
        cluster.wait(experts=1)
        cluster.member('expert-1')
        cluster.wait(experts=2)
        assert digest(cluster.generate('router-1', 100)) == long

        for name, port in (('placement', 7301), ('router-0', 7101), ('expert-0', 7401)):
            assert cluster.run('client', 'cadrectl', 'health', '--ready', '--http', f'{name}:{port}').returncode == 0

        counts = {name: cluster.hosts[name].counted() for name in HOSTS}
        for name in HOSTS:
            for chain in ('input', 'output'):
                assert counts[name][chain, 'refused'] == 0, f'the {chain} of {name} was for a port that is not documented'
        for of, to, port in documented():
            if (of, to) != ('expert', 'router'):   # which UCX may do, and does not have to
                assert any(counts[name]['output', port] for name in HOSTS if of in ROLES[role_of(name)]), f'nothing went from {of} to {to}:{port}'
                assert any(counts[name]['input', port] for name in HOSTS if to in ROLES[role_of(name)]), f'nothing came from {of} to {to}:{port}'
