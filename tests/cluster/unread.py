# SPDX-License-Identifier: Apache-2.0
"""A client that asks and never reads: HTTP/2 by hand, since every library opens windows by itself."""
import socket
import struct
import time

SETTINGS, HEADERS, DATA = 4, 1, 0
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4


def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload


def literal(name, value):
    """A header field, literal, without indexing (RFC 7541, 6.2.2)."""
    name, value = name.encode(), value.encode()
    assert len(name) < 127 and len(value) < 127
    return b'\0' + bytes([len(name)]) + name + bytes([len(value)]) + value


class Unread:
    """One connection whose streams have no window at all: not one byte of an answer can be sent."""

    def __init__(self, address):
        host, port = address.rsplit(':', 1)
        self.host = address
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + frame(SETTINGS, 0, 0, struct.pack('>HI', INITIAL_WINDOW_SIZE, 0)))
        self.next_stream = 1
        self.received = b''

    def generate(self, message):
        headers = b''.join(literal(*field) for field in [
            (':method', 'POST'), (':scheme', 'http'), (':path', '/cadre.v1.Inference/Generate'), (':authority', self.host), ('te', 'trailers'), ('content-type', 'application/grpc')])
        body = message.SerializeToString()
        self.socket.sendall(frame(HEADERS, END_HEADERS, self.next_stream, headers) + frame(DATA, END_STREAM, self.next_stream, b'\0' + struct.pack('>I', len(body)) + body))
        self.next_stream += 2

    def wait_for(self, text, count, seconds):
        """Until the headers and trailers that came hold `text` so many times: gRPC writes it out."""
        end = time.monotonic() + seconds
        self.socket.settimeout(0.1)
        while self.received.count(text) < count:
            assert time.monotonic() < end, f'{self.received.count(text)} of {count} after {seconds} s: {self.received[-2000:]}'
            try:
                got = self.socket.recv(1 << 16)
                assert got, 'the connection was closed'
                self.received += got
            except TimeoutError:
                pass

    def close(self):
        self.socket.close()
