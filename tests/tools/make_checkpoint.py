#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a checkpoint with random weights in published layout: shapes to measure with, no meaning. Needs nothing but Python.

usage: make_checkpoint.py DIR [--shape small|1b|latent|olmoe] [--layers N] [--seed N]
The tokenizer is taken from tests/golden, so prompts are best given as tokens.
"""
import argparse
import json
import math
import pathlib
import random
import shutil
import struct

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / 'golden'
SHAPES = {
    # about 1 B parameters, 0.25 B active: fine-grained experts, top-8 of 64
    '1b': dict(hidden=1024, layers=10, heads=16, kv_heads=8, head=64, experts=64, topk=8, ffn=448, vocab=16384),
    # the same experts under latent attention as DeepSeek-V3 has it: 288 values of a token are kept instead of 2560
    'latent': dict(hidden=1024, layers=10, heads=16, experts=64, topk=8, ffn=448, vocab=16384, q_rank=384, kv_rank=256, nope=64, rope=32, value=64),
    'small': dict(hidden=256, layers=4, heads=8, kv_heads=4, head=32, experts=16, topk=4, ffn=128, vocab=2048),
    'olmoe': dict(hidden=2048, layers=16, heads=16, kv_heads=16, head=128, experts=64, topk=8, ffn=1024, vocab=50304),
}


class Noise:
    """Random bf16 numbers of about a given standard deviation: one block a deviation, of which every tensor takes a stretch from a random place on."""
    ELEMENTS = 1 << 22

    def __init__(self, rng):
        self.rng, self.blocks = rng, {}

    def take(self, elements, std):
        exponent = 127 + round(math.log2(std))
        if exponent not in self.blocks:
            table = [struct.pack('<H', self.rng.getrandbits(1) << 15 | exponent - self.rng.choice((0, 0, 0, 1, 1, 2, 3)) << 7 | self.rng.getrandbits(7)) for _ in range(4096)]
            self.blocks[exponent] = b''.join(self.rng.choices(table, k=self.ELEMENTS)) * 2
        block = self.blocks[exponent]
        while elements > 0:
            n, begin = min(elements, self.ELEMENTS), 2 * self.rng.randrange(self.ELEMENTS)
            yield memoryview(block)[begin:begin + 2 * n]
            elements -= n


def grouped_attention(s):
    h, q, kv = s['hidden'], s['heads'] * s['head'], s['kv_heads'] * s['head']
    return [('q_proj', (q, h)), ('k_proj', (kv, h)), ('v_proj', (kv, h)), ('o_proj', (h, q)), ('q_norm', (s['head'],)), ('k_norm', (s['head'],))]


def latent_attention(s):
    h, heads = s['hidden'], s['heads']
    return [('q_a_proj', (s['q_rank'], h)), ('q_a_layernorm', (s['q_rank'],)), ('q_b_proj', (heads * (s['nope'] + s['rope']), s['q_rank'])), ('kv_a_proj_with_mqa', (s['kv_rank'] + s['rope'], h)),
            ('kv_a_layernorm', (s['kv_rank'],)), ('kv_b_proj', (heads * (s['nope'] + s['value']), s['kv_rank'])), ('o_proj', (h, heads * s['value']))]


def ffn_of(prefix, h, f):
    return [(prefix + 'gate_proj.weight', (f, h)), (prefix + 'up_proj.weight', (f, h)), (prefix + 'down_proj.weight', (h, f))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', type=pathlib.Path)
    parser.add_argument('--shape', choices=SHAPES, default='1b')
    parser.add_argument('--layers', type=int, help='so many instead of those of the shape')
    parser.add_argument('--positions', type=int, default=4096, help='the longest context (default 4096)')
    parser.add_argument('--seed', type=int, default=1)
    a = parser.parse_args()
    s, rng = dict(SHAPES[a.shape]), random.Random(a.seed)
    s['layers'] = a.layers or s['layers']
    noise = Noise(rng)
    a.directory.mkdir(parents=True, exist_ok=True)
    config = dict(architectures=['Qwen3MoeForCausalLM'], model_type='qwen3_moe', hidden_size=s['hidden'], num_hidden_layers=s['layers'], num_attention_heads=s['heads'],
                  num_key_value_heads=s.get('kv_heads'), head_dim=s.get('head'), num_experts=s['experts'], num_experts_per_tok=s['topk'], moe_intermediate_size=s['ffn'],
                  intermediate_size=4 * s['hidden'], vocab_size=s['vocab'], max_position_embeddings=a.positions, rms_norm_eps=1e-6, rope_theta=1e6, norm_topk_prob=True,
                  decoder_sparse_step=1, mlp_only_layers=[], tie_word_embeddings=False, attention_bias=False, hidden_act='silu', torch_dtype='bfloat16',
                  bos_token_id=None, eos_token_id=0, use_sliding_window=False, sliding_window=None)
    latent = 'kv_rank' in s
    if latent:
        for key in ('head_dim', 'num_experts', 'decoder_sparse_step', 'mlp_only_layers', 'use_sliding_window', 'sliding_window'):
            config.pop(key)
        config |= dict(architectures=['DeepseekV3ForCausalLM'], model_type='deepseek_v3', num_key_value_heads=s['heads'], n_routed_experts=s['experts'], n_shared_experts=1, n_group=1, topk_group=1,
                       first_k_dense_replace=1, routed_scaling_factor=2.5, q_lora_rank=s['q_rank'], kv_lora_rank=s['kv_rank'], qk_nope_head_dim=s['nope'], qk_rope_head_dim=s['rope'],
                       v_head_dim=s['value'])
    (a.directory / 'config.json').write_text(json.dumps(config, indent=1))
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copyfile(GOLDEN / 'qwen3moe-a' / 'model' / name, a.directory / name)
    h, f = s['hidden'], s['ffn']
    tensors = [('model.embed_tokens.weight', (s['vocab'], h)), ('model.norm.weight', (h,)), ('lm_head.weight', (s['vocab'], h))]
    for layer in range(s['layers']):
        p = f'model.layers.{layer}.'
        tensors += [(p + 'input_layernorm.weight', (h,)), (p + 'post_attention_layernorm.weight', (h,))]
        tensors += [(p + f'self_attn.{name}.weight', shape) for name, shape in (latent_attention(s) if latent else grouped_attention(s))]
        if latent and layer == 0:
            tensors += ffn_of(p + 'mlp.', h, config['intermediate_size'])
            continue
        tensors.append((p + 'mlp.gate.weight', (s['experts'], h)))
        if latent:
            tensors += [(p + 'mlp.gate.e_score_correction_bias', (s['experts'],)), *ffn_of(p + 'mlp.shared_experts.', h, f)]
        for e in range(s['experts']):
            tensors += ffn_of(p + f'mlp.experts.{e}.', h, f)
    header, at = {}, 0
    for name, shape in tensors:
        size = 2
        for n in shape:
            size *= n
        header[name] = dict(dtype='BF16', shape=list(shape), data_offsets=[at, at + size])
        at += size
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(a.directory / 'model.safetensors', 'wb') as out:
        out.write(struct.pack('<Q', len(text)) + text)
        for name, shape in tensors:
            elements = 1
            for n in shape:
                elements *= n
            for block in [struct.pack('<H', 0x3f80) * elements] if len(shape) == 1 else noise.take(elements, shape[1] ** -0.5):
                out.write(block)
    print(f'{a.directory}: {at / 2 / 1e9:.2f} B parameters, {at / 1e9:.2f} GB')


main()
