#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a trained state as a Hugging Face checkpoint: config.json, model.safetensors (bf16, one tensor an expert and matrix), tokenizer.json.

usage: export.py WORK DIR [--state decayed.pt]
"""
import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file

from model import Config


def hf_config(c: Config):
    return {'architectures': ['Qwen3MoeForCausalLM'], 'model_type': 'qwen3_moe', 'vocab_size': c.vocab, 'hidden_size': c.hidden, 'num_hidden_layers': c.layers,
            'num_attention_heads': c.heads, 'num_key_value_heads': c.kv_heads, 'head_dim': c.head, 'num_experts': c.experts, 'num_experts_per_tok': c.topk,
            'moe_intermediate_size': c.ffn, 'intermediate_size': c.ffn * c.topk, 'norm_topk_prob': True, 'decoder_sparse_step': 1, 'mlp_only_layers': [], 'hidden_act': 'silu',
            'max_position_embeddings': 2048, 'rms_norm_eps': c.eps, 'rope_theta': c.rope_theta, 'rope_scaling': None, 'attention_bias': False, 'attention_dropout': 0.0,
            'sliding_window': None, 'use_sliding_window': False, 'tie_word_embeddings': True, 'initializer_range': 0.02, 'bos_token_id': None, 'eos_token_id': 0,
            'pad_token_id': None, 'torch_dtype': 'bfloat16', 'use_cache': True}


def hf_tensors(state, c: Config):
    tensors = {'model.embed_tokens.weight': state['embed'], 'model.norm.weight': state['norm']}
    kv = c.kv_heads * c.head
    for layer in range(c.layers):
        own, p = f'layers.{layer}.', f'model.layers.{layer}.'
        q, k, v = state[own + 'qkv'].split((c.heads * c.head, kv, kv))
        tensors |= {p + 'input_layernorm.weight': state[own + 'input_norm'], p + 'post_attention_layernorm.weight': state[own + 'post_norm'],
                    p + 'self_attn.q_proj.weight': q, p + 'self_attn.k_proj.weight': k, p + 'self_attn.v_proj.weight': v, p + 'self_attn.o_proj.weight': state[own + 'o'],
                    p + 'self_attn.q_norm.weight': state[own + 'q_norm'], p + 'self_attn.k_norm.weight': state[own + 'k_norm'], p + 'mlp.gate.weight': state[own + 'router']}
        for e in range(c.experts):
            gate, up = state[own + 'gate_up'][e].chunk(2)
            tensors |= {p + f'mlp.experts.{e}.gate_proj.weight': gate, p + f'mlp.experts.{e}.up_proj.weight': up, p + f'mlp.experts.{e}.down_proj.weight': state[own + 'down'][e]}
    return {name: t.detach().to('cpu', torch.bfloat16).contiguous().clone() for name, t in tensors.items()}


def export(saved, work, directory):
    if saved['bias'].abs().max() > 1e-3 * (saved['load'].max()):
        raise SystemExit('the routers still lean on a bias, which the published architecture has no place for: run train.py --decay first')
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'config.json').write_text(json.dumps(hf_config(saved['config']), indent=2) + '\n')
    (directory / 'generation_config.json').write_text(json.dumps({'eos_token_id': 0}, indent=2) + '\n')
    save_file(hf_tensors(saved['model'], saved['config']), directory / 'model.safetensors', metadata={'format': 'pt'})
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copyfile(work / 'tokenizer' / name, directory / name)
    size = (directory / 'model.safetensors').stat().st_size
    print(f"{directory}: step {saved['step']}, {sum(t.numel() for n, t in saved['model'].items() if n != 'bias') / 1e6:.2f} M parameters, {size / 1e6:.1f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=pathlib.Path)
    parser.add_argument('directory', type=pathlib.Path)
    parser.add_argument('--state', default='decayed.pt')
    a = parser.parse_args()
    export(torch.load(a.work / a.state, map_location='cpu', weights_only=False), a.work, a.directory)


if __name__ == '__main__':
    main()
