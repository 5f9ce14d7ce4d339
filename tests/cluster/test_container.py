# SPDX-License-Identifier: Apache-2.0
"""What containers do to processes: each is process 1, of a user that nobody knows, without capabilities, environment, shared memory, or anything to write to but its state."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from cluster import BIN, GOLDEN, ROOT, Cluster, Process, embedded, wait_for_log

sys.path.insert(0, str(ROOT / 'tests' / 'deploy'))
import engine   # noqa: E402

MODEL = GOLDEN / 'olmoe-a' / 'model'
USER = 54321
IN_A_CONTAINER = '''
mount -t proc none /proc && umount -l /dev/shm && mount --bind "$1" "$1" || exit 99
for mounted in $(cut -d ' ' -f 5 /proc/self/mountinfo); do
    [ "$mounted" = "$1" ] || mount -o remount,bind,ro "$mounted" 2>/dev/null
done
shift
exec env -i ASAN_OPTIONS="$ASAN_OPTIONS" LSAN_OPTIONS="$LSAN_OPTIONS" setpriv --reuid=$0 --regid=$0 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
'''


def contained(directory, *command):
    return ['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', IN_A_CONTAINER, USER, directory, *command]


def run(directory, *command):
    return subprocess.run(list(map(str, contained(directory, *command))), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


class Contained(Process):
    """Signals go to the program, not to what waits for it."""

    @property
    def inside(self):
        """Its process id out here; inside, it is 1."""
        pid = self.popen.pid
        while not (children := pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()):
            time.sleep(0.01)
        return int(children[0])

    def kill(self, number=signal.SIGKILL):
        os.kill(self.inside, number)

    def stop(self, seconds=15):
        if self.alive():
            self.kill(signal.SIGTERM)
        return super().stop(seconds)

    def ends_with(self, number, code, seconds=15):
        self.kill(number)
        assert self.popen.wait(seconds) == code, self.log.read_text()


class ContainedCluster(Cluster):
    def process(self, name, arguments):
        os.chown(self.directory, USER, USER)
        return Contained(name, contained(self.directory, *arguments), self.directory, None, self.start)


@pytest.fixture
def directory():
    """One that the user may write to."""
    if os.geteuid() != 0 or not all(map(shutil.which, ('unshare', 'setpriv'))):
        pytest.skip('containers: only root may make what they consist of')
    directory = pathlib.Path(tempfile.mkdtemp(prefix='cadre-test-'))
    os.chown(directory, USER, USER)
    for probe in (['true'], ['test', '-x', BIN / 'cadrectl']):   # no namespaces, or the build is where only root may look
        done = run(directory, *probe)
        if done.returncode != 0:
            pytest.skip(f'containers: {done.stderr or "this user may not run " + str(BIN)}')
    done = run(directory, BIN / 'cadrectl', '--version')
    assert done.returncode == 0, done.stderr
    return directory


def test_a_registry_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    """The images of tests/deploy are then made without it."""
    (tmp_path / 'docker').write_text('#!/bin/sh\nexec sleep 60\n')
    (tmp_path / 'docker').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert not engine.pulled(engine.BASE, seconds=0.1)


def test_nothing_can_be_written(directory):
    assert 'Read-only' in run(directory, 'touch', '/tmp/file', '/dev/shm/file', '/var/tmp/file').stderr
    assert run(directory, 'touch', directory / 'file').returncode == 0


def zombies(pid):
    children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return [child for child in children if pathlib.Path(f'/proc/{child}/stat').read_text().split()[2] == 'Z']


def orphan(process):
    """Leaves process 1 a child, as `docker exec` may, which ends at once."""
    subprocess.run(['nsenter', f'--pid=/proc/{process.inside}/ns/pid', 'sh', '-c', '(sleep 0.05; true) & exit'], check=True)
    time.sleep(0.3)


def test_a_cluster_in_containers(directory):
    with ContainedCluster(MODEL, experts=2, routers=2, router_options=['--drain', '60s']) as cluster:
        whole = cluster.routers[0].generate(tokens=[5, 6, 7], max_tokens=8, ignore_eos=True)
        assert whole.digest == embedded(MODEL, [5, 6, 7], 8)['digest']
        for process in cluster.processes():
            orphan(process)
            assert zombies(process.inside) == []

        first, second = (router.process for router in cluster.routers)
        first.ends_with(signal.SIGTERM, 0)
        stream = cluster.routers[1].stream(tokens=[5, 6, 7], max_tokens=1000, ignore_eos=True)   # which nobody reads
        next(stream)
        for number, name in ((signal.SIGTERM, 'stopping; running requests'), (signal.SIGTERM, 'second signal')):
            second.kill(number)
            wait_for_log(second, name)
        assert second.popen.wait(5) == 128 + signal.SIGTERM
        cluster.experts[0].ends_with(signal.SIGINT, 0)
        cluster.experts[1].ends_with(signal.SIGTERM, 0)
        cluster.placement.ends_with(signal.SIGTERM, 0)


def test_cadrectl_ends_when_it_is_told_to(directory):
    waiting = Contained('cadrectl', contained(directory, BIN / 'cadrectl', 'wait', '--placement', '127.0.0.1:1'), directory)
    while 'waiting' not in waiting.log.read_text():
        assert waiting.alive(), waiting.log.read_text()
        time.sleep(0.01)
    waiting.ends_with(signal.SIGTERM, 130)
