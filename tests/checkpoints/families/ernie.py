# SPDX-License-Identifier: Apache-2.0
"""ERNIE 4.5: softmax with a bias for the choice."""
from draw import Family, experts, size, some


def draw_ernie4_5_moe(rng, config):
    experts(rng, config, "moe_num_experts", "moe_k")
    layers = config["num_hidden_layers"]
    config |= {"moe_intermediate_size": size(rng, 50), "moe_num_shared_experts": rng.randint(0, 3)}
    config |= some(rng, 0.5, moe_layer_start_index=rng.randint(0, layers), moe_layer_end_index=rng.choice([-1, -1, rng.randrange(layers)]), moe_layer_interval=rng.choice([1, 1, 2]))
    config |= some(rng, 0.3, use_bias=False, moe_norm_min=1e-12)


FAMILIES = {
    "ernie4_5_moe": Family("Ernie4_5_Moe", draw_ernie4_5_moe, names=((".mlp.gate.moe_statics.", ".mlp.moe_statics."),)),
}
