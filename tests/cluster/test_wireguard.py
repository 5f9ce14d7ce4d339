# SPDX-License-Identifier: Apache-2.0
"""The exchange between hosts that let nothing through but WireGuard, as docs/OPERATIONS.md has it. Where the kernel has none, wg-quick uses wireguard-go."""
import json
import re
import subprocess

import pytest
from cluster import ROOT, embedded
from hosts import Site, no_hosts

MODEL = ROOT / 'models' / 'demo'
PROMPT, COUNT = [5, 6, 7], 50
HOSTS = ['placement', 'expert', 'router']
NETWORK = ['--cluster-network', 'wg0', '--http-plaintext-anywhere']
FIREWALL = '''table inet cadre {
    chain input { type filter hook input priority 0; policy drop;
        meta iifname { "lo", "wg0" } accept
        meta l4proto { icmp, ipv6-icmp } accept
        udp dport 51820 accept
        counter drop comment "refused"
    }
    chain output { type filter hook output priority 0; policy drop;
        meta oifname { "lo", "wg0" } accept
        meta l4proto { icmp, ipv6-icmp } accept
        udp dport 51820 accept
        counter drop comment "refused"
    }
}
'''


def example():
    """The two sections of wg0.conf in the documentation."""
    page = (ROOT / 'docs' / 'OPERATIONS.md').read_text()
    return re.search(r'(\[Interface\]\n.*?)(\[Peer\].*?)```', page, re.DOTALL).groups()


def filled(section, **values):
    for name, value in values.items():
        section, count = re.subn(rf'^({name} =) \S.*$', rf'\1 {value}', section, flags=re.MULTILINE)
        assert count == 1, f'{name} is not in the example once'
    return section


def wg(*command, text=None):
    return subprocess.run(['wg', *command], input=text, capture_output=True, check=True, text=True).stdout.strip()


class Tunnels(Site):
    def __init__(self, directory):
        super().__init__(directory, HOSTS)
        interface, peer = example()
        keys = {name: wg('genkey') for name in HOSTS}
        inside = {name: f'10.8.0.{i}' for i, name in enumerate(HOSTS, 1)}
        for name in HOSTS:
            peers = [filled(peer, PublicKey=wg('pubkey', text=keys[other]), AllowedIPs=f'{inside[other]}/32', Endpoint=f'{self.hosts[other].address}:51820') for other in HOSTS if other != name]
            self.bring_up(self.hosts[name], filled(interface, Address=f'{inside[name]}/24', PrivateKey=keys[name]) + '\n'.join(peers))
        self.placement_grpc, self.router_grpc = f"{inside['placement']}:7300", f"{inside['router']}:7100"

    def bring_up(self, host, configuration):
        file = self.directory / host.name / 'wg0.conf'
        file.parent.mkdir()
        file.write_text(configuration)
        file.chmod(0o600)
        host.run('mount', '-t', 'tmpfs', 'none', '/run')   # where wg and wireguard-go meet
        host.run('nft', '-f', '-', text=FIREWALL)
        host.run('wg-quick', 'up', file)

    def __exit__(self, *_):
        for name in HOSTS:
            self.hosts[name].run('wg-quick', 'down', self.directory / name / 'wg0.conf')   # ends wireguard-go
        super().__exit__()


def test_a_cluster_over_wireguard(tmp_path):
    missing = no_hosts('nft', 'wg-quick', 'wireguard-go')
    if missing:
        pytest.skip(f'WireGuard: {missing}')
    with Tunnels(tmp_path) as site:
        site.start('placement', 'cadre-placement', '--model', MODEL, *NETWORK, '--grpc-plaintext-anywhere')
        for name in ('expert', 'router'):
            more = ['--grpc-plaintext-anywhere'] if name == 'router' else []
            site.start(name, f'cadre-{name}', '--model', MODEL, '--placement', site.placement_grpc, '--id', name, '--threads', 1, *NETWORK, *more)
        done = site.run('router', 'cadrectl', 'wait', '--placement', site.placement_grpc, '--timeout', '20s')
        assert done.returncode == 0, done.stderr
        done = site.run('expert', 'cadrectl', 'generate', '--router', site.router_grpc, '--tokens', ','.join(map(str, PROMPT)), '--max-tokens', COUNT, '--ignore-eos', '-o', 'json')
        assert json.loads(done.stdout)['digest'] == embedded(MODEL, PROMPT, COUNT)['digest']
        for name in HOSTS:   # all of it went through the tunnels
            assert site.hosts[name].counted() == {('input', 'refused'): 0, ('output', 'refused'): 0}, name
        traffic = site.hosts['expert'].run('wg', 'show', 'wg0', 'transfer').split()
        assert sum(map(int, traffic[1::3])) > 10000, traffic   # rows
