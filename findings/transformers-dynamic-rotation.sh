#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# transformers 5.24.0: with rope_type "dynamic", what a model computes depends on what it computed before, and on the cache.
#
# The frequencies of a sequence longer than max_position_embeddings are made for its length and kept: dynamic_frequency_update of
# modeling_rope_utils.py makes new ones for a longer sequence, and goes back to the plain ones for one that is shorter than
# max_position_embeddings, but a sequence between the two is rotated as the longest before it. With a cache, keys stay as they were
# rotated when the sequence was shorter. Seen: logits of 70 tokens over 64 positions differ by more than 0.1 after 130 tokens were
# computed, and when the last of them is computed after the others. So tests/tools/make_forms.py loads a model for each sequence and
# computes it whole, and Cadre computes a sequence that has outgrown its rotation again, so that its logits depend on its tokens alone.
# longrope has the second of these in the families that do not empty the cache when it gets to the long factors.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 transformers==5.24.0
cat >"$WORK/dynamic.py" <<'PYTHON'
import torch
import transformers

torch.manual_seed(1)
config = transformers.LlamaConfig(
    vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64, initializer_range=0.3,
    rope_parameters={'rope_type': 'dynamic', 'factor': 2.0, 'rope_theta': 1e4})
net = transformers.LlamaForCausalLM(config).eval()
long, short = torch.randint(0, 32, (1, 130)), torch.randint(0, 32, (1, 70))
with torch.no_grad():
    first = net(short, use_cache=False).logits[0, -1]
    net(long, use_cache=False)
    after = net(short, use_cache=False).logits[0, -1]
    net(short[:, :8], use_cache=False)
    cache = net(short[:, :69], use_cache=True).past_key_values
    cached = net(short[:, 69:], past_key_values=cache, use_cache=True).logits[0, -1]
moved = [float((logits - first).abs().max()) for logits in (after, cached)]
print(f'transformers {transformers.__version__}: after a longer sequence {moved[0]:.3f}, with a cache {moved[1]:.3f}')
assert min(moved) > 0.1, moved
PYTHON
"$WORK/venv/bin/python" "$WORK/dynamic.py"
