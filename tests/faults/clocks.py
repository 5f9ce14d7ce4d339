# SPDX-License-Identifier: Apache-2.0
"""Clocks that are set while processes run: Debian's libfaketime shows them another time of day, and no other clock is touched.

While its clock is behind, the waits of gRPC's timer threads end at once, since the kernel's is not: that takes a tenth of a core of each
process, which a clock that is really set does not.
"""
import functools
import pathlib

from rows import KERNEL, add
from world import World, until

LIBRARY = pathlib.Path('/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1')
HOURS = 3


@functools.cache
def no_faketime():
    return None if LIBRARY.exists() else "Debian's package libfaketime is not installed"


class ClockWorld(World):
    """Each process has a clock of its own, which follows a file."""
    NEEDS = (no_faketime,)

    def clock(self, name):
        return self.directory / f'{name}.clock'

    def process(self, name, arguments):
        self.set_clock(name, '+0')
        process = super().process(name, arguments)
        process.env = {**(self.env or {}), 'LD_PRELOAD': str(LIBRARY), 'FAKETIME_TIMESTAMP_FILE': str(self.clock(name)), 'FAKETIME_CACHE_DURATION': '1', 'DONT_FAKE_MONOTONIC': '1'}
        return process

    def set_clock(self, name, offset):
        fresh = self.clock(name).with_suffix('.new')   # never half a file
        fresh.write_text(offset)
        fresh.rename(self.clock(name))


def jump(name, offset, world):
    names = [p.name for p in world.core] if name == 'all' else [name]
    for one in names:
        world.set_clock(one, offset)
    yield
    until(world.all_live, 5, 'every node is live and every expert placed')
    for one in names:
        world.set_clock(one, '+0')


for name, words in (('placement', "the placement service's clock"), ('expert-1', "an expert node's clock"), ('router-0', "the router's clock"), ('all', 'all clocks')):
    for direction, offset in (('forward', f'+{HOURS}h'), ('back', f'-{HOURS}h')):
        add(functools.partial(jump, name, offset), f'clock-{name}-{direction}', f'{words} set {direction} by {HOURS} hours for 7 s', KERNEL, hold=7, world=ClockWorld)
