# SPDX-License-Identifier: Apache-2.0
"""Host names for which DNS stops answering. It takes 10 s until a resolver gives up."""
import functools
import os
import shutil

from name_server import NameServer
from rows import KERNEL, row
from world import World, until

ADDRESS = '127.9.9.9'   # of the name server


class Here(NameServer):
    """Every name is this machine's."""

    def find(self, name):
        return ['127.0.0.1']


@functools.cache
def no_names():
    """What is missing for a name server of one's own, or None."""
    if os.geteuid() != 0 or not shutil.which('unshare'):
        return 'only root may give processes an /etc/resolv.conf of their own'
    try:
        Here(ADDRESS).socket.close()
    except OSError as error:
        return f'no name server at {ADDRESS}:53: {error}'
    return None


class NamesWorld(World):
    """Processes ask a name server of their own, to which NAME.test is each of them."""
    NEEDS = (no_names,)

    def __init__(self, named, **options):
        self.named, self.names = named, Here(ADDRESS)
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
