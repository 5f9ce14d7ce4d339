# SPDX-License-Identifier: Apache-2.0
"""How a router stops while clients are there: in time, and with a word to each of them."""
import signal
import time

import grpc
import pytest

from cluster import BIN, GOLDEN, Process, Router, code_of, free_port, http

MODEL = GOLDEN / 'mixtral-a' / 'model'


@pytest.fixture
def router(tmp_path, request):
    """A router with its experts inside, and the drain time that the test asks for."""
    grpc_address, http_address = f'127.0.0.1:{free_port()}', f'127.0.0.1:{free_port()}'
    process = Process('router', [BIN / 'cadre-router', '--local-experts', '--model', MODEL, '--grpc', grpc_address, '--http', http_address, '--threads', '1', '--drain', request.param], tmp_path)
    running = Router(process, grpc_address, http_address)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                http(http_address, '/readyz')
                break
            except OSError:
                assert process.alive() and time.monotonic() < end, process.log.read_text()
                time.sleep(0.02)
        yield running
    finally:
        running.close()
        process.stop()


def endless(router):
    """A stream that flows, and does not end for long."""
    stream = router.stream(tokens=[5, 6, 7], max_tokens=4000, ignore_eos=True)
    next(stream)
    return stream


@pytest.mark.parametrize('router', ['100ms'], indirect=True)
def test_streams_that_outlive_the_drain_are_told(router):
    streams = [endless(router) for _ in range(4)]
    router.process.kill(signal.SIGTERM)
    for stream in streams:
        assert code_of(stream) == (grpc.StatusCode.UNAVAILABLE, 'the router is stopping; ask another router, or again later')
    assert router.process.popen.wait(10) == 0


@pytest.mark.parametrize('router', ['1h'], indirect=True)
def test_a_second_signal_ends_it_at_once(router):
    stream = endless(router)
    router.process.kill(signal.SIGTERM)
    while 'stopping' not in router.process.log.read_text():
        time.sleep(0.01)
    assert router.process.alive()
    router.process.kill(signal.SIGTERM)
    assert router.process.popen.wait(10) == 128 + signal.SIGTERM
    assert code_of(stream)[0] == grpc.StatusCode.UNAVAILABLE
