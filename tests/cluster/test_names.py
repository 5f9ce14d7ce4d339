# SPDX-License-Identifier: Apache-2.0
"""Names in addresses: unknown at first, with several addresses, with others than before, and where DNS says nothing at all."""
import os
import shutil
import socket
import subprocess
import time

import pytest
from cluster import BIN, GOLDEN, Cluster, wait_for_log
from hosts import DEVICE, NETWORK, Site, no_hosts

MODEL = GOLDEN / 'olmoe-a' / 'model'
NAME_SERVER = '127.9.9.7'


def test_a_name_of_the_hosts_file_needs_no_dns(tmp_path):
    """A container that knows its peers from /etc/hosts, and whose name server is silent."""
    if os.geteuid() != 0 or not shutil.which('unshare'):
        pytest.skip('test_a_name_of_the_hosts_file_needs_no_dns: only root may give a process an /etc/hosts of its own')
    (tmp_path / 'resolv.conf').write_text(f'nameserver {NAME_SERVER}\n')
    (tmp_path / 'hosts').write_text('127.0.0.1 placement.test\n')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, Cluster(MODEL, experts=1) as cluster:
        silent.bind((NAME_SERVER, 53))
        port = cluster.placement_grpc.rsplit(':', 1)[1]
        done = subprocess.run(['unshare', '--mount', 'sh', '-c', 'mount --bind "$1/resolv.conf" /etc/resolv.conf && mount --bind "$1/hosts" /etc/hosts && shift && exec "$@"', 'sh', tmp_path,
                               BIN / 'cadrectl', 'status', '--placement', f'placement.test:{port}'], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert 'expert-0' in done.stdout


@pytest.fixture
def site(tmp_path):
    if no_hosts():
        pytest.skip(f'names of hosts: {no_hosts()}')
    with Site(tmp_path, ['placement', 'moved', 'expert']) as site:
        yield site


def start_placement(site, host):
    process = site.start(host, 'cadre-placement', '--model', MODEL, *NETWORK, '--grpc-plaintext-anywhere', '--state', site.directory / 'state.db')
    wait_for_log(process, 'msg=serving')
    return process


def start_expert(site, host):
    return site.start(host, 'cadre-expert', '--model', MODEL, *NETWORK, '--placement', 'placement:7300', '--id', host)


def point_to(site, *addresses):
    site.names.records['placement.test'] = addresses


def wait_for_joins(process, count):
    """gRPC alone looks for a name that has moved after 30 s, and after up to 120 s for one that was nowhere."""
    wait_for_log(process, 'msg=joined', seconds=10, times=count)


def test_a_name_that_comes_late_goes_and_comes_back_elsewhere(site):
    expert = start_expert(site, 'expert')
    waiting = site.start('moved', 'cadrectl', 'wait', '--placement', 'placement:7300', '--routers', '0')
    wait_for_log(expert, 'why="UNAVAILABLE: DNS resolution failed for placement:7300: UNKNOWN: Name or service not known"')
    placement = start_placement(site, 'placement')
    point_to(site, site.hosts['placement'].address)
    wait_for_joins(expert, 1)
    assert waiting.popen.wait(10) == 0, waiting.log.read_text()

    site.names.records.clear()
    placement.kill()
    placement.popen.wait()   # its connections are closed
    site.hosts['placement'].run('ip', 'link', 'set', DEVICE, 'down')   # nobody refuses a connection to where it was
    time.sleep(3)
    start_placement(site, 'moved')
    point_to(site, site.hosts['moved'].address)
    wait_for_joins(expert, 2)


def test_an_address_where_nobody_answers_is_passed_over(site):
    hosts = site.hosts
    start_placement(site, 'placement')
    point_to(site, hosts.address6(99), hosts['placement'].address)   # best first
    expert = start_expert(site, 'expert')
    asking = [site.start('expert', 'cadrectl', 'health', *port) for port in (['--http', 'placement:7301'], ['--grpc', 'placement:7300'])]
    wait_for_joins(expert, 1)
    for process in asking:
        assert process.popen.wait(10) == 0, process.log.read_text()


def test_a_name_server_that_says_nothing(site):
    site.names.silent = True
    expert = start_expert(site, 'expert')
    begun = time.monotonic()
    for port in ('--http', '--grpc'):
        done = site.run('expert', 'cadrectl', 'health', port, 'placement:7301', '--timeout', '1s')
        assert done.returncode == 1, done.stdout
    assert time.monotonic() - begun < 10   # the C library gives up after 20 s
    wait_for_log(expert, 'no name server answers')
