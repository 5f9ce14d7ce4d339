#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Notices when the machine itself stands still, as a virtual one does that has used up its share of processors: nobody's doing, and no program of it can tell otherwise.

A process on each core, above all others, looks at the clock every few milliseconds. When all of them come late at once, no core did anything.
"""
import os
import subprocess
import sys
import time

LOOK_S, LATE_S = 0.004, 0.004
PRIORITY = 90


def look(core):
    """On this core, without end: prints when it should have woken up and when it did, if that was late."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    while True:
        due = time.monotonic() + LOOK_S
        time.sleep(LOOK_S)
        if time.monotonic() - due > LATE_S:
            print(due, time.monotonic(), flush=True)


def both(some, others):
    """Where intervals of two lists overlap."""
    return [(max(a, c), min(b, d)) for a, b in some for c, d in others if max(a, c) < min(b, d)]


class Stillness:
    """Watches while it is entered; then `spans` has when the machine stood still. Without the right to real-time priority it sees nothing."""

    def __enter__(self):
        self.spans = []
        self.looking = [subprocess.Popen([sys.executable, __file__, str(core)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for core in sorted(os.sched_getaffinity(0))]
        return self

    def __exit__(self, *_):
        for process in self.looking:
            process.terminate()
        seen = [[tuple(map(float, line.split())) for line in process.communicate()[0].splitlines()] for process in self.looking]
        self.spans = seen[0]
        for spans in seen[1:]:
            self.spans = both(self.spans, spans)

    def sentence(self):
        return f'the machine itself stood still {len(self.spans)} times, for {1000 * sum(b - a for a, b in self.spans):.0f} ms in all: waits meanwhile do not count'


if __name__ == '__main__':
    look(int(sys.argv[1]))
