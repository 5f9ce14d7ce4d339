# SPDX-License-Identifier: Apache-2.0
"""Measures one row: a cluster, load, the fault, its undoing, and what the streams saw of it."""
import contextlib
import time

from load import Load

TAIL_S = 1     # watched for so long after the undoing


class Measurement:
    """One repetition of one row. `why`: what else did not hold, as sentences; `told`: what else was measured."""

    def __init__(self):
        self.gap = self.gap_of_others = 0.0
        self.requests, self.failed, self.unequal, self.why, self.told = 0, [], 0, [], ''

    def held(self, aim):
        return not self.failed and not self.unequal and not self.why and (aim is None or self.gap <= aim)


def strike(row, world, load, result):
    """The fault and its undoing. Whatever does not hold becomes a sentence of the result."""
    def watch(action):
        try:
            action()
        except AssertionError as error:
            result.why.append(str(error))

    def fault():
        with row.fault(world):
            time.sleep(row.hold)
            if not row.hold:
                watch(load.wait_flowing)
    began = time.monotonic()
    watch(fault)
    watch(load.wait_flowing)
    time.sleep(TAIL_S)
    began = max(began, world.since)
    result.gap = load.longest_gap(began)
    result.gap_of_others = load.longest_gap(began, world.struck) if world.struck else None


@contextlib.contextmanager
def running(row, **options):
    """A cluster for a row; another one if another program took one of its ports. `options` go to the row's."""
    for last in (False, True):
        world = row.make_world(**options)
        try:
            world.__enter__()
            break
        except AssertionError:
            if last or 'Address already in use' not in world.logs():
                raise
    try:
        yield world
    finally:
        world.__exit__()


def measure(row, digests):
    result = Measurement()
    with running(row) as world:
        with Load(world, digests) as load:
            world.load = load
            load.wait_flowing()
            strike(row, world, load, result)
        result.requests, result.failed, result.unequal = load.requests, load.failed, load.unequal
        result.told = world.told
        result.why += world.ended_badly()
    if result.held(row.aim):
        world.forget()
    else:
        result.why.append(f'logs: {world.directory}')
    return result
