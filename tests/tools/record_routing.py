#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records which experts a model selects for texts, as a trace in CSV (docs/TRACES.md). Needs nothing but Python and cadrectl.

usage: record_routing.py MODEL TEXT... --output TRACE.csv [--cadrectl build/bin/cadrectl] [--window 512]

A form feed in a text file stands between documents. A request is a window of a document; windows of the files take turns, so that the beginning and the end of a trace
are of the same mixture.
"""
import argparse
import csv
import itertools
import json
import pathlib
import struct
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH = 16          # windows that are computed at once: their logits are written, too


class Tensors:
    """A safetensors file, read one tensor at a time."""
    TYPES = {'I32': 'i', 'F32': 'f'}

    def __init__(self, path):
        self.file = open(path, 'rb')
        size, = struct.unpack('<Q', self.file.read(8))
        self.header, self.data = json.loads(self.file.read(size)), 8 + size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def get(self, name):
        """(shape, values in one list)"""
        entry = self.header[name]
        begin, end = entry['data_offsets']
        self.file.seek(self.data + begin)
        return entry['shape'], memoryview(self.file.read(end - begin)).cast(self.TYPES[entry['dtype']]).tolist()


def windows(cadrectl, model, paths, length, folder):
    """Token ids of windows, a file's turn at a time."""
    per_file = []
    for path in paths:
        lines = [json.dumps({'text': text}) for text in path.read_text().split('\f')]
        (folder / 'texts').write_text('\n'.join(lines) + '\n')
        subprocess.run([cadrectl, 'tokenize', '--tokenizer', model / 'tokenizer.json', '--input', folder / 'texts', '--output', folder / 'ids'], check=True)
        documents = [json.loads(line)['ids'] for line in (folder / 'ids').read_text().splitlines()]
        per_file.append([ids[i:i + length] for ids in documents for i in range(0, len(ids), length)])
    return [w for turn in itertools.zip_longest(*per_file) for w in turn if w is not None]


def select(cadrectl, model, batch, folder):
    """Of each window: rows [layer][token] of expert ids, in order of selection."""
    (folder / 'input').write_text(json.dumps({'sequences': batch, 'greedy_tokens': 0}))
    subprocess.run([cadrectl, 'eval', '--model', model, '--input', folder / 'input', '--output', folder / 'output'], check=True)
    with Tensors(folder / 'output') as output:
        for i in range(len(batch)):
            (layers, n, k), ids = output.get(f'experts.{i}')
            _, weights = output.get(f'expert_weights.{i}')
            rows = [sorted(range(at, at + k), key=lambda j: -weights[j]) for at in range(0, layers * n * k, k)]
            yield [[[ids[j] for j in row] for row in rows[layer * n:(layer + 1) * n]] for layer in range(layers)]


def moe_layers(model):
    """The indices in the model of its MoE layers."""
    config = json.loads((model / 'config.json').read_text())
    step, dense = config.get('decoder_sparse_step', 1), config.get('mlp_only_layers', [])
    return [n for n in range(config['num_hidden_layers']) if n not in dense and (n + 1) % step == 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=pathlib.Path)
    parser.add_argument('texts', type=pathlib.Path, nargs='+')
    parser.add_argument('--output', type=pathlib.Path, required=True)
    parser.add_argument('--cadrectl', default=ROOT / 'build/bin/cadrectl')
    parser.add_argument('--window', type=int, default=512)
    a = parser.parse_args()
    layers = moe_layers(a.model)
    with tempfile.TemporaryDirectory() as name, open(a.output, 'w', newline='') as out:
        folder, writer, request = pathlib.Path(name), csv.writer(out, lineterminator='\n'), 0
        todo = windows(a.cadrectl, a.model, a.texts, a.window, folder)
        for begin in range(0, len(todo), BATCH):
            for chosen in select(a.cadrectl, a.model, todo[begin:begin + BATCH], folder):
                if request == 0:
                    writer.writerow(['request', 'position', 'layer'] + [f'e{i}' for i in range(len(chosen[0][0]))])
                for position in range(len(chosen[0])):
                    writer.writerows([request, position, layer] + chosen[i][position] for i, layer in enumerate(layers))
                request += 1
    print(f'{a.output}: {request} requests, {sum(map(len, todo))} tokens, {len(layers)} layers')


if __name__ == '__main__':
    main()
