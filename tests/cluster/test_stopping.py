# SPDX-License-Identifier: Apache-2.0
"""How a router stops while clients are there: in time, and with a word to each of them."""
import signal
import time
import urllib.error

import grpc
import pytest

from cluster import BIN, GOLDEN, Process, Router, code_of, free_port, http

MODEL = GOLDEN / 'mixtral-a' / 'model'


@pytest.fixture
def router(tmp_path, request):
    """A router with its experts inside, and the times to stop that the test asks for."""
    grpc_address, http_address = f'127.0.0.1:{free_port()}', f'127.0.0.1:{free_port()}'
    process = Process('router', [BIN / 'cadre-router', '--local-experts', '--model', MODEL, '--grpc', grpc_address, '--http', http_address, '--threads', '1', *request.param], tmp_path)
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


def not_ready(router):
    """The line of /readyz; None: it is ready."""
    try:
        http(router.http, '/readyz')
    except urllib.error.HTTPError as answer:
        return answer.read().decode().strip()
    return None


def health(router):
    with grpc.insecure_channel(router.grpc, options=[('grpc.use_local_subchannel_pool', 1)]) as channel:
        return channel.unary_unary('/grpc.health.v1.Health/Check')(b'', timeout=10)


SERVING, NOT_SERVING = b'\x08\x01', b'\x08\x02'


@pytest.mark.parametrize('router', [['--drain-delay', '3s', '--drain', '100ms']], indirect=True)
def test_before_it_drains_it_serves_and_is_not_ready(router):
    """For a load balancer that hears of it from a probe: until then, what it sends is served, on old and new connections."""
    assert not_ready(router) is None and health(router) == SERVING
    start = time.monotonic()
    router.process.kill(signal.SIGTERM)
    while not_ready(router) is None:
        time.sleep(0.01)
    assert not_ready(router) == 'stopping' and health(router) == NOT_SERVING
    served = 0
    try:
        while True:
            with grpc.insecure_channel(router.grpc, options=[('grpc.use_local_subchannel_pool', 1)]) as channel:
                assert channel.unary_unary('/cadre.v1.Inference/GetModel')(b'', timeout=10)
            assert len(router.generate(tokens=[1, 2, 3], max_tokens=4, ignore_eos=True).tokens) == 4
            served += 1
    except grpc.RpcError as error:
        assert served > 0 and time.monotonic() - start > 3, error
    assert router.process.popen.wait(10) == 0


@pytest.mark.parametrize('router', [['--drain', '100ms']], indirect=True)
def test_streams_that_outlive_the_drain_are_told(router):
    streams = [endless(router) for _ in range(4)]
    router.process.kill(signal.SIGTERM)
    for stream in streams:
        assert code_of(stream) == (grpc.StatusCode.UNAVAILABLE, 'the router is stopping; ask another router, or again later')
    assert router.process.popen.wait(10) == 0


@pytest.mark.parametrize('router', [['--drain', '1h'], ['--drain-delay', '1h']], indirect=True)
def test_a_second_signal_ends_it_at_once(router):
    stream = endless(router)
    router.process.kill(signal.SIGTERM)
    while not_ready(router) != 'stopping':
        time.sleep(0.01)
    assert router.process.alive()
    router.process.kill(signal.SIGTERM)
    assert router.process.popen.wait(10) == 128 + signal.SIGTERM
    assert code_of(stream)[0] == grpc.StatusCode.UNAVAILABLE
