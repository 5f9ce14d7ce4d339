# SPDX-License-Identifier: Apache-2.0
"""Aria: experts in one tensor, inputs before outputs."""
from draw import Family, chance, experts

NAMES = ((".mlp.experts.gate_up_proj", ".mlp.experts.fc1.weight"), (".mlp.experts.down_proj", ".mlp.experts.fc2.weight"))


def draw_aria_text(rng, config):
    experts(rng, config, "moe_num_experts", "moe_topk")
    config |= {"moe_num_shared_experts": rng.randint(1, 3), "attention_bias": chance(rng, 0.4), "pad_token_id": None}


FAMILIES = {
    "aria_text": Family("AriaText", draw_aria_text, whole_heads=True, gate="mlp.router", each=(), names=NAMES),
}
