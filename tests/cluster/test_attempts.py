# SPDX-License-Identifier: Apache-2.0
"""The quick rows of the table of attempts (tests/attempts)."""
import pathlib
import socket
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'attempts'))
from attempts import ATTEMPTS, answered_after   # noqa: E402
from guarded import Guarded, Listener           # noqa: E402


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


def test_who_never_speaks_is_given_up():
    with socket.create_server(('127.0.0.1', 0)) as server:
        listener = Listener('silent', 'http', f'127.0.0.1:{server.getsockname()[1]}', None)
        assert answered_after(listener, 0.2) is None
