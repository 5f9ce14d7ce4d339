# SPDX-License-Identifier: Apache-2.0
"""Held-out text as sequences, and what is measured on it: bits per byte, and which experts were chosen, by transformers or by Cadre.

A document is cut into windows of LENGTH - 1 tokens; each begins with an end-of-text token, which is not counted. Bits per byte: the sum of -log2 p over
all tokens of all windows, over the bytes of the text.
"""
import json
import pathlib
import subprocess
import tempfile

import numpy
import tokenizers
from safetensors import safe_open

LENGTH = 512


def domains(directory):
    return [p.stem for p in sorted(directory.glob('*.txt'))]


def sequences(model, path):
    """(windows of token ids, bytes of the text)"""
    tokenizer = tokenizers.Tokenizer.from_file(str(model / 'tokenizer.json'))
    windows, size = [], 0
    for text in path.read_text().split('\f'):
        ids, size = tokenizer.encode(text).ids, size + len(text.encode())
        windows += [[0] + ids[i:i + LENGTH - 1] for i in range(0, len(ids), LENGTH - 1)]
    return windows, size


def bits(logits, ids):
    """Of the tokens after the first."""
    logits = logits[:-1].astype(numpy.float64)
    top = logits.max(1, keepdims=True)
    log_z = numpy.log(numpy.exp(logits - top).sum(1)) + top[:, 0]
    return float((log_z - logits[numpy.arange(len(ids) - 1), ids[1:]]).sum() / numpy.log(2))


def by_transformers(model):
    """A function of a window: (logits [n,V], experts [layers,n,K])."""
    import torch
    import transformers
    net = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation='eager').eval()

    def run(windows):
        for ids in windows:
            with torch.no_grad():
                out = net(torch.tensor([ids]), output_router_logits=True, use_cache=False)
            experts = [layer.view(len(ids), -1).topk(net.config.num_experts_per_tok, dim=1).indices.numpy() for layer in out.router_logits]
            yield out.logits[0].numpy(), numpy.stack(experts)
    return run


def by_cadre(model, cadrectl, *options):
    def run(windows):
        with tempfile.TemporaryDirectory() as directory:
            files = pathlib.Path(directory)
            (files / 'input.json').write_text(json.dumps({'sequences': windows, 'greedy_tokens': 0}))
            subprocess.run([cadrectl, 'eval', '--model', str(model), '--input', str(files / 'input.json'), '--output', str(files / 'output.safetensors'), *options], check=True)
            with safe_open(files / 'output.safetensors', 'numpy') as f:
                for i in range(len(windows)):
                    yield f.get_tensor(f'logits.{i}'), f.get_tensor(f'experts.{i}')
    return run


def measure(run, model, path, experts):
    """Of one domain: {'bits_per_byte', 'bytes', 'tokens'} and use [layers, experts], rows of each expert."""
    windows, size = sequences(model, path)
    total, use = 0.0, None
    for ids, (logits, chosen) in zip(windows, run(windows)):
        total += bits(logits, ids)
        counts = numpy.stack([numpy.bincount(layer.flatten(), minlength=experts) for layer in chosen])
        use = counts if use is None else use + counts
    return {'bits_per_byte': total / size, 'bytes': size, 'tokens': sum(len(w) - 1 for w in windows)}, use
