# SPDX-License-Identifier: Apache-2.0
"""Configurations of families whose layers differ in more than a window: in how they rotate, in heads and sizes."""
from draw import POSITIONS, Family, chance, size


def common(rng, family, name, heads, kv_heads, head):
    config = {"architectures": [f"{name}ForCausalLM"], "model_type": family, "hidden_size": size(rng, 80), "num_hidden_layers": rng.randint(1, 5), "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "head_dim": head, "vocab_size": rng.randint(3, 150), "max_position_embeddings": POSITIONS, "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]),
              "hidden_act": "silu", "tie_word_embeddings": chance(rng, 0.3), "bos_token_id": 1, "eos_token_id": 2, "intermediate_size": size(rng, 90), "moe_intermediate_size": size(rng, 90)}
    experts = rng.randint(1, 12)
    return config | {"num_experts_per_tok": rng.randint(1, min(experts, 8)), "num_experts": experts}


def kinds(rng, layers, first, second):
    return [rng.choice([first, second]) for _ in range(layers)]


def rotation(rng, partial=None):
    values = {"rope_type": "default", "rope_theta": rng.choice([100.0, 10000.0, 5e6])}
    if chance(rng, 0.3):
        values |= {"rope_type": "linear", "factor": rng.choice([2.0, 7.5])}
    elif chance(rng, 0.3):
        values |= {"rope_type": "yarn", "factor": rng.choice([2.0, 4.0]), "original_max_position_embeddings": rng.choice([48, 96])}
    return values | ({"partial_rotary_factor": partial} if partial else {})


def mellum(rng):
    heads = rng.randint(1, 8)
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    config = common(rng, "mellum", "Mellum", heads, kv_heads, 2 * rng.randint(1, 40))
    layers = config["num_hidden_layers"]
    config |= {"sliding_window": rng.randint(1, 50), "norm_topk_prob": chance(rng, 0.7), "attention_bias": chance(rng, 0.3), "layer_types": kinds(rng, layers, "full_attention", "sliding_attention")}
    if chance(rng, 0.6):
        config["mlp_layer_types"] = kinds(rng, layers, "sparse", "dense")
    if chance(rng, 0.85):
        config["rope_parameters"] = {kind: rotation(rng) for kind in ("full_attention", "sliding_attention")}
    return config


def mimo_v2_flash(rng):
    """The gate takes the two best of each group, and keeps some."""
    kv_heads = rng.randint(1, 3)
    heads = 2 * kv_heads * rng.randint(1, 3)
    head = 2 * rng.randint(2, 40)
    config = common(rng, "mimo_v2_flash", "MiMoV2Flash", heads, kv_heads, head)
    layers = config["num_hidden_layers"]
    groups, each = rng.choice([(1, rng.randint(2, 12)), (2, rng.randint(2, 6)), (3, rng.randint(2, 4))])
    kept = rng.randint(1, groups)
    del config["num_experts"]
    config |= {"n_routed_experts": groups * each, "num_experts_per_tok": rng.randint(1, min(8, kept * each)), "n_group": groups, "topk_group": kept, "norm_topk_prob": chance(rng, 0.7),
               "routed_scaling_factor": rng.choice([None, 1.0, 2.5]), "sliding_window": rng.randint(1, 50), "v_head_dim": rng.randint(1, 60), "attention_bias": chance(rng, 0.3),
               "attention_value_scale": rng.choice([None, 0.707, 0.612])}
    if chance(rng, 0.7):
        config["layer_types"] = kinds(rng, layers, "full_attention", "sliding_attention")
    if chance(rng, 0.7):
        config["mlp_layer_types"] = kinds(rng, layers, "sparse", "dense")
    turns = rng.randint(1, head // 2) * 2
    if chance(rng, 0.8):
        config["rope_parameters"] = {kind: rotation(rng, (turns + 0.01) / head if turns < head else 1.0) for kind in ("full_attention", "sliding_attention")}
    elif int(head * 0.334) % 2 or head < 6:
        config["head_dim"] = 24
    return config


def llama4_text(rng):
    """Layers that rotate see chunks, the others scale their queries; experts weigh their input."""
    heads = rng.randint(1, 8)
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    config = common(rng, "llama4_text", "Llama4", heads, kv_heads, 2 * rng.randint(1, 40))
    layers, experts = config["num_hidden_layers"], config.pop("num_experts")
    del config["moe_intermediate_size"]
    config |= {"num_local_experts": experts, "num_experts_per_tok": rng.randint(1, min(experts, 3)), "intermediate_size_mlp": size(rng, 90), "attention_chunk_size": rng.randint(1, 50),
               "floor_scale": rng.randint(1, 40), "attn_scale": rng.choice([0.1, 0.5]), "attn_temperature_tuning": chance(rng, 0.8), "use_qk_norm": chance(rng, 0.6), "attention_bias": chance(rng, 0.3),
               "interleave_moe_layer_step": rng.randint(1, 2), "no_rope_layer_interval": rng.randint(2, 4), "rope_parameters": rotation(rng), "tie_word_embeddings": False}
    if chance(rng, 0.3):
        config["no_rope_layers"] = [rng.randint(0, 1) for _ in range(layers)]
    if chance(rng, 0.3):
        config["moe_layers"] = sorted(rng.sample(range(layers), rng.randint(0, layers)))
    return config


def llama4_routing(output):
    """(logits, weights, ids) of what the router gives: the sigmoids of the chosen, zeros elsewhere, and the logits."""
    scores, logits = output
    ids = logits.topk(int((scores[0] > 0).sum()), dim=-1).indices
    return logits, scores.gather(-1, ids), ids


FAMILIES = {
    "llama4_text": Family("Llama4Text", llama4_text, whole=True, model="Llama4", gate="feed_forward.router", routing=llama4_routing, each=(), turned=True),
    "mellum": Family("Mellum", mellum, whole=True),
    "mimo_v2_flash": Family("MiMoV2Flash", mimo_v2_flash, whole=True, names=((".self_attn.sinks", ".self_attn.attention_sink_bias"),)),
}
