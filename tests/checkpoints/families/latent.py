# SPDX-License-Identifier: Apache-2.0
"""Families with latent attention: DeepSeek-V2 and V3, GLM-4.7-Flash, Mistral 4, A.X K1."""
from draw import Family, chance, grouped_experts, some
from families.glm import dense_first, shared_and_scaled


def rotated_part(rng, config, head):
    """Sizes of heads; returns how many elements rotate."""
    config |= {"qk_rope_head_dim": 2 * rng.choice([1, rng.randint(1, 16), 16, 32]), "qk_nope_head_dim": rng.randint(1, 40), "v_head_dim": rng.randint(1, 40), "kv_lora_rank": rng.choice([rng.randint(1, 70), 32, 64]),
               "q_lora_rank": rng.choice([None, rng.randint(1, 60)])}
    return config["qk_rope_head_dim"]


def draw_latent(rng, config):
    config.pop("head_dim", None)
    config["num_key_value_heads"] = config["num_attention_heads"]
    config["attention_bias"] = chance(rng, 0.3)
    turns = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "yarn" in turns.values() and "attention_factor" not in turns:
        turns |= some(rng, 0.5, mscale_all_dim=rng.choice([1.0, 0.7]), mscale=rng.choice([1.0, 0.7]))


def draw_deepseek_v2(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    dense_first(rng, config)
    draw_latent(rng, config)
    for key in ("qk_nope_head_dim", "kv_lora_rank"):   # transformers 5.24 rotates nothing that begins at an odd place
        config[key] += config[key] % 2
    config |= {"norm_topk_prob": False, "topk_method": rng.choice(["greedy", "group_limited_greedy"])}
    config |= some(rng, 0.5, moe_layer_freq=1, scoring_func="softmax", aux_loss_alpha=0.001, seq_aux=True, pretraining_tp=1, ep_size=1)


def draw_deepseek_v3(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    dense_first(rng, config)
    draw_latent(rng, config)
    config |= some(rng, 0.5, moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc", num_nextn_predict_layers=1, ep_size=1, rope_interleave=chance(rng, 0.6))


def draw_glm4_moe_lite(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    draw_latent(rng, config)
    config |= some(rng, 0.6, mlp_layer_types=[rng.choice(["dense", "sparse"]) for _ in range(config["num_hidden_layers"])])
    config |= some(rng, 0.5, rope_interleave=chance(rng, 0.6), num_nextn_predict_layers=1)


def draw_mistral4(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    dense_first(rng, config)
    draw_latent(rng, config)
    inside = config.pop("rope_scaling", None) or config.pop("rope_parameters", {})   # yarn is the only kind that transformers 5.24 can rotate by here
    config["rope_parameters"] = inside | {"rope_theta": inside.get("rope_theta") or config.pop("rope_theta"), "llama_4_scaling_beta": rng.choice([0.1, 0.5])}
    config["pad_token_id"] = None   # the default is beyond a small vocabulary
    config |= some(rng, 0.5, rope_interleave=chance(rng, 0.6))


def draw_axk1(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    draw_latent(rng, config)
    config["q_lora_rank"] = config["q_lora_rank"] or rng.randint(1, 60)   # queries are always compressed
    layers = config["num_hidden_layers"]
    if chance(rng, 0.5):
        config["mlp_layer_types"] = [rng.choice(["dense", "sparse"]) for _ in range(layers)]
    else:
        config |= some(rng, 0.7, first_k_dense_replace=rng.randint(0, layers), moe_layer_freq=rng.choice([1, 1, 2]))
    config |= some(rng, 0.5, rope_interleave=chance(rng, 0.6), topk_method="noaux_tc", scoring_func="sigmoid")


FAMILIES = {
    "axk1": Family("AXK1", draw_axk1, head_dim=0, rotates=rotated_part, names=((".mlp.post_mlp_layernorm.", ".post_mlp_layernorm."),)),
    "deepseek_v2": Family("DeepseekV2", draw_deepseek_v2, head_dim=0, rotates=rotated_part),
    "deepseek_v3": Family("DeepseekV3", draw_deepseek_v3, head_dim=0, rotates=rotated_part, further=lambda config: 1),
    "glm4_moe_lite": Family("Glm4MoeLite", draw_glm4_moe_lite, head_dim=0, rotates=rotated_part, further=lambda config: 1),
    "mistral4": Family("Mistral4", draw_mistral4, head_dim=0, each=(), rotates=rotated_part, rope_kinds=("yarn",)),
}
