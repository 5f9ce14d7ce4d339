# SPDX-License-Identifier: Apache-2.0
"""Processes that join and should not have: whoever works already goes on."""
import json
import pathlib
import shutil
import struct
import tempfile

from load import TOKENS, prompt
from network import NetworkWorld
from rows import KERNEL, row
from world import MODEL, is_ready, replaced, without
from wheel import no_other_ucx, other_ucx

JOIN_S = 6   # time for a newcomer to be taken up and to do harm


class WrongWeights:
    """A checkpoint with the files of models/demo, but other bytes in one tensor: nothing in its headers tells. Use as a context manager."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='cadre-wrong-'))
        for file in MODEL.iterdir():
            if file.suffix == '.safetensors':
                shutil.copy(file, self.directory)
                self.change(self.directory / file.name)
            elif file.is_file():
                (self.directory / file.name).symlink_to(file)
        return self.directory

    def change(self, path):
        with open(path, 'r+b') as file:
            length, = struct.unpack('<Q', file.read(8))
            begin, end = next(at['data_offsets'] for name, at in json.loads(file.read(length)).items() if self.tensor in name)
            file.seek(8 + length + begin)
            values = file.read(end - begin)
            file.seek(8 + length + begin)
            file.write(values[4:] + values[:4])   # numbers still, at other places

    def __exit__(self, *_):
        shutil.rmtree(self.directory)


def leaves(world, node, *words):
    """It has got nothing, was told why, and goes."""
    assert world.holds_nothing(node.name), f'{node.name} was given experts'
    said = node.log.read_text()
    assert all(word in said for word in words), f'{node.name} does not say why it gets nothing: {", ".join(words)}'
    node.stop()


@row(KERNEL, hold=JOIN_S)
def node_wrong_weights(world):
    """an expert node with other expert weights under the same headers joins"""
    with WrongWeights('.mlp.experts.') as model:
        node = world.newcomer(world.add_expert, lambda arguments: replaced(arguments, '--model', model))
        yield
        node.stop()   # it loads experts, which are compared, freed, and in no map


@row(KERNEL, hold=JOIN_S, secret=True)
def node_without_secret(world):
    """an expert node without the cluster secret joins"""
    node = world.newcomer(world.add_expert, lambda arguments: without(arguments, '--secret-file'))
    yield
    leaves(world, node, 'secret')


@row(KERNEL, hold=JOIN_S, secret=True)
def node_wrong_secret(world):
    """an expert node with another secret joins"""
    other = world.directory / 'other'
    other.write_text('a secret of another kind\n')
    other.chmod(0o600)
    node = world.newcomer(world.add_expert, lambda arguments: replaced(arguments, '--secret-file', other))
    yield
    leaves(world, node, 'secret')


@row(KERNEL, hold=JOIN_S, world=NetworkWorld, spare=['expert-3'])
def node_unreachable(world):
    """an expert node that no router can reach joins"""
    world.network.both_ways('cut', 'router-0', 'expert-3')
    node = world.newcomer(world.add_expert)
    yield
    leaves(world, node)


@row(KERNEL, hold=JOIN_S, world=NetworkWorld, spare=['expert-3'])
def node_on_loopback(world):
    """an expert node on another host joins whose exchange is on loopback"""
    node = world.newcomer(world.add_expert, lambda arguments: replaced(replaced(arguments, '--exchange', '127.0.0.1:0'), '--ucx-devices', 'lo'))
    yield
    leaves(world, node, 'no other machine can reach')


@row(KERNEL, hold=JOIN_S, needs=[no_other_ucx])
def node_other_ucx(world):
    """an expert node with UCX 1.22.0 joins"""
    node = world.newcomer(world.add_expert, libraries=other_ucx())
    yield
    leaves(world, node, 'ucx-1.22', 'ucx-1.13')


def refused_or_equal(world, router):
    """It serves nothing, or the right thing."""
    if is_ready(router.http):
        answer = router.generate(tokens=prompt(0), max_tokens=TOKENS, ignore_eos=True)
        assert answer.digest == world.load.streams[0].digest, 'a router with other weights serves, and its answers have other digests'


@row(KERNEL, hold=JOIN_S)
def router_wrong_weights(world):
    """a router with other attention weights under the same headers joins"""
    with WrongWeights('.self_attn.q_proj.') as model:
        router = world.newcomer(world.add_router, lambda arguments: replaced(arguments, '--model', model))
        yield
        refused_or_equal(world, router)
        router.process.stop()
