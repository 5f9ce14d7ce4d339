# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of more than 100 GB in shards, all holes (tests/tools/make_sparse.py): what processes read of it, what memory that takes, and what they say meanwhile."""
import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
import time

import pytest

from cluster import BIN, ROOT, Cluster, http

sys.path.insert(0, str(ROOT / 'tests' / 'tools'))
import make_sparse

LAYERS, EXPERTS = 12, 1024
EXPERT_BYTES = 3 * make_sparse.HIDDEN * make_sparse.FFN * 2


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    directory = tmp_path_factory.mktemp('large') / 'model'
    places = make_sparse.make(directory, LAYERS, EXPERTS)
    files = sorted(directory.glob('*.safetensors'))
    assert len(files) > 20 and sum(f.stat().st_size for f in files) > 100e9
    held = sum(f.stat().st_blocks * 512 for f in files)
    assert held < 100e6, f'the files take {held} bytes of the disk: this file system has no holes'
    forget(files)
    yield directory, places
    for file in files:
        file.unlink()


def forget(files):
    """What the system keeps of files that no process has mapped goes from memory."""
    for file in files:
        with open(file, 'rb') as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(file):
    """For each page of the file: has anybody read it?"""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    size = file.stat().st_size
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    with open(file, 'rb') as f:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, f.fileno(), 0)
        assert address != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
        try:
            assert libc.mincore(address, size, pages) == 0, os.strerror(ctypes.get_errno())
        finally:
            libc.munmap(address, size)
    return pages.raw.translate(bytes(i & 1 for i in range(256)))


def all_resident(directory):
    return {file: resident(file) for file in directory.glob('*.safetensors')}


def read_ahead(directory):
    """What the system may read around each piece that is asked for."""
    device = os.stat(directory).st_dev
    try:
        with open(f'/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb') as kb:
            return 2 * 1024 * int(kb.read()) + (1 << 20)
    except OSError:
        return 16 << 20


def bytes_of(pages):
    return sum(p.count(1) for p in pages.values()) * mmap.PAGESIZE


def share_read(pages, places, names):
    """Of the pages that lie wholly in these tensors."""
    read = count = 0
    for name in names:
        path, first, end = places[name]
        inside = pages[path][-(-first // mmap.PAGESIZE):end // mmap.PAGESIZE]
        read, count = read + inside.count(1), count + len(inside)
    return read / count


def matrices(layer, expert):
    return [f'model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight' for part in ('gate', 'up', 'down')]


def run(*arguments):
    """Its output, and the most memory that it had, in bytes."""
    popen = subprocess.Popen([BIN / 'cadrectl', *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    output = popen.stdout.read()
    _, status, usage = os.wait4(popen.pid, 0)
    popen.returncode = os.waitstatus_to_exitcode(status)
    assert popen.returncode == 0, output
    return output, usage.ru_maxrss * 1024


@pytest.mark.parametrize('command', ['inspect', 'size'])
def test_headers_alone_are_read_to_look_at_it(large, command):
    directory, places = large
    options = ['--machine', 'epyc-zen4-2'] if command == 'size' else []
    output, most = run('model', command, directory, '--memory', '16G', *options, '-o', 'json')
    parameters = json.loads(output)['parameters']['total']
    assert parameters * 2 == sum(end - first for _, first, end in places.values()) > 100e9
    headers = sum(len(name) + 120 for name in places)
    pages = all_resident(directory)
    assert bytes_of(pages) < headers + len(pages) * read_ahead(directory) < 0.01 * 2 * parameters
    assert most < 400e6, most


def wait_for(what, cluster, seconds=300):
    end = time.monotonic() + seconds
    while not what():
        assert all(p.alive() for p in cluster.processes() if p.popen), cluster.logs()
        assert time.monotonic() < end, cluster.logs()
        time.sleep(0.1)


def said(process, words):
    return [line for line in process.log.read_text().splitlines() if words in line]


def test_a_node_reads_what_it_is_given(large):
    """The placement service reads 8 experts of each layer once, for the quantum table; then a node with room for a few, and a router with none."""
    directory, places = large
    cluster = Cluster(directory, experts=1, routers=1, memory='40M', start=False)
    with cluster:
        forget(directory.glob('*.safetensors'))
        cluster.placement.start()
        wait_for(lambda: said(cluster.placement, 'quantum table') and said(cluster.placement, 'seconds='), cluster)
        wait_for(lambda: listens(cluster.placement_http), cluster)
        for process in (*cluster.experts, cluster.routers[0].process):
            process.start()
        wait_for(lambda: held(cluster) == 40 * 2**20 // EXPERT_BYTES, cluster)
        wait_for(lambda: said(cluster.routers[0].process, 'loaded'), cluster)

        pages = all_resident(directory)
        sampled = [matrix for layer in range(LAYERS) for e in range(8) for matrix in matrices(layer, e * EXPERTS // 8)]
        router = [name for name in places if '.experts.' not in name]
        given = [name for name in places if '.experts.' in name and name not in set(sampled) and share_read(pages, places, [name]) > 0.99]
        assert share_read(pages, places, sampled) > 0.99 and share_read(pages, places, router) > 0.99
        wanted = sum(places[name][2] - places[name][1] for name in {*sampled, *router})
        pieces = LAYERS * 8 + 2 * LAYERS + held(cluster) + len(pages)   # experts, of which a layer's stand apart; the router's, a layer in one
        assert wanted < bytes_of(pages) < wanted + held(cluster) * EXPERT_BYTES + pieces * read_ahead(directory)
        assert bytes_of(pages) < 0.1 * sum(end - first for _, first, end in places.values())
        assert 3 * held(cluster) <= len(given)
        for process in (*cluster.experts, cluster.routers[0].process):
            assert most_memory(process) < 700e6

        # what they say of it: bytes, of how many, and the rate
        progress = said(cluster.placement, 'component=quantum')[-1]
        assert int(re.search(r' bytes=(\d+)', progress)[1]) == LAYERS * 8 * EXPERT_BYTES == int(re.search(r'total_bytes=(\d+)', progress)[1])
        for process in (cluster.placement, *cluster.experts, cluster.routers[0].process):
            assert int(re.search(r'bytes_per_second=(\d+)', process.log.read_text())[1]) > 0

        # and what is missing: so many experts have no place
        with pytest.raises(OSError):
            http(cluster.placement_http, '/readyz')
        assert cluster.status()['experts_unplaced'] == LAYERS * EXPERTS - held(cluster)


def listens(address):
    try:
        http(address, '/healthz')
        return True
    except OSError:
        return False


def held(cluster):
    """Experts of the node; -1: nobody answers yet, or it has not joined."""
    done = cluster.command('status', '-o', 'json', code=None, timeout=30)
    nodes = json.loads(done.stdout)['nodes'] if done.returncode in (0, 3) else []
    return next((node['experts'] for node in nodes if node['id'] == 'expert-0'), -1)


def most_memory(process):
    with open(f'/proc/{process.popen.pid}/status') as status:
        text = status.read()
    return 1024 * int(re.search(r'RssAnon:\s+(\d+)', text)[1])
