#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# transformers 5.24.0: a mistral4 whose experts have tensors of their own loads, and computes with random experts.
#
# For DeepSeek-V3 and most families `experts.E.gate_proj.weight` and the like are put together into `experts.gate_up_proj` when a
# checkpoint is loaded. Of mistral4 they are not: from_pretrained reports them as unexpected and the fused ones as missing, fills
# these with new random numbers, and raises nothing. The same weights in the same layout: DeepSeek-V3 gives equal logits, mistral4
# other ones. Cadre takes either layout for every family; tests/checkpoints/families/latent.py draws fused ones alone for mistral4.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 transformers==5.24.0 safetensors
cat >"$WORK/each.py" <<'PYTHON'
import sys
import torch
import transformers
from safetensors.torch import save_file

print('transformers', transformers.__version__)
transformers.logging.set_verbosity_error()
seen = {}
for name in ('DeepseekV3', 'Mistral4'):
    config = getattr(transformers, f'{name}Config')(
        vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, kv_lora_rank=8, q_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, first_k_dense_replace=0, pad_token_id=0,
        rope_parameters={'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 2.0, 'original_max_position_embeddings': 32, 'llama_4_scaling_beta': 0.1}, max_position_embeddings=64)
    kind = getattr(transformers, f'{name}ForCausalLM')
    model = kind(config).eval()
    directory, each, tokens = f'{sys.argv[1]}/{name}', {}, torch.tensor([[1, 2, 3, 4]])
    config.save_pretrained(directory)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
        for key, tensor in model.state_dict().items():
            prefix, _, last = key.rpartition('.')
            for expert, matrix in enumerate(tensor if prefix.endswith('experts') else ()):
                for part, rows in zip(['gate_proj', 'up_proj'] if last == 'gate_up_proj' else [last], matrix.chunk(2) if last == 'gate_up_proj' else [matrix]):
                    each[f'{prefix}.{expert}.{part}.weight'] = rows.contiguous()
            if not prefix.endswith('experts'):
                each[key] = tensor
        save_file(each, f'{directory}/model.safetensors', metadata={'format': 'pt'})
        loaded, report = kind.from_pretrained(directory, output_loading_info=True)
        off = (loaded.eval()(tokens).logits - model(tokens).logits).abs().max().item()
    seen[name] = (off > 1e-3, len(report['missing_keys']))
    print(f'{name}: logits off by {off:.1e}, missing {sorted(report["missing_keys"])}')
assert seen == {'DeepseekV3': (False, 0), 'Mistral4': (True, 2)}, seen
PYTHON
"$WORK/venv/bin/python" "$WORK/each.py" "$WORK"
