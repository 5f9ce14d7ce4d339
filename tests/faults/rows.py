# SPDX-License-Identifier: Apache-2.0
"""What a row of the table of faults is, and the list of them.

A row is a function of a running cluster that does the fault, yields, and undoes it. Its doc string is its text in the table. Between the two,
the runner waits `hold` seconds, or, without, until every stream flows again; after the undoing as well. What is asserted after the yield must
hold too.
"""
import contextlib

from world import World

# How long the longest gap between two tokens of a stream may be, in seconds.
KERNEL = 0.1               # the kernel sees it: connections break or are refused; or nobody should notice at all
SILENCE = 1.6              # only silence tells
HEDGED = 0.1               # only silence tells, and copies are asked long before it does
PLACEMENT_AND_NODE = 2.0   # nobody is left to say who takes over, until the placement service is back
RESUMED = 0.4              # the client goes on at another router
TOLD = None                # no goal: the gap is told

ROWS = []


class Row:
    def __init__(self, fault, name, title, aim, needs, hold, make_world):
        self.fault, self.name, self.title, self.aim = contextlib.contextmanager(fault), name, title, aim
        self.needs, self.hold, self.make_world = needs, hold, make_world


def add(fault, name, title, aim, needs=(), hold=0, world=World, **options):
    """`needs`: functions that say what is missing for the row, or None. `options` go to the world."""
    ROWS.append(Row(fault, name, title, aim, [*needs, *world.NEEDS], hold, lambda **more: world(**options, **more)))


def row(aim, copies=(1,), **settings):
    """Makes a function a row, once for each number of copies of each expert."""
    def decorate(function):
        name, title = function.__name__.replace('_', '-'), function.__doc__
        for count in copies:
            suffix, words = ('', '') if len(copies) == 1 else (f'-{count}', f', {count} {"copy" if count == 1 else "copies"}')
            add(function, name + suffix, title + words, aim, copies=count, **settings)
        return function
    return decorate
