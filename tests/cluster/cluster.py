# SPDX-License-Identifier: Apache-2.0
"""Starts real clusters of real processes on loopback, and asks them things."""
import concurrent.futures
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import grpc

import certificates
import reflect

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault('CADRE_SPEED', '1')   # nodes share this machine with others: what one of them measures says little
BIN = pathlib.Path(os.environ.get('CADRE_BIN', ROOT / 'build' / 'bin'))
GOLDEN = ROOT / 'tests' / 'golden'
READY_S = 60
WITHOUT_EMU = {'condition': not (BIN.parent / 'lib' / 'cadre' / 'libcadre-emu.so').exists(), 'reason': 'this build has no emulated GPU'}   # for skipif


def own_ports():
    """Those of this worker, of several (pytest-xdist): below those that the system hands out (ip_local_port_range), so that whoever asks for any port meanwhile gets none of them."""
    worker, workers = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:]), int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
    first, count = 10000, (32768 - 10000) // workers
    return range(first + worker * count, first + (worker + 1) * count)


def in_turn():
    while True:
        yield from random.sample(own_ports(), len(own_ports()))


ports = in_turn()


def free_port():
    """Nobody listens there, and it was not handed out before: who got it may not listen yet."""
    for port in ports:
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', port))
                return port
            except OSError:
                pass


def http(address, path, timeout=5):
    with urllib.request.urlopen(f'http://{address}{path}', timeout=timeout) as answer:
        return answer.read().decode()


def metric(address, name):
    """Sum of a metric over its labels."""
    lines = [line for line in http(address, '/metrics').splitlines() if line.startswith(name) and line[len(name):len(name) + 1] in ('{', ' ')]
    return sum(float(line.rsplit(' ', 1)[1]) for line in lines)


class Process:
    def __init__(self, name, arguments, log_directory, env=None, start=True):
        self.name, self.arguments, self.env = name, [str(a) for a in arguments], env
        self.log = log_directory / f'{name}.log'
        self.popen = None
        if start:
            self.start()

    def start(self):
        with open(self.log, 'ab') as log:
            self.popen = subprocess.Popen(self.arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(self.env or {})})

    def kill(self, number=signal.SIGKILL):
        self.popen.send_signal(number)

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def stop(self, seconds=15):
        """Ctrl-C's way. Returns the exit code; a process that does not go is killed and counts as -9."""
        if self.alive():
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
        if self.popen is None:
            return None
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


class Result:
    """One finished generation."""

    def __init__(self, messages):
        self.tokens = [t for m in messages for t in m.token_ids]
        self.text = ''.join(m.text for m in messages)
        last = messages[-1]
        self.digest, self.usage, self.capacity, self.absent, self.finish_reason = last.digest, last.usage, last.capacity, last.absent, last.finish_reason
        self.routing = [r for m in messages for r in m.routing]


class Router:
    def __init__(self, process, grpc_address, http_address, tls=None):
        self.process, self.grpc, self.http, self.tls = process, grpc_address, http_address, tls
        self._server = None

    @property
    def server(self):
        if self._server is None:
            self._server = reflect.Server(self.grpc, self.tls)
        return self._server

    def request(self, tokens=None, text=None, **fields):
        message = self.server.message('cadre.v1.GenerateRequest', **fields)
        if text is not None:
            message.text = text
        else:
            message.tokens.ids.extend(tokens)
        return message

    def stream(self, tokens=None, text=None, timeout=120, **fields):
        return self.server.method('cadre.v1.Inference', 'Generate')(self.request(tokens, text, **fields), timeout=timeout)

    def generate(self, tokens=None, text=None, timeout=120, **fields):
        return Result(list(self.stream(tokens, text, timeout, **fields)))

    def generate_many(self, requests, timeout=120):
        """All at once; results in order. A request is a dict of generate's arguments."""
        self.server
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            return [f.result() for f in [pool.submit(self.generate, timeout=timeout, **r) for r in requests]]

    def close(self):
        if self._server:
            self._server.close()


