# SPDX-License-Identifier: Apache-2.0
"""A name server whose answers a test changes."""
import ipaddress
import socket
import struct
import threading

A, AAAA = 1, 28
NO_ERROR, NO_SUCH_NAME = 0, 3


class NameServer(threading.Thread):
    """RFC 1035, over UDP. `records`: addresses by name; a name that is not there does not exist. While it is `silent` it says nothing at all."""

    def __init__(self, address, records=()):
        super().__init__(daemon=True)
        self.records, self.silent, self.asked = dict(records), False, 0
        self.address = address, 53
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(self.address)

    def run(self):
        while True:
            question, client = self.socket.recvfrom(512)
            if not question:
                return
            self.asked += 1
            if not self.silent:
                self.socket.sendto(self.answer(question), client)

    def find(self, name):
        """Addresses; None: no such name."""
        return self.records.get(name)

    def answer(self, question):
        end = question.index(b'\0', 12)
        kind, = struct.unpack('>H', question[end + 1:end + 3])
        found = self.find(name_of(question[12:end]))
        records = [record(kind, ipaddress.ip_address(address)) for address in found or ()]
        records = [r for r in records if r]
        code = NO_SUCH_NAME if found is None else NO_ERROR
        return question[:2] + struct.pack('>HHHHH', 0x8180 | code, 1, len(records), 0, 0) + question[12:end + 5] + b''.join(records)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b'', self.address)
        self.join()
        self.socket.close()


def name_of(labels):
    words = []
    while labels:
        words.append(labels[1:1 + labels[0]].decode())
        labels = labels[1 + labels[0]:]
    return '.'.join(words)


def record(kind, address):
    """Of the name that was asked for, for no time at all; nothing where another kind is asked for."""
    if kind != (A if address.version == 4 else AAAA):
        return b''
    return struct.pack('>HHHIH', 0xc00c, kind, 1, 0, len(address.packed)) + address.packed
