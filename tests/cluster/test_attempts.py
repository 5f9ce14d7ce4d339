# SPDX-License-Identifier: Apache-2.0
"""The quick rows of the table of attempts (tests/attempts)."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'attempts'))
from attempts import ATTEMPTS   # noqa: E402
from guarded import Guarded     # noqa: E402


@pytest.fixture(scope='module')
def world():
    with Guarded() as world:
        digest = world.digest()
        yield world
        assert world.digest() == digest


@pytest.mark.parametrize('attempt', [a for a in ATTEMPTS if a.quick], ids=lambda attempt: attempt.action.__name__)
def test_attempt(world, attempt):
    for listener in filter(attempt.at, world.listeners()):
        wrong = attempt.wrong(world, *attempt.action(world, listener))
        assert not wrong, f'{listener.name}: {wrong}'