class Cluster:
    """placement + routers + expert nodes. Use as a context manager."""

    def __init__(self, model, experts=3, routers=1, router_options=(), expert_options=(), placement_options=(), threads=1, router_threads=None, memory=None, env=None, transports=None, start=True, tls=None):
        self.model, self.directory, self.env = pathlib.Path(model), pathlib.Path(tempfile.mkdtemp(prefix='cadre-test-')), env
        self.router_threads = router_threads or threads
        self.threads, self.memory, self.expert_options, self.router_options = threads, memory, list(expert_options), list(router_options)
        if '--streams-per-client' not in self.router_options:
            self.router_options += ['--streams-per-client', 0]   # everybody here comes from one address
        self.start = start   # False: the caller starts each process
        self.tls = tls   # the folder of certificates.cluster: TLS on every hop of gRPC
        self.transports = ['--ucx-transports', transports] if transports else []
        self.placement_grpc, self.placement_http = self.address('placement'), self.address('placement')
        self.placement = self.process('placement', [BIN / 'cadre-placement', '--model', self.model, '--grpc', self.placement_grpc, '--http', self.placement_http,
                                                    '--state', self.directory / 'placement.db', '--experts-min', experts, *self.identity('placement'), *placement_options])
        self.experts, self.routers = [], []
        for _ in range(experts):
            self.add_expert()
        for _ in range(routers):
            self.add_router()

    def host(self, name):
        """Where a process lives. Other surroundings than this machine change this, and `process`."""
        return '127.0.0.1'

    def address(self, name, port=None):
        return f'{self.host(name)}:{free_port() if port is None else port}'

    def exchange(self, name):
        return self.address(name, 0)

    def identity(self, name):
        """The options that show it, and trust the cluster's authority."""
        return certificates.identity(self.tls, name) if self.tls else []

    def process(self, name, arguments):
        return Process(name, arguments, self.directory, self.env, self.start)

    def add_expert(self, options=()):
        name = f'expert-{len(self.experts)}'
        address = self.address(name)
        memory = ['--memory', self.memory] if self.memory else []
        process = self.process(name, [BIN / 'cadre-expert', '--model', self.model, '--placement', self.placement_grpc, '--exchange', self.exchange(name), '--http', address,
                                      '--id', name, '--threads', self.threads, *memory, *self.transports, *self.identity('expert'), *self.expert_options, *options])
        process.http = address
        self.experts.append(process)
        return process

    def add_router(self, options=()):
        name = f'router-{len(self.routers)}'
        grpc_address, http_address = self.address(name), self.address(name)
        process = self.process(name, [BIN / 'cadre-router', '--model', self.model, '--placement', self.placement_grpc, '--exchange', self.exchange(name), '--grpc', grpc_address, '--http', http_address,
                                      '--id', name, '--threads', self.router_threads, *self.transports, *self.identity('router'), *self.router_options, *options])
        router = Router(process, grpc_address, http_address, self.tls)
        self.routers.append(router)
        return router

    def processes(self):
        return [self.placement, *self.experts, *[r.process for r in self.routers]]

    def logs(self):
        return '\n'.join(f'--- {p.name}\n{p.log.read_text(errors="replace")[-4000:]}' for p in self.processes() if p.log.exists())

    def start_all(self):
        """Of a cluster that was made with start=False, when its processes are as they should be."""
        for process in self.processes():
            process.start()
        return self

    def wait_ready(self, seconds=READY_S):
        end = time.monotonic() + seconds
        for router in self.routers:
            while True:
                try:
                    http(router.http, '/readyz')
                    break
                except OSError:
                    assert router.process.alive(), f'{router.process.name} ended\n{self.logs()}'
                    assert time.monotonic() < end, f'not ready after {seconds} s\n{self.logs()}'
                    time.sleep(0.02)
        return self

    def command(self, *words, code=0, timeout=60):
        """What an operator types, and how it must end."""
        return cadrectl(*words, '--placement', self.placement_grpc, *self.identity('operator'), code=code, timeout=timeout)

    def operate(self, *words):
        """JSON of a command that must succeed."""
        return json.loads(self.command(*words, '-o', 'json').stdout)

    def status(self):
        done = self.command('status', '-o', 'json', code=None, timeout=30)
        assert done.returncode in (0, 3), done   # 3: experts are on no node
        return json.loads(done.stdout)

    def node(self, name):
        """As the status shows it."""
        return next(node for node in self.status()['nodes'] if node['id'] == name)

    def __enter__(self):
        try:
            return self.wait_ready() if self.start else self
        except BaseException:   # nobody calls __exit__ then
            self.__exit__()
            raise

    def __exit__(self, *_):
        for router in self.routers:
            router.close()
        threads = [threading.Thread(target=p.stop) for p in self.processes()]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for process in self.processes():
            text = process.log.read_text(errors='replace') if process.log.exists() else ''
            assert 'Sanitizer' not in text and 'runtime error' not in text, f'{process.name}\n{text[-6000:]}'


def cadrectl(*arguments, code=None, timeout=120, **how):
    """Runs it. `code`: what it must end with; None: whatever it is."""
    done = subprocess.run([BIN / 'cadrectl', *map(str, arguments)], capture_output=True, text=True, timeout=timeout, **how)
    assert code in (None, done.returncode), done
    return done


class Again(threading.Thread):
    """Calls `once` with 0, 1, 2, ... beside the test until that is done. What fails there fails the test. Use as a context manager."""

    def __init__(self, once):
        super().__init__()
        self.once, self.over, self.error, self.times = once, threading.Event(), None, 0

    def run(self):
        try:
            while not self.over.is_set():
                self.once(self.times)
                self.times += 1
        except BaseException as error:   # told by the test's own thread
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        if self.error:
            raise self.error
        assert self.times > 0


def until(condition, seconds=30, what='it did not happen'):
    """Waits until condition() is true. Returns what that gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def lines_with(process, text):
    """What a process has said with it."""
    return [line for line in process.log.read_text(errors='replace').splitlines() if text in line]


def wait_for_log(process, text, seconds=30, times=1):
    """Until it has said that so often. Returns when it first did, in seconds of the clock that all of them share."""
    end = time.monotonic() + seconds
    while len(lines_with(process, text)) < times:
        assert time.monotonic() < end, f'{process.name} did not say "{text}" {times} times\n{process.log.read_text(errors="replace")}'
        time.sleep(0.005)
    hours, minutes, seconds = re.search(r'time=\S+T(\d+):(\d+):([\d.]+)Z', lines_with(process, text)[0]).groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def embedded(model, tokens, max_tokens, *options):
    """The same generation without a cluster: what every cluster is compared with."""
    output = subprocess.run([BIN / 'cadrectl', 'generate', '--model', model, '--tokens', ','.join(map(str, tokens)), '--max-tokens', str(max_tokens), '--ignore-eos', '-o', 'json', *options],
                            check=True, capture_output=True, text=True, timeout=120).stdout
    return json.loads(output)


def code_of(call):
    """(status code, details) of a failing call."""
    try:
        list(call) if hasattr(call, '__iter__') else call.result()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError('the call did not fail')
