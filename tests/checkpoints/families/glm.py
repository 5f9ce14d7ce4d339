# SPDX-License-Identifier: Apache-2.0
"""Families whose gate is DeepSeek-V3's, a sigmoid with a bias for the choice, above grouped attention."""
from draw import Family, chance, experts, grouped_experts, part_of_head, size, some
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


FAMILIES = {
    "glm4_moe": Family("Glm4Moe", draw_glm4_moe, rotates=rotates_in_part, further=lambda config: 1),
    "minimax_m2": Family("MiniMaxM2", draw_minimax_m2, head_dim=1, rotates=rotary_dim, each=("w1", "w3", "w2"), renames=either_block, further=lambda config: config.get("num_mtp_modules", 0)),
}
