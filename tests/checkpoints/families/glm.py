# SPDX-License-Identifier: Apache-2.0
"""Families whose gate is DeepSeek-V3's, a sigmoid with a bias for the choice, above grouped attention."""
from draw import Family, chance, experts, grouped_experts, layer_list, part_of_head, size, some, window
from families.mixtral import either_block


def shared_and_scaled(rng, config):
    config |= {"n_shared_experts": rng.randint(1, 3), "moe_intermediate_size": size(rng, 50), "routed_scaling_factor": rng.choice([1.0, 2.5, 0.7]), "norm_topk_prob": chance(rng, 0.7)}


def dense_first(rng, config):
    config["first_k_dense_replace"] = rng.choice([0, 1, 1, 2, config["num_hidden_layers"]])


def rotates_in_part(rng, config, head):
    """partial_rotary_factor, which may come to stand inside of rope_parameters."""
    factor = part_of_head(rng, head, [0.5, 0.5, 0.25, 0.75, 1.0])
    if factor is None:
        factor = 1.0
    elif factor == 0.5 and chance(rng, 0.3):   # what holds if the file does not say
        return head // 2
    config["partial_rotary_factor"] = factor
    return int(head * factor)


def draw_glm4_moe(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    dense_first(rng, config)
    config |= {"attention_bias": chance(rng, 0.5), "use_qk_norm": chance(rng, 0.5)}
    config |= some(rng, 0.5, num_nextn_predict_layers=1)


def rotary_dim(rng, config, head):
    fitting = [n for n in range(2, head + 1, 2) if int(head * (n / head)) == n]
    if chance(rng, 0.2):
        return head
    config["rotary_dim"] = rng.choice(fitting)
    return config["rotary_dim"]


def draw_minimax_m2(rng, config):
    experts(rng, config, "num_local_experts")
    config |= some(rng, 0.5, use_qk_norm=True, use_routing_bias=True, scoring_func="sigmoid")


def draw_dots1(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    dense_first(rng, config)
    config["attention_bias"] = chance(rng, 0.4)
    config["sliding_window"] = rng.choice([None, window(rng), window(rng)])
    config["max_window_layers"] = rng.randint(0, 5)
    if config["sliding_window"] and chance(rng, 0.3):
        config["layer_types"] = layer_list(rng, config, ["full_attention", "sliding_attention"])
    config |= some(rng, 0.3, scoring_func="noaux_tc", topk_method="noaux_tc", moe_layer_freq=1)


def draw_solar_open(rng, config):
    grouped_experts(rng, config)
    shared_and_scaled(rng, config)
    config["attention_bias"] = chance(rng, 0.4)
    config |= some(rng, 0.3, partial_rotary_factor=1.0)


def draw_exaone_moe(rng, config):
    grouped_experts(rng, config, "num_experts")
    config |= {"num_shared_experts": rng.randint(1, 3), "moe_intermediate_size": size(rng, 50), "norm_topk_prob": chance(rng, 0.7)}
    config |= some(rng, 0.7, routed_scaling_factor=rng.choice([1.0, 0.7]))
    if chance(rng, 0.5):
        config["mlp_layer_types"] = layer_list(rng, config, ["dense", "sparse", "sparse"])
    elif chance(rng, 0.7):
        dense_first(rng, config)
    form = rng.choice(["pattern", "layers", "text"])
    config["sliding_window"] = window(rng)
    if form == "pattern":
        config["sliding_window_pattern"] = rng.randint(1, 4)
    else:
        config["layer_types"] = layer_list(rng, config, ["full_attention", "sliding_attention"])
        config |= {"sliding_window_pattern": "LLLG"} if form == "text" else {}


def draw_hy_v3(rng, config):
    experts(rng, config)
    config |= {"num_shared_experts": rng.randint(1, 3), "moe_intermediate_size": size(rng, 50), "attention_bias": chance(rng, 0.4)}
    config |= some(rng, 0.5, router_scaling_factor=rng.choice([1.0, 0.7]), qk_norm=True, route_norm=True, enable_moe_fp32_combine=chance(rng, 0.5))
    if chance(rng, 0.5):
        config["mlp_layer_types"] = layer_list(rng, config, ["dense", "sparse", "sparse"])


FAMILIES = {
    "glm4_moe": Family("Glm4Moe", draw_glm4_moe, rotates=rotates_in_part, further=lambda config: 1),
    "minimax_m2": Family("MiniMaxM2", draw_minimax_m2, head_dim=1, rotates=rotary_dim, each=("w1", "w3", "w2"), renames=either_block, further=lambda config: config.get("num_mtp_modules", 0)),
    "dots1": Family("Dots1", draw_dots1),
    "solar_open": Family("SolarOpen", draw_solar_open, head_dim=1),
    "exaone_moe": Family("ExaoneMoe", draw_exaone_moe, names=((".mlp.gate.e_score_correction_bias", ".mlp.e_score_correction_bias"),)),
    "hy_v3": Family("HYV3", draw_hy_v3, head_dim=1, further=lambda config: 1, names=(
        (".mlp.gate.weight", ".mlp.router.gate.weight"), (".mlp.e_score_correction_bias", ".mlp.expert_bias"), (".mlp.shared_experts.", ".mlp.shared_mlp."))),
}
