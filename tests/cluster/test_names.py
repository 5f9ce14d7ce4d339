# SPDX-License-Identifier: Apache-2.0
"""Names in addresses, where DNS says nothing at all."""
import os
import shutil
import socket
import subprocess

import pytest
from cluster import BIN, GOLDEN, Cluster

NAME_SERVER = '127.9.9.7'


def test_a_name_of_the_hosts_file_needs_no_dns(tmp_path):
    """A container that knows its peers from /etc/hosts, and whose name server is silent."""
    if os.geteuid() != 0 or not shutil.which('unshare'):
        pytest.skip('test_a_name_of_the_hosts_file_needs_no_dns: only root may give a process an /etc/hosts of its own')
    (tmp_path / 'resolv.conf').write_text(f'nameserver {NAME_SERVER}\n')
    (tmp_path / 'hosts').write_text('127.0.0.1 placement.test\n')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, Cluster(GOLDEN / 'olmoe-a' / 'model', experts=1) as cluster:
        silent.bind((NAME_SERVER, 53))
        port = cluster.placement_grpc.rsplit(':', 1)[1]
        done = subprocess.run(['unshare', '--mount', 'sh', '-c', 'mount --bind "$1/resolv.conf" /etc/resolv.conf && mount --bind "$1/hosts" /etc/hosts && shift && exec "$@"', 'sh', tmp_path,
                               BIN / 'cadrectl', 'status', '--placement', f'placement.test:{port}'], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert 'expert-0' in done.stdout
