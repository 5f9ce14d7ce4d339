# SPDX-License-Identifier: Apache-2.0
"""The placement service's state: its disk full, its file damaged."""
import functools
import os
import shutil
import sqlite3

from rows import KERNEL, add, row
from world import World, until


# ---- disk full ----


@functools.cache
def no_mounts():
    """What is missing for a small file system of one's own, or None."""
    if os.geteuid() != 0 or not shutil.which('unshare'):
        return 'only root may mount a small file system'
    return None


class SmallDisk(World):
    """The placement service keeps its state on a file system of 1 MiB, which only it sees: nothing is left of it at its end."""
    NEEDS = (no_mounts,)

    def process(self, name, arguments):
        if name == 'placement':
            self.disk = self.directory / 'disk'
            self.disk.mkdir()
            arguments = ['unshare', '--mount', 'sh', '-c', f'mount -t tmpfs -o size=1m none {self.disk} && exec "$@"', 'sh', *map(str, arguments)]
            arguments = [a.replace(str(self.directory / 'placement.db'), str(self.disk / 'placement.db')) for a in arguments]
        return super().process(name, arguments)

    def fill(self):
        """To the last byte. Returns the file that does it."""
        path = f'/proc/{self.placement.popen.pid}/root{self.disk}/full'
        with open(path, 'wb', buffering=0) as file:
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                return path


@row(KERNEL, world=SmallDisk, hold=1)
def disk_full(world):
    """disk of the placement service full, and then kill -9 of an expert node"""
    path = world.fill()
    world.experts[1].kill()
    yield
    os.unlink(path)
    world.restart(world.experts[1])
    until(world.all_live, 15, 'every node is live and every expert placed, with room on the disk again')

# ---- damage ----


def overwrite(path, offset, size):
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(b'\xa5' * size)


def empty(path):
    os.truncate(path, 0)


def halved(path):
    os.truncate(path, os.path.getsize(path) // 2)


def without_head(path):
    overwrite(path, 0, 100)


def without_middle(path):
    """All but the first page, which says what tables there are."""
    overwrite(path, 4096, os.path.getsize(path) - 4096)


def without_table(path):
    with sqlite3.connect(path) as db:
        name, = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchone()
        db.execute(f'DROP TABLE "{name}"')
    db.close()


def journal_overwritten(path):
    overwrite(f'{path}-wal', 0, os.path.getsize(f'{path}-wal'))


def without_journal(path):
    """Takes what a killed service left in the journal into the file, so that the file is all there is."""
    db = sqlite3.connect(path)
    db.execute('PRAGMA journal_mode = DELETE').fetchall()
    db.close()


def damage(how, world):
    """The service is killed, its file damaged, and the service started again."""
    path = world.directory / 'placement.db'
    world.placement.kill()
    world.placement.popen.wait()
    if how is not journal_overwritten:
        without_journal(path)
    how(path)
    world.placement.start()
    yield
    until(world.all_live, 20, 'the placement service is back, with every node and expert')


for how, words in ((empty, 'its state file emptied'), (halved, 'its state file cut in half'), (without_head, 'the head of its state file overwritten'), (without_middle, 'all but the first page of its state file overwritten'),
                   (without_table, 'a table of its state file removed'), (journal_overwritten, 'the journal of its state file overwritten')):
    add(functools.partial(damage, how), f'state-{how.__name__.replace("_", "-")}', f'placement service killed, {words}, restarted', KERNEL)
