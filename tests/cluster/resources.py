# SPDX-License-Identifier: Apache-2.0
"""What a process holds: memory, descriptors, listening sockets."""
import contextlib
import os
import pathlib
import time


def memory(process):
    status = pathlib.Path(f'/proc/{process.popen.pid}/status').read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith('VmRSS'))


def descriptors(process):
    return len(os.listdir(f'/proc/{process.popen.pid}/fd'))


def settle(processes):
    """Waits until nobody's number of descriptors has changed for a second. Returns them, by name."""
    last, since = None, time.monotonic()
    while time.monotonic() - since < 1:
        now = {p.name: descriptors(p) for p in processes}
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.05)
    return last


def listening(process):
    """Addresses on which a process listens."""
    inodes = set()
    for fd in os.listdir(f'/proc/{process.popen.pid}/fd'):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f'/proc/{process.popen.pid}/fd/{fd}'))
    rows = [line.split() for line in pathlib.Path(f'/proc/{process.popen.pid}/net/tcp').read_text().splitlines()[1:]]
    return [f'127.0.0.1:{int(r[1].split(":")[1], 16)}' for r in rows if r[3] == '0A' and f'socket:[{r[9]}]' in inodes]
