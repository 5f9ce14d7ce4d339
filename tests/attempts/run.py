# SPDX-License-Identifier: Apache-2.0
"""Produces the table of attempts: each at every listener that it can be made at, on one cluster that serves at the same time. Then all that
are quick again and again: memory and descriptors stay as they are.
"""
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'cluster')]
sys.dont_write_bytecode = True

from attempts import ATTEMPTS  # noqa: E402
from guarded import Guarded  # noqa: E402
from resources import memory, settle  # noqa: E402

ROUNDS = 20                # of all quick attempts; what the first rounds take may stay, in pools
MEMORY_SLACK = 8 << 20     # bytes; a process keeps some that are free
GIVEN_BACK_S = 11          # how long it takes until they are given back


def rows(world, quick):
    listeners = world.listeners()
    return [(attempt, [listener for listener in listeners if attempt.at(listener)]) for attempt in ATTEMPTS if attempt.quick or not quick]


def table(world):
    """Each once; listeners that say the same share a line. Prints the table; returns how many are not as they should be."""
    missed = 0
    print('| attempt | listener | code | sentence |\n|---|---|---|---|')
    for attempt, listeners in rows(world, quick=False):
        lines = {}
        for listener in listeners:
            code, sentence = attempt.action(world, listener)
            lines.setdefault((code, sentence.replace(listener.address, 'HOST:PORT').replace(f'{world.files}/', '').replace('|', ' ')), []).append(listener.name)
            wrong = attempt.wrong(world, code, sentence)
            if wrong:
                missed += 1
                print(f'missed: {listener.name}, {attempt.title}: {"; ".join(wrong)}', file=sys.stderr, flush=True)
        for (code, sentence), names in lines.items():
            print(f'| {attempt.title} | {"; ".join(names)} | {code} | {sentence} |', flush=True)
    return missed


def settled(world):
    """(memory, descriptors) of each process, once the number of descriptors has stood still for a second, and free memory has been given back."""
    held = settle(world.processes())
    time.sleep(GIVEN_BACK_S)
    return {p.name: (memory(p), held[p.name]) for p in world.processes()}


def flat(world):
    """All quick ones, many times, twice. Prints what the second time added; returns in how many processes that is too much."""
    missed, times = 0, ROUNDS * sum(len(listeners) for _, listeners in rows(world, quick=True))
    for _ in range(2):
        before = settled(world)
        for _ in range(ROUNDS):
            for attempt, listeners in rows(world, quick=True):
                for listener in listeners:
                    attempt.action(world, listener)
    print(f'\n| process | memory after {times} attempts more | descriptors |\n|---|---|---|')
    for name, (bytes_now, descriptors_now) in settled(world).items():
        bytes_before, descriptors_before = before[name]
        print(f'| {name} | {(bytes_now - bytes_before) / (1 << 20):+.1f} MiB of {bytes_before / (1 << 20):.1f} | {descriptors_now - descriptors_before:+d} of {descriptors_before} |')
        missed += bytes_now - bytes_before > MEMORY_SLACK or descriptors_now > descriptors_before
    return missed


def main():
    with Guarded() as world:
        digest = world.digest()
        missed = table(world) + flat(world)
        served = world.digest() == digest
    print(f'\nafterwards the cluster {"serves, with the same digest" if served else "does not serve as before"}; {missed} missed')
    return int(missed > 0 or not served)


if __name__ == '__main__':
    sys.exit(main())
