#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a checkpoint of qwen3_moe as GGUF, for llama.cpp and its relatives: matrices in bf16 (the bits of a bf16 checkpoint) or f32, norms and the gate in f32.

usage: to_gguf.py DIR FILE [--type bf16|f32]
It has no vocabulary: who reads the file gives token ids.
"""
import argparse
import json
import mmap
import pathlib

import gguf
import numpy

ARCHITECTURE = 'qwen3moe'
LAYER = {'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'ffn_norm', 'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
         'self_attn.o_proj': 'attn_output', 'self_attn.q_norm': 'attn_q_norm', 'self_attn.k_norm': 'attn_k_norm', 'mlp.gate': 'ffn_gate_inp'}
EXPERT = {'gate_proj': 'ffn_gate_exps', 'up_proj': 'ffn_up_exps', 'down_proj': 'ffn_down_exps'}


class Checkpoint:
    """Tensors of DIR/model.safetensors, in bf16 as their bits."""

    def __init__(self, directory):
        file = open(directory / 'model.safetensors', 'rb')
        self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.begin = 8 + int.from_bytes(self.bytes[:8], 'little')
        self.header = json.loads(self.bytes[8:self.begin])

    def __contains__(self, name):
        return name in self.header

    def __getitem__(self, name):
        entry = self.header[name]
        assert entry['dtype'] == 'BF16', f"{name} is {entry['dtype']}, not BF16"
        begin, end = entry['data_offsets']
        return numpy.frombuffer(self.bytes, '<u2', (end - begin) // 2, self.begin + begin).reshape(entry['shape'])


def float32(bits):
    return (bits.astype('<u4') << 16).view('<f4')


def tensors(checkpoint, config):
    """(name, tensors of the checkpoint that it is made of, on top of each other)"""
    def one(name):
        return [name + '.weight']
    yield 'token_embd', one('model.embed_tokens')
    yield 'output_norm', one('model.norm')
    if 'lm_head.weight' in checkpoint:
        yield 'output', one('lm_head')
    for layer in range(config['num_hidden_layers']):
        for ours, theirs in LAYER.items():
            yield f'blk.{layer}.{theirs}', one(f'model.layers.{layer}.{ours}')
        for ours, theirs in EXPERT.items():
            yield f'blk.{layer}.{theirs}', [f'model.layers.{layer}.mlp.experts.{e}.{ours}.weight' for e in range(config['num_experts'])]


def write_keys(writer, config):
    writer.add_context_length(config['max_position_embeddings'])
    writer.add_embedding_length(config['hidden_size'])
    writer.add_block_count(config['num_hidden_layers'])
    writer.add_feed_forward_length(config['intermediate_size'])
    writer.add_head_count(config['num_attention_heads'])
    writer.add_head_count_kv(config['num_key_value_heads'])
    writer.add_key_length(config['head_dim'])
    writer.add_value_length(config['head_dim'])
    writer.add_rope_dimension_count(config['head_dim'])
    writer.add_rope_freq_base(config['rope_theta'])
    writer.add_layer_norm_rms_eps(config['rms_norm_eps'])
    writer.add_expert_count(config['num_experts'])
    writer.add_expert_used_count(config['num_experts_per_tok'])
    writer.add_expert_feed_forward_length(config['moe_intermediate_size'])
    writer.add_vocab_size(config['vocab_size'])
    writer.add_tokenizer_model('no_vocab')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', type=pathlib.Path)
    parser.add_argument('file', type=pathlib.Path)
    parser.add_argument('--type', choices=('bf16', 'f32'), default='bf16')
    a = parser.parse_args()
    config, checkpoint = json.loads((a.directory / 'config.json').read_text()), Checkpoint(a.directory)
    assert config['model_type'] == 'qwen3_moe' and config['norm_topk_prob'], 'only qwen3_moe with weights that sum to 1 is known here'
    writer = gguf.GGUFWriter(a.file, ARCHITECTURE)
    write_keys(writer, config)

    def exact(name):
        return a.type == 'f32' or 'norm' in name or 'gate_inp' in name

    for name, parts in tensors(checkpoint, config):
        shape = list(checkpoint[parts[0]].shape)
        shape = [len(parts), *shape] if 'exps' in name else shape
        elements = int(numpy.prod(shape))
        if exact(name):
            writer.add_tensor_info(name + '.weight', shape, numpy.dtype('float32'), 4 * elements)
        else:
            writer.add_tensor_info(name + '.weight', shape, numpy.dtype('float16'), 2 * elements, raw_dtype=gguf.GGMLQuantizationType.BF16)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, parts in tensors(checkpoint, config):
        stack = numpy.concatenate([checkpoint[p] for p in parts])
        writer.write_tensor_data(float32(stack) if exact(name) else stack)
    writer.close()


if __name__ == '__main__':
    main()
