#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/forms: forms of config.json, each in a model as small as it can be, with what
transformers computes for it in float32 (eager attention, CPU).

usage: make_forms.py [NAME...]     (needs torch and transformers; tests/golden/README.md says which)

Every sequence, and every token of a greedy continuation, is computed by a model that was just
loaded, as a whole: in transformers the rotation of `dynamic` depends on what a model computed before,
and with a cache on how a sequence was cut.
"""
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

OUT = Path(__file__).parent.parent / 'golden' / 'forms'
LENGTHS, GREEDY_TOKENS = [1, 9, 28, 61, 130], 6
LLAMA = {
    'model_type': 'llama', 'architectures': ['LlamaForCausalLM'], 'hidden_act': 'silu', 'rms_norm_eps': 1e-6, 'rope_theta': 1e4,
    'max_position_embeddings': 256, 'tie_word_embeddings': False, 'vocab_size': 32, 'hidden_size': 16, 'num_hidden_layers': 2,
    'num_attention_heads': 2, 'num_key_value_heads': 1, 'intermediate_size': 24, 'bos_token_id': 1, 'eos_token_id': 2,
}
MIXTRAL = {
    **LLAMA, 'model_type': 'mixtral', 'architectures': ['MixtralForCausalLM'], 'num_local_experts': 4, 'num_experts_per_tok': 2,
    'head_dim': 8,  # transformers asks for it where there is a scaling
}
EXPERTS = {
    **LLAMA, 'head_dim': 8, 'num_hidden_layers': 3, 'intermediate_size': 20, 'moe_intermediate_size': 12, 'num_experts': 6, 'num_experts_per_tok': 3,
}
GROUPS = {
    **{key: value for key, value in EXPERTS.items() if key != 'num_experts'}, 'n_routed_experts': 6, 'n_group': 3, 'topk_group': 2, 'n_shared_experts': 2, 'routed_scaling_factor': 2.5,
    'norm_topk_prob': True,
}
FORMS = {
    # past 64 positions the frequencies hang on the length of the sequence
    'dynamic-mlp-bias': {
        **LLAMA, 'max_position_embeddings': 64, 'mlp_bias': True, 'attention_bias': True,
        'rope_scaling': {'rope_type': 'dynamic', 'factor': 2.0},
    },
    'yarn-beyond-positions': {**LLAMA, 'max_position_embeddings': 128, 'rope_scaling': {'type': 'yarn', 'factor': 2.0}},
    # past 32 positions the long factors hold for all of a sequence; two greedy continuations cross that
    'longrope': {
        **MIXTRAL, 'max_position_embeddings': 128,
        'rope_scaling': {
            'rope_type': 'longrope', 'original_max_position_embeddings': 32,
            'short_factor': [1.0, 1.05, 1.2, 1.5], 'long_factor': [1.0, 2.5, 6.0, 16.0],
        },
    },
    'llama3-equal-factors': {
        **LLAMA,
        'rope_parameters': {
            'rope_type': 'llama3', 'rope_theta': 1e3, 'factor': 8.0, 'low_freq_factor': 2.0, 'high_freq_factor': 2.0,
            'original_max_position_embeddings': 64,
        },
    },
    # 7 of 8 elements: no pair is lost, and exponents are sevenths
    'linear-partial-odd': {
        **LLAMA, 'partial_rotary_factor': 0.9, 'rope_scaling': {'rope_type': 'linear', 'factor': 4.0},
    },
    'scaling-beside-parameters': {
        **LLAMA, 'rope_theta': 5e3, 'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 64},
        'rope_parameters': {'rope_type': 'default', 'rope_theta': 2e4},
    },
    # transformers looks at the fraction of no plain rotation in these families
    'default-partial': {**LLAMA, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e4, 'partial_rotary_factor': 0.5}},
    'nested-version4': MIXTRAL,
    'nested-version5': {**LLAMA, 'tie_word_embeddings': True},
    # families without a case of their own: what each has, and others have not
    'flexolmo': {**{key: value for key, value in EXPERTS.items() if key != 'moe_intermediate_size'}, 'model_type': 'flex_olmo', 'architectures': ['FlexOlmoForCausalLM'], 'pad_token_id': None},
    'kolibri1': {**EXPERTS, 'model_type': 'kolibri1', 'architectures': ['Kolibri1ForCausalLM'], 'sliding_window': 24, 'shared_expert_intermediate_size': 16,
                 'layer_types': ['sliding_attention', 'full_attention', 'sliding_attention']},
    'flint': {**EXPERTS, 'model_type': 'flint', 'architectures': ['FlintForCausalLM'], 'sliding_window': 24, 'shared_expert_intermediate_size': 16, 'mlp_only_layers': [0],
              'layer_types': ['full_attention', 'sliding_attention', 'full_attention']},
    'dots1': {**GROUPS, 'model_type': 'dots1', 'architectures': ['Dots1ForCausalLM'], 'first_k_dense_replace': 1, 'sliding_window': 24, 'max_window_layers': 1},
    'solaropen': {**GROUPS, 'model_type': 'solar_open', 'architectures': ['SolarOpenForCausalLM'], 'attention_bias': True},
    'exaonemoe': {**{key: value for key, value in GROUPS.items() if key not in ('n_routed_experts', 'n_shared_experts')}, 'model_type': 'exaone_moe', 'architectures': ['ExaoneMoeForCausalLM'],
                  'num_experts': 6, 'num_shared_experts': 1, 'sliding_window': 24, 'sliding_window_pattern': 2, 'mlp_layer_types': ['sparse', 'dense', 'sparse']},
    'hyv3': {**EXPERTS, 'model_type': 'hy_v3', 'architectures': ['HYV3ForCausalLM'], 'num_shared_experts': 2, 'mlp_layer_types': ['sparse', 'dense', 'sparse']},
    'hunyuanv1moe': {
        **{key: value for key, value in EXPERTS.items() if key not in ('num_experts_per_tok', 'moe_intermediate_size')}, 'model_type': 'hunyuan_v1_moe',
        'architectures': ['HunYuanMoEV1ForCausalLM'], 'moe_topk': [3, 3, 3], 'moe_intermediate_size': [20, 20, 20], 'num_shared_expert': [1, 1, 1], 'attention_head_dim': 8, 'tie_word_embeddings': True,
        'rope_scaling': {'type': 'dynamic', 'alpha': 1000.0, 'factor': 1.0, 'beta_fast': 32, 'beta_slow': 1, 'mscale': 1.0, 'mscale_all_dim': 0.0},
    },
    # two of four pairs turn, by half their angle
    'proportional': {**LLAMA, 'rope_parameters': {'rope_type': 'proportional', 'rope_theta': 1e2, 'partial_rotary_factor': 0.5, 'factor': 2.0}},
}

# Computed as a language model by itself, and stored as the one inside of a larger model: what its names begin with, and the head's.
NESTED = {'nested-version4': ('language_model.model.', 'language_model.lm_head.weight'), 'nested-version5': ('model.language_model.', 'lm_head.weight')}


def write_model(directory, config, seed):
    generator = torch.Generator().manual_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'config.json').write_text(json.dumps(config, indent=1) + '\n')
    net = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(directory))
    with torch.no_grad():
        biases = [(name, value) for name, value in net.named_buffers() if name.endswith('bias')]   # of the choice of experts
        for name, value in [*net.named_parameters(), *biases]:
            draw = torch.randn(value.shape, generator=generator)
            value.copy_(1 + 0.2 * draw if 'norm' in name else 0.6 * draw if 'bias' in name else draw if 'sinks' in name else draw / value.shape[-1] ** 0.5 * 1.5)
    net.save_pretrained(directory)
    for extra in directory.glob('generation_config.json'):
        extra.unlink()
    (directory / 'config.json').write_text(json.dumps(config, indent=1) + '\n')


def nest(directory, config, prefix, head):
    def renamed(name):
        return head if name == 'lm_head.weight' else prefix + name.removeprefix('model.')

    tensors = {renamed(name): tensor for name, tensor in load_file(directory / 'model.safetensors').items()}
    tensors |= {'vision_tower.embeddings.weight': torch.zeros(3, 5), 'multi_modal_projector.norm.weight': torch.zeros(3)}
    save_file(tensors, directory / 'model.safetensors', {'format': 'pt'})
    text = {key: value for key, value in config.items() if key != 'tie_word_embeddings'}
    outer = {'model_type': 'picture_and_text', 'tie_word_embeddings': config['tie_word_embeddings'], 'vision_config': {'hidden_size': 5}, 'text_config': text}
    (directory / 'config.json').write_text(json.dumps(outer, indent=1) + '\n')


def compute(directory, ids):
    net = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation='eager').eval()
    gates = []
    for name, module in net.named_modules():
        if name.endswith('mlp.gate'):
            module.register_forward_hook(lambda _module, _inputs, out: gates.append(out))
    with torch.no_grad():
        return net(torch.tensor([ids]), use_cache=False).logits, gates


def routing(gates):
    scores, weights, experts = (torch.stack(list(of_layers)) for of_layers in zip(*gates))
    experts, order = experts.sort(-1)
    weights = weights.gather(-1, order)
    return {'router_logits': scores, 'experts': experts.int(), 'expert_weights': weights}


def make(name, seed):
    config, directory = FORMS[name], OUT / name
    write_model(directory / 'model', config, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    expected, sequences, margin = {}, [], float('inf')
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(0, config['vocab_size'], (length,), generator=generator).tolist()
        sequences.append(ids)
        logits, gates = compute(directory / 'model', ids)
        expected |= {f'tokens.{i}': torch.tensor(ids, dtype=torch.int32), f'logits.{i}': logits[0]}
        if gates:
            expected |= {f'{what}.{i}': tensor for what, tensor in routing(gates).items()}
        longer = list(ids)
        for _ in range(GREEDY_TOKENS):
            top = compute(directory / 'model', longer)[0][0, -1].topk(2)
            margin = min(margin, (top.values[0] - top.values[1]).item())
            longer.append(top.indices[0].item())
        expected[f'greedy.{i}'] = torch.tensor(longer[length:], dtype=torch.int32)
    save_file({k: v.contiguous() for k, v in expected.items()}, directory / 'expected.safetensors')
    (directory / 'input.json').write_text(json.dumps({'sequences': sequences, 'greedy_tokens': GREEDY_TOKENS}) + '\n')
    if name in NESTED:
        nest(directory / 'model', config, *NESTED[name])
    print(f'{name}: smallest greedy margin {margin:.5f}')


def main():
    print(f'transformers {transformers.__version__}, torch {torch.__version__}')
    for name in sys.argv[1:] or FORMS:
        make(name, list(FORMS).index(name))


if __name__ == '__main__':
    main()
