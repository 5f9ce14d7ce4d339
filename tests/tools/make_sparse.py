#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a checkpoint as large as published ones are, in shards with an index, whose files are all holes: headers are right, weights are 0, and
the disk holds next to nothing. Needs nothing but Python.

usage: make_sparse.py DIR [--layers N] [--experts N] [--shard-bytes N]
"""
import argparse
import json
import pathlib
import shutil
import struct

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / 'golden'
HIDDEN, FFN, HEADS, KV_HEADS, HEAD, TOPK = 512, 2816, 8, 2, 64, 4   # an expert has 8.3 MiB


def names_and_shapes(layers, experts, vocab):
    yield 'model.embed_tokens.weight', (vocab, HIDDEN)
    for layer in range(layers):
        p = f'model.layers.{layer}.'
        yield p + 'input_layernorm.weight', (HIDDEN,)
        yield p + 'post_attention_layernorm.weight', (HIDDEN,)
        yield p + 'self_attn.q_proj.weight', (HEADS * HEAD, HIDDEN)
        yield p + 'self_attn.k_proj.weight', (KV_HEADS * HEAD, HIDDEN)
        yield p + 'self_attn.v_proj.weight', (KV_HEADS * HEAD, HIDDEN)
        yield p + 'self_attn.o_proj.weight', (HIDDEN, HEADS * HEAD)
        yield p + 'self_attn.q_norm.weight', (HEAD,)
        yield p + 'self_attn.k_norm.weight', (HEAD,)
        yield p + 'mlp.gate.weight', (experts, HIDDEN)
        for e in range(experts):
            yield p + f'mlp.experts.{e}.gate_proj.weight', (FFN, HIDDEN)
            yield p + f'mlp.experts.{e}.up_proj.weight', (FFN, HIDDEN)
            yield p + f'mlp.experts.{e}.down_proj.weight', (HIDDEN, FFN)
    yield 'model.norm.weight', (HIDDEN,)
    yield 'lm_head.weight', (vocab, HIDDEN)


def size_of(shape):
    size = 2
    for n in shape:
        size *= n
    return size


def write_shard(path, tensors):
    header, at = {}, 0
    for name, shape in tensors:
        header[name] = dict(dtype='BF16', shape=list(shape), data_offsets=[at, at + size_of(shape)])
        at += size_of(shape)
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as out:
        out.write(struct.pack('<Q', len(text)) + text)
        out.truncate(8 + len(text) + at)
    return at


def make(directory, layers=12, experts=1024, shard_bytes=5_000_000_000):
    """Returns where each tensor's bytes are: name -> (file, first, end)."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = json.loads((GOLDEN / 'qwen3moe-a' / 'model' / 'config.json').read_text())
    config |= dict(hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD, num_experts=experts, num_experts_per_tok=TOPK,
                   moe_intermediate_size=FFN, mlp_only_layers=[])
    (directory / 'config.json').write_text(json.dumps(config, indent=1))
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copyfile(GOLDEN / 'qwen3moe-a' / 'model' / name, directory / name)

    shards, filled = [[]], 0
    for name, shape in names_and_shapes(layers, experts, config['vocab_size']):
        if filled + size_of(shape) > shard_bytes and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += size_of(shape)

    index, places, total = {}, {}, 0
    for number, tensors in enumerate(shards, 1):
        path = directory / f'model-{number:05}-of-{len(shards):05}.safetensors'
        total += write_shard(path, tensors)
        at = path.stat().st_size - sum(size_of(shape) for _, shape in tensors)
        for name, shape in tensors:
            index[name], places[name] = path.name, (path, at, at + size_of(shape))
            at += size_of(shape)
    (directory / 'model.safetensors.index.json').write_text(json.dumps(dict(metadata=dict(total_size=total), weight_map=index)))
    return places


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', type=pathlib.Path)
    parser.add_argument('--layers', type=int, default=12)
    parser.add_argument('--experts', type=int, default=1024)
    parser.add_argument('--shard-bytes', type=int, default=5_000_000_000)
    a = parser.parse_args()
    made = make(a.directory, a.layers, a.experts, a.shard_bytes)
    print(f'{a.directory}: {sum(end - first for _, first, end in made.values()) / 1e9:.1f} GB in {len({path for path, _, _ in made.values()})} files')
