#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what transformers computes for a few short sequences of held-out text, for tests/unit/test_golden.c.

usage: golden.py MODEL --heldout DIR --output DIR
"""
import argparse
import json
import pathlib
import random

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

import heldout

LENGTHS = {'go': 1, 'sql': 2, 'ja': 9, 'en': 40, 'c': 33, 'ru': 12}       # logits are large: 16 KB a token
LONG, GREEDY_TOKENS = 4, 16
FIXED_TEXTS = ['', ' ', '  ', '\n', '\t', '\r\n', '\u00a0', '<|endoftext|>', 'a<|endoftext|>b', "don't", '2026-11-22', '\x00', 'e\u0301', '\U0001f600', '日本語', ' \n  x']


def compute(net, ids):
    with torch.no_grad():
        return net(torch.tensor([ids]), output_router_logits=True, use_cache=False)


def greedy(net, ids):
    ids, margin = list(ids), float('inf')
    for _ in range(GREEDY_TOKENS):
        top = compute(net, ids).logits[0, -1].topk(2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
    return ids[-GREEDY_TOKENS:], margin


def load(model, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation='eager').eval()


def tokenizer_lines(tokenizer, texts):
    for text in texts:
        ids = tokenizer.encode(text).ids
        yield json.dumps({'text': text, 'ids': ids, 'ids_no_special': tokenizer.encode(text, add_special_tokens=False).ids, 'decoded': tokenizer.decode(ids)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=pathlib.Path)
    parser.add_argument('--heldout', type=pathlib.Path, required=True)
    parser.add_argument('--output', type=pathlib.Path, required=True)
    a = parser.parse_args()
    net, tokenizer = load(a.model, torch.float32), tokenizers.Tokenizer.from_file(str(a.model / 'tokenizer.json'))
    k = net.config.num_experts_per_tok
    sequences = [heldout.sequences(a.model, a.heldout / f'{domain}.txt')[0][0][:n] for domain, n in LENGTHS.items()]
    tensors, told = {}, []
    for i, ids in enumerate(sequences):
        out = compute(net, ids)
        router = torch.stack([r.view(len(ids), -1) for r in out.router_logits])
        probabilities = router.softmax(-1)
        chosen = probabilities.topk(k, dim=-1).indices.sort(-1).values
        weights = probabilities.gather(-1, chosen)
        continuation, margin = greedy(net, ids)
        tensors |= {f'tokens.{i}': torch.tensor(ids, dtype=torch.int32), f'logits.{i}': out.logits[0].contiguous(), f'router_logits.{i}': router,
                    f'experts.{i}': chosen.to(torch.int32), f'expert_weights.{i}': weights / weights.sum(-1, keepdim=True),
                    f'greedy.{i}': torch.tensor(continuation, dtype=torch.int32)}
        told.append({'length': len(ids), 'max_abs_logit': round(out.logits.abs().max().item(), 4), 'smallest_greedy_margin': round(margin, 5)})
    wrong = (compute(load(a.model, torch.bfloat16), sequences[LONG]).logits.float() - compute(net, sequences[LONG]).logits).abs().max().item()
    a.output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, a.output / 'expected.safetensors')
    (a.output / 'input.json').write_text(json.dumps({'sequences': sequences, 'greedy_tokens': GREEDY_TOKENS}) + '\n')
    (a.output / 'case.json').write_text(json.dumps({
        'case': a.output.name, 'weights': 'bf16', 'transformers': transformers.__version__, 'torch': torch.__version__, 'attention': 'eager, float32', 'sequences': told,
        f'transformers_in_bf16_on_sequence_{LONG}': {'max_error': round(wrong, 4)}}, indent=1) + '\n')
    rng = random.Random(1)
    texts = FIXED_TEXTS + [text[at:at + rng.randrange(1, 120)] for p in sorted(a.heldout.glob('*.txt')) for text in [p.read_text()] for at in rng.sample(range(len(text)), 12)]
    (a.output / 'tokenizer.jsonl').write_text('\n'.join(tokenizer_lines(tokenizer, texts)) + '\n')
    print(f"{a.output}: {sum(map(len, sequences))} tokens; smallest margin of a greedy choice {min(t['smallest_greedy_margin'] for t in told)}; bf16 differs by {wrong:.4f}")


if __name__ == '__main__':
    main()
