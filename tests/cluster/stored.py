# SPDX-License-Identifier: Apache-2.0
"""A checkpoint whose matrices are in FP8, in blocks of 128 x 128 with a scale each: another one's shapes, with weights of its own."""
import json
import math
import pathlib
import random
import shutil
import struct

BLOCK = 128


def tensors_of(model):
    """{name: (dtype, shape, bytes)} of all its files."""
    found = {}
    for file in sorted(model.glob('*.safetensors')):
        data = file.read_bytes()
        end = 8 + struct.unpack('<Q', data[:8])[0]
        for name, entry in json.loads(data[8:end]).items():
            if name != '__metadata__':
                begin, after = entry['data_offsets']
                found[name] = entry['dtype'], entry['shape'], data[end + begin:end + after]
    return found


def write(file, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack('<Q', len(text)) + text + b''.join(data for _, _, data in tensors.values()))


def fp8_model(like: pathlib.Path, directory: pathlib.Path):
    """Matrices of layers but the gates are random, of either sign and from 0.5 to 3.75 times a scale near 1/16."""
    rng, tensors = random.Random(8), {}
    values = [sign << 7 | exponent << 3 | mantissa for sign in (0, 1) for exponent in (6, 7, 8) for mantissa in range(8)]
    for name, (dtype, shape, data) in tensors_of(like).items():
        if '.layers.' not in name or len(shape) != 2 or name.endswith('gate.weight'):
            tensors[name] = dtype, shape, data
            continue
        blocks = [math.ceil(n / BLOCK) for n in shape]
        tensors[name] = 'F8_E4M3', shape, bytes(rng.choices(values, k=math.prod(shape)))
        tensors[name + '_scale_inv'] = 'F32', blocks, b''.join(struct.pack('<f', rng.uniform(0.05, 0.07)) for _ in range(math.prod(blocks)))
    shutil.copytree(like, directory, ignore=shutil.ignore_patterns('*.safetensors*'))
    write(directory / 'model.safetensors', tensors)
    config = json.loads((directory / 'config.json').read_text())
    config['quantization_config'] = {'quant_method': 'fp8', 'weight_block_size': [BLOCK, BLOCK]}
    (directory / 'config.json').write_text(json.dumps(config))
    return directory
