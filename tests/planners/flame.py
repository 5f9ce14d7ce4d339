#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Routing as CMU-FLAME/FLAME-MoE-Traces publishes it (Parquet), as the CSV that `cadrectl trace import` reads.

    flame.py ACTIVES_DIR [--samples FILE --end-of-text ID | --request-tokens 2048] [--tokens N] > trace.csv
    cadrectl trace import trace.csv --experts 64 --model flame-moe-290m --provenance "CMU-FLAME/FLAME-MoE-Traces actives/iter_5473" --output trace.ctr

ACTIVES_DIR is one iteration, actives/iter_NNNN: files layer_NN.parquet with columns `scores` list<float16>[k] and `indices` list<int16>[k], a row for every token, the
same tokens in the same order in every file (https://huggingface.co/datasets/CMU-FLAME/FLAME-MoE-Traces). Samples (samples/NNN.parquet) have `token_id` int32 [row].
The files say nothing of where documents begin: cut behind every end-of-text token of the samples, or else every --request-tokens tokens. Scores are left out.
"""
import argparse
import pathlib
import re
import sys

import pyarrow.parquet as parquet

ROWS = 65536


def layer_files(folder):
    files = {int(match[1]): path for path in pathlib.Path(folder).glob('layer_*.parquet') if (match := re.fullmatch(r'layer_(\d+)\.parquet', path.name))}
    if not files:
        sys.exit(f'{folder} has no files layer_NN.parquet')
    return dict(sorted(files.items()))


def blocks(path, column, tokens):
    """Arrays of up to ROWS rows, `tokens` rows in all."""
    for batch in parquet.ParquetFile(path).iter_batches(ROWS, columns=[column]):
        values = batch.column(0)
        if values.null_count:
            sys.exit(f'{path} has empty rows')
        if not hasattr(values, 'flatten') or column != 'indices':
            array = values.to_numpy(zero_copy_only=False)
        else:
            array = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
        yield array[:tokens]
        tokens -= len(array)
        if tokens <= 0:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('actives')
    parser.add_argument('--samples')
    parser.add_argument('--end-of-text', type=int)
    parser.add_argument('--request-tokens', type=int, default=2048)
    parser.add_argument('--tokens', type=int, default=100000, help='of the beginning')
    arguments = parser.parse_args()
    if (arguments.samples is None) != (arguments.end_of_text is None):
        parser.error('--samples and --end-of-text go together')
    files = layer_files(arguments.actives)
    layers = [blocks(path, 'indices', arguments.tokens) for path in files.values()]
    samples = blocks(arguments.samples, 'token_id', arguments.tokens) if arguments.samples else None
    request = position = token = 0
    for parts in zip(*layers, strict=True):
        if len({part.shape for part in parts}) != 1:
            sys.exit(f'{arguments.actives}: the files have rows of different numbers or lengths')
        ids = next(samples, []) if samples else None
        if samples and len(ids) < len(parts[0]):
            sys.exit(f'{arguments.samples} has fewer rows than the files of layers')
        if token == 0:
            print('request,position,layer,' + ','.join(f'e{i}' for i in range(parts[0].shape[1])))
        for row in range(len(parts[0])):
            for layer, part in zip(files, parts):
                print(request, position, layer, *part[row], sep=',')
            token, position = token + 1, position + 1
            if ids[row] == arguments.end_of_text if samples else position == arguments.request_tokens:
                request, position = request + 1, 0


if __name__ == '__main__':
    main()
