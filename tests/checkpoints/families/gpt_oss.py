# SPDX-License-Identifier: Apache-2.0
"""gpt-oss; stored.py has its MXFP4."""
from draw import Family, chance, experts, window


def draw_gpt_oss(rng, config):
    experts(rng, config, "num_local_experts")
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    config |= {"attention_bias": chance(rng, 0.8), "sliding_window": window(rng), "swiglu_limit": rng.choice([7.0, 7.0, 1.0, 0.25])}
    if not (config.get("rope_scaling") or config.get("rope_parameters")):   # without, transformers makes one up
        config["rope_scaling"] = {"rope_type": "default"}
    if chance(rng, 0.7):
        config["layer_types"] = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(config["num_hidden_layers"])]


FAMILIES = {
    "gpt_oss": Family("GptOss", draw_gpt_oss, gate="mlp.router", each=(), turned=True),
}
