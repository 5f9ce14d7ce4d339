#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What floods of headers cost a router: memory and CPU of the process, for so many bytes sent.

usage: bench/header_flood.py [--model DIR] [BIN ...]
Each BIN is a folder with a cadre-router, so that two builds can be compared; the default is build/bin. The floods go over bare sockets, on as few connections as the
router allows, and none of them is a valid call. Memory is what is added to the resident set: at most, and what is left when all is sent and the router is idle again.
"""
import argparse
import os
import pathlib
import socket
import struct
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEADERS, SETTINGS, CONTINUATION = 1, 4, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
FRAME_MAX = 16384
REFERENCE = b'\xbe'   # to the newest entry of the header table: a header in one byte


def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload


def number(value, bits):
    top = (1 << bits) - 1
    if value < top:
        return bytes([value])
    out, value = [top], value - top
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def string(text):
    return number(len(text), 7) + text


def header(name, value):
    return b'\x00' + string(name) + string(value)


CALL = (b'\x83\x86\x04' + string(b'/cadre.v1.Inference/GetModel') + b'\x01' + string(b'x') + header(b'content-type', b'application/grpc') + header(b'te', b'trailers'))
TABLE_ENTRY = b'\x40' + string(b'a') + string(b'')


def block(stream, payload, piece=FRAME_MAX, whole=True):
    """A header block in frames of `piece` bytes; not whole: it does not end."""
    pieces = [payload[i:i + piece] for i in range(0, len(payload), piece)]
    out = []
    for i, part in enumerate(pieces):
        last = whole and i == len(pieces) - 1
        out.append(frame(CONTINUATION if i else HEADERS, (END_HEADERS if last else 0) | (0 if i else END_STREAM), stream, part))
    return b''.join(out)


class Connection:
    def __init__(self, port, reads=True):
        self.socket, self.alive, self.stream = socket.create_connection(('127.0.0.1', port)), True, 1
        self.socket.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))
        if reads:
            threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            while self.socket.recv(1 << 16):
                pass
        except OSError:
            pass
        self.alive = False

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            self.alive = False


class Flood:
    """Sends, on a new connection whenever the router has closed the last one."""

    def __init__(self, port, reads=True):
        self.port, self.reads, self.connections, self.bytes = port, reads, [], 0

    def connection(self):
        if not self.connections or not self.connections[-1].alive:
            self.connections.append(Connection(self.port, self.reads))
        return self.connections[-1]

    def send(self, connection, data):
        connection.send(data)
        self.bytes += len(data)

    def calls(self, count, payload, piece=FRAME_MAX):
        for _ in range(count):
            connection = self.connection()
            self.send(connection, block(connection.stream, payload, piece))
            connection.stream += 2

    def endless(self, total, payload, piece=FRAME_MAX):
        """Header blocks that only continue."""
        more = b''.join(frame(CONTINUATION, 0, 1, payload[i:i + piece]) for i in range(0, len(payload), piece))
        last = None
        while self.bytes < total:
            connection = self.connection()
            if connection is not last:
                self.send(connection, block(1, CALL + TABLE_ENTRY, whole=False))
                last = connection
            self.send(connection, more)


def many(size):
    return b''.join(header(b'k%04d' % (i % 10000), b'vvvv') for i in range(size // 43))


FLOODS = {
    'one header of 17 kB a call': lambda flood: flood.calls(2000, CALL + header(b'token', b'v' * 17000)),
    'one header of 900 kB a call': lambda flood: flood.calls(100, CALL + header(b'token', b'v' * 900000)),
    'small headers, 1 MB a call': lambda flood: flood.calls(100, CALL + many(1 << 20)),
    '460 references a call': lambda flood: flood.calls(15000, CALL + TABLE_ENTRY + REFERENCE * 460),
    '30000 references a call': lambda flood: flood.calls(300, CALL + TABLE_ENTRY + REFERENCE * 30000),
    '... in frames of 460': lambda flood: flood.calls(300, CALL + TABLE_ENTRY + REFERENCE * 30000, 460),
    'endless references': lambda flood: flood.endless(8 << 20, REFERENCE * (1 << 16)),
    '... in frames of 460 ': lambda flood: flood.endless(8 << 20, REFERENCE * (1 << 16), 460),
    'endless small headers': lambda flood: flood.endless(32 << 20, many(1 << 16)),
}
UNREAD = {
    'references, answers unread': lambda flood: flood.calls(300, CALL + TABLE_ENTRY + REFERENCE * 30000),
    '... in frames of 460  ': lambda flood: flood.calls(300, CALL + TABLE_ENTRY + REFERENCE * 30000, 460),
}


class Router:
    def __init__(self, folder, model):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen([folder / 'cadre-router', '--local-experts', '--model', model, '--grpc', f'127.0.0.1:{self.port}', '--http', '127.0.0.1:0', '--threads', '1'],
                                        stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(('127.0.0.1', self.port)).close()
                break
            except OSError:
                time.sleep(0.05)
        time.sleep(0.3)

    def memory(self, key='VmRSS'):
        with open(f'/proc/{self.process.pid}/status', encoding='ascii') as status:
            return next(int(line.split()[1]) / 1e3 for line in status if line.startswith(key))

    def cpu(self):
        with open(f'/proc/{self.process.pid}/stat', encoding='ascii') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def settle(self):
        calm, last = 0, self.cpu()
        while calm < 4:
            time.sleep(0.1)
            now = self.cpu()
            calm = calm + 1 if now == last else 0
            last = now


def measure(folder, model, name, send, reads):
    router = Router(folder, model)
    try:
        memory, cpu = router.memory(), router.cpu()
        flood = Flood(router.port, reads)
        send(flood)
        router.settle()
        sent, peak, left, cpu = flood.bytes / 1e6, router.memory('VmHWM') - memory, router.memory() - memory, router.cpu() - cpu
        print(f'{name:28} {sent:8.1f} {len(flood.connections):11} {peak:8.0f} {left:8.0f} {cpu:7.2f}', flush=True)
    finally:
        router.process.kill()
        router.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--model', type=pathlib.Path, default=ROOT / 'tests' / 'golden' / 'olmoe-a' / 'model')
    parser.add_argument('bin', type=pathlib.Path, nargs='*', default=[ROOT / 'build' / 'bin'])
    arguments = parser.parse_args()
    for folder in arguments.bin:
        print(f'{str(folder):28} {"sent MB":>8} {"connections":>11} {"peak MB":>8} {"left MB":>8} {"CPU s":>7}')
        for floods, reads in ((FLOODS, True), (UNREAD, False)):
            for name, send in floods.items():
                measure(folder, arguments.model, name, send, reads)


if __name__ == '__main__':
    main()
