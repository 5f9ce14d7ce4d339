# SPDX-License-Identifier: Apache-2.0
"""Granite 3 and 4 without state-space layers."""
from draw import Family, chance, experts, size, some

NAMES = (
    (".block_sparse_moe.experts.gate_up_proj", ".block_sparse_moe.input_linear.weight"),
    (".block_sparse_moe.experts.down_proj", ".block_sparse_moe.output_linear.weight"),
    (".block_sparse_moe.router.weight", ".block_sparse_moe.router.layer.weight"),
)


def draw_granitemoe(rng, config):
    experts(rng, config, "num_local_experts")
    config["attention_bias"] = chance(rng, 0.4)
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    config["attention_multiplier"] = rng.choice([1 / head, head ** -0.5, 0.5])
    config |= some(rng, 0.7, embedding_multiplier=rng.choice([12, 0.7]), residual_multiplier=rng.choice([0.22, 1.5]), logits_scaling=rng.choice([6, 0.5]))


def draw_granitemoeshared(rng, config):
    draw_granitemoe(rng, config)
    config["shared_intermediate_size"] = rng.choice([0, size(rng, 60), size(rng, 60)])


FAMILIES = {
    "granitemoe": Family("GraniteMoe", draw_granitemoe, gate="block_sparse_moe.router", each=(), names=NAMES),
    "granitemoeshared": Family("GraniteMoeShared", draw_granitemoeshared, gate="block_sparse_moe.router", each=(), names=NAMES),
}
