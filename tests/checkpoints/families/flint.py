# SPDX-License-Identifier: Apache-2.0
"""Families whose layers rotate only where they see a window."""
from draw import Family, chance, experts, layer_list, size, some, window


def windows(rng, config):
    config |= some(rng, 0.8, sliding_window=window(rng))
    if chance(rng, 0.5):
        config["layer_types"] = layer_list(rng, config, ["full_attention", "sliding_attention"])


def draw_flint(rng, config):
    experts(rng, config)
    windows(rng, config)
    layers = config["num_hidden_layers"]
    config |= {"moe_intermediate_size": size(rng, 50), "shared_expert_intermediate_size": size(rng, 60), "attention_bias": chance(rng, 0.4)}
    config |= some(rng, 0.5, norm_topk_prob=chance(rng, 0.5), decoder_sparse_step=rng.choice([1, 2]))
    if layers < 2 or chance(rng, 0.7):
        config["mlp_only_layers"] = rng.choice([[], [0], [rng.randrange(layers)]])


def draw_kolibri1(rng, config):
    experts(rng, config)
    windows(rng, config)
    if "layer_types" not in config and chance(rng, 0.2):
        config |= {"sliding_window": None, "layer_types": ["full_attention"] * config["num_hidden_layers"]}
    config |= {"moe_intermediate_size": size(rng, 50), "shared_expert_intermediate_size": size(rng, 60)}
    config |= some(rng, 0.6, norm_topk_prob=chance(rng, 0.6))


FAMILIES = {
    "flint": Family("Flint", draw_flint, head_dim=1, names=((".self_attn.sinks", ".self_attn.softmax_offset"),)),
    "kolibri1": Family("Kolibri1", draw_kolibri1, head_dim=1, names=(
        (".mlp.gate.e_score_correction_bias", ".moe.router.expert_bias"), (".post_self_attn_layernorm.", ".post_attn_norm."), (".post_mlp_layernorm.", ".post_ffn_norm."))),
}
