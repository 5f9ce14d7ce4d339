"""How a router stops while clients are there: in time, and with a word to each of them."""
import signal
import time

import grpc
import pytest

from cluster import BIN, GOLDEN, Process, Router, code_of, free_port, http

MODEL = GOLDEN / 'mixtral-a' / 'model'


@pytest.fixture
def router(tmp_path):
    """A router with its experts inside."""
    grpc_address, http_address = f'127.0.0.1:{free_port()}', f'127.0.0.1:{free_port()}'
    process = Process('router', [BIN / 'cadre-router', '--local-experts', '--model', MODEL, '--grpc', grpc_address, '--http', http_address, '--threads', '1', '--drain', '100ms'], tmp_path)
    running = Router(process, grpc_address, http_address)
    end = time.monotonic() + 60
    while True:
        try:
            http(http_address, '/readyz')
            break
        except OSError:
            assert process.alive() and time.monotonic() < end, process.log.read_text()
            time.sleep(0.02)
    yield running
    running.close()
    process.stop()


def endless(router):
    """A stream that flows, and does not end for long."""
    stream = router.stream(tokens=[5, 6, 7], max_tokens=4000, ignore_eos=True)
    next(stream)
    return stream


def test_streams_that_outlive_the_drain_are_told(router):
    streams = [endless(router) for _ in range(4)]
    router.process.kill(signal.SIGTERM)
    for stream in streams:
        assert code_of(stream) == (grpc.StatusCode.UNAVAILABLE, 'the router is stopping; ask another router, or again later')
    assert router.process.popen.wait(10) == 0
