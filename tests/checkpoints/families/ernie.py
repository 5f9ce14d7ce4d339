# SPDX-License-Identifier: Apache-2.0
"""ERNIE 4.5, Hunyuan: softmax over all experts."""
from draw import Family, chance, experts, size, some


def draw_ernie4_5_moe(rng, config):
    experts(rng, config, "moe_num_experts", "moe_k")
    layers = config["num_hidden_layers"]
    config |= {"moe_intermediate_size": size(rng, 50), "moe_num_shared_experts": rng.randint(0, 3)}
    config |= some(rng, 0.5, moe_layer_start_index=rng.randint(0, layers), moe_layer_end_index=rng.choice([-1, -1, rng.randrange(layers)]), moe_layer_interval=rng.choice([1, 1, 2]))
    config |= some(rng, 0.3, use_bias=False, moe_norm_min=1e-12)


def draw_hunyuan_v1_moe(rng, config):
    experts(rng, config, "num_experts", "moe_topk")
    layers = config["num_hidden_layers"]
    config["attention_bias"] = chance(rng, 0.4)
    if chance(rng, 0.5):   # as published: a number for each layer
        config |= {"moe_topk": [config["moe_topk"]] * layers, "num_shared_expert": [1] * layers, "moe_intermediate_size": [config["intermediate_size"]] * layers, "attention_head_dim": config["head_dim"]}
    if config["head_dim"] > 2 and chance(rng, 0.5):
        turns = {"type": "dynamic", "alpha": rng.choice([2.0, 1000.0]), "factor": 1.0}
        config.pop("rope_parameters", None)
        config |= {"rope_theta": 1e4, "rope_scaling": turns | some(rng, 0.5, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.0)}


FAMILIES = {
    "ernie4_5_moe": Family("Ernie4_5_Moe", draw_ernie4_5_moe, names=((".mlp.gate.moe_statics.", ".mlp.moe_statics."),)),
    "hunyuan_v1_moe": Family("HunYuanMoEV1", draw_hunyuan_v1_moe, head_dim=1),
}
