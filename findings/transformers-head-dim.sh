#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# transformers 5.24.0: a mixtral without head_dim in its config.json cannot rotate by yarn or dynamic.
#
# Published ones have no head_dim: it is hidden_size / num_attention_heads. MixtralConfig then sets head_dim to None, and two functions
# of modeling_rope_utils.py take that for a number (getattr with a default finds the None): TypeError. The other kinds have a way around
# it. Seen: yarn and dynamic raise, default, linear and llama3 compute, and with head_dim all five do. Cadre reads the same config.json
# with any rotation; tests/checkpoints/checkpoint.py gives head_dim where the rotation is scaled.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 transformers==5.24.0
cat >"$WORK/kinds.py" <<'PYTHON'
import torch
import transformers

POSITIONS = {'original_max_position_embeddings': 64}
KINDS = {'default': {}, 'linear': {'factor': 2.0}, 'dynamic': {'factor': 2.0}, 'yarn': {'factor': 2.0} | POSITIONS,
         'llama3': {'factor': 2.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0} | POSITIONS}
print('transformers', transformers.__version__)
raised = set()
for kind, values in KINDS.items():
    for head in (None, 8):
        config = transformers.MixtralConfig(
            hidden_size=32, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, vocab_size=64, num_local_experts=4,
            max_position_embeddings=128, head_dim=head, rope_parameters={'rope_type': kind, 'rope_theta': 1e4} | values)
        try:
            with torch.no_grad():
                transformers.MixtralForCausalLM(config)(torch.tensor([[1, 2, 3]]))
            print(f'{kind}, head_dim {head}: computes')
        except TypeError as error:
            print(f'{kind}, head_dim {head}: {error}')
            raised.add((kind, head))
assert raised == {('yarn', None), ('dynamic', None)}, raised
PYTHON
"$WORK/venv/bin/python" "$WORK/kinds.py"
