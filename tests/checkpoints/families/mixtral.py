# SPDX-License-Identifier: Apache-2.0
"""Llama, Mixtral, OLMoE, Qwen."""
from draw import Family, chance, experts, size, window


def draw_llama(rng, config):
    config |= {"attention_bias": chance(rng, 0.4), "mlp_bias": chance(rng, 0.3)}


def draw_mixtral(rng, config):
    experts(rng, config, "num_local_experts")
    config["sliding_window"] = rng.choice([None, None, window(rng)])


def either_block(rng, tensors, fused):
    """Where transformers 5 wrote the file, the block may be called as it is there."""
    if chance(rng, 0.3 if fused else 0.8):
        return {name.replace(".mlp.", ".block_sparse_moe."): tensor for name, tensor in tensors.items()}
    return tensors


def draw_olmoe(rng, config):
    experts(rng, config)
    config |= {"attention_bias": chance(rng, 0.4), "norm_topk_prob": chance(rng, 0.5), "clip_qkv": rng.choice([None, None, 0.5, 2.0])}


def draw_flex_olmo(rng, config):
    experts(rng, config)
    config |= {"attention_bias": chance(rng, 0.4), "norm_topk_prob": chance(rng, 0.5), "pad_token_id": None}


def draw_qwen(rng, config):
    experts(rng, config)
    layers = config["num_hidden_layers"]
    config |= {"norm_topk_prob": chance(rng, 0.5), "moe_intermediate_size": size(rng, 90), "decoder_sparse_step": rng.choice([1, 1, 1, 2]), "mlp_only_layers": rng.choice([[], [], [rng.randrange(layers)]])}
    if chance(rng, 0.3):
        config |= {"use_sliding_window": True, "sliding_window": window(rng)}


def draw_qwen3_moe(rng, config):
    draw_qwen(rng, config)
    config["attention_bias"] = chance(rng, 0.4)


def draw_qwen2_moe(rng, config):
    draw_qwen(rng, config)
    config |= {"qkv_bias": chance(rng, 0.7), "shared_expert_intermediate_size": size(rng, 90), "max_window_layers": rng.randint(0, 5)}


FAMILIES = {
    "mixtral": Family("Mixtral", draw_mixtral, each=("w1", "w3", "w2"), renames=either_block),
    "olmoe": Family("Olmoe", draw_olmoe, head_dim=0),
    "qwen3_moe": Family("Qwen3Moe", draw_qwen3_moe),
    "qwen2_moe": Family("Qwen2Moe", draw_qwen2_moe),
    "llama": Family("Llama", draw_llama, whole_heads=True, each=()),
    "flex_olmo": Family("FlexOlmo", draw_flex_olmo),
}
