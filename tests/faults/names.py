# SPDX-License-Identifier: Apache-2.0
"""Host names for which DNS stops answering. It takes 10 s until a resolver gives up."""
import functools
import os
import shutil
import socket
import struct
import threading

from rows import KERNEL, row
from world import World, until

ADDRESS = '127.9.9.9'   # of the name server
A = 1                   # a record with an IPv4 address


class NameServer(threading.Thread):
    """Answers that NAME.test, whatever NAME is, is 127.0.0.1; or nothing at all, not even that it does not know."""

    def __init__(self):
        super().__init__(daemon=True)
        self.silent = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ADDRESS, 53))

    def run(self):
        while True:
            question, client = self.socket.recvfrom(512)
            if not question:
                return
            if not self.silent:
                self.socket.sendto(answer(question), client)

    def close(self):
        self.socket.sendto(b'', (ADDRESS, 53))
        self.join()
        self.socket.close()


def answer(question):
    """RFC 1035, 4.1: an address of 127.0.0.1 where an IPv4 one is asked for, else no record."""
    end = question.index(b'\0', 12) + 5
    kind, = struct.unpack('>H', question[end - 4:end - 2])
    records = struct.pack('>HHHIH4B', 0xc00c, A, 1, 0, 4, 127, 0, 0, 1) if kind == A else b''
    return question[:2] + b'\x81\x80' + struct.pack('>HHHH', 1, bool(records), 0, 0) + question[12:end] + records


@functools.cache
def no_names():
    """What is missing for a name server of one's own, or None."""
    if os.geteuid() != 0 or not shutil.which('unshare'):
        return 'only root may give processes an /etc/resolv.conf of their own'
    try:
        NameServer().socket.close()
    except OSError as error:
        return f'no name server at {ADDRESS}:53: {error}'
    return None


class NamesWorld(World):
    """Processes ask a name server of their own, to which NAME.test is each of them."""
    NEEDS = (no_names,)

    def __init__(self, named, **options):
        self.named, self.names = named, NameServer()
        self.names.start()
        super().__init__(**options)

    def process(self, name, arguments):
        file = self.directory / 'resolv.conf'
        file.write_text(f'nameserver {ADDRESS}\n')
        return super().process(name, ['unshare', '--mount', 'sh', '-c', f'mount --bind {file} /etc/resolv.conf && exec "$@"', 'sh', *self.by_name(name, list(map(str, arguments)))])

    def by_name(self, name, arguments):
        """The arguments with names in place of addresses."""
        if self.named == 'placement' and name != 'placement':
            arguments = [a.replace('127.0.0.1', 'placement.test') if a == self.placement_grpc else a for a in arguments]
        if self.named == 'nodes' and name.startswith('expert'):
            arguments = [f'{name}.test:0' if before == '--exchange' else a for before, a in zip([''] + arguments, arguments)]
        return arguments

    def __exit__(self, *_):
        try:
            super().__exit__()
        finally:
            self.names.close()


@row(KERNEL, world=NamesWorld, named='nodes', hold=3)
def dns_silent_for_a_node(world):
    """DNS silent for the names of expert nodes, one of which is killed and restarted"""
    world.names.silent = True
    world.experts[1].kill()
    world.restart(world.experts[1])
    yield
    world.names.silent = False
    if not world.experts[1].alive():   # it does not know its own address
        world.experts[1].start()
    until(world.all_live, 15, 'every node is live and every expert placed')


@row(KERNEL, world=NamesWorld, named='placement', hold=3)
def dns_silent_for_placement(world):
    """DNS silent for the name of the placement service, which is killed and restarted"""
    world.names.silent = True
    world.placement.kill()
    world.restart(world.placement)
    yield
    until(world.all_live, 15, 'every node is live and every expert placed, at the last known address')
