# SPDX-License-Identifier: Apache-2.0
"""What families have in common: a family as data, and how parts of a config.json are drawn."""
import dataclasses
from collections.abc import Callable

POSITIONS = 192


@dataclasses.dataclass
class Family:
    """`draw(rng, config)` adds to a config.json that has sizes, dtype and special tokens what only this family has."""
    name: str                          # of the classes of transformers, without Config and ForCausalLM
    draw: Callable
    whole: bool = False                # `draw(rng)` returns all of it
    head_dim: float = 0.7              # how often head_dim is given
    whole_heads: bool = False          # hidden_size is a multiple of the heads
    rotates: Callable = lambda rng, config, head: head   # of a head's elements so many; may add to the config what says so
    rope_kinds: tuple = ("default", "default", "linear", "llama3", "yarn", "dynamic", "longrope")
    model: str = ""                    # of the class ForCausalLM, where it is another
    routing: Callable = lambda output: output   # (logits, weights, experts) of what those modules give
    gate: str = "mlp.gate"             # of the modules that give logits, weights and experts
    turned: bool = False               # fused experts are [E, inputs, outputs]
    each: tuple = ("gate_proj", "up_proj", "down_proj")   # what an expert's tensors are called where each has its own; () if none has
    names: tuple = ()                  # (part of a name in transformers, what published files have instead)
    renames: Callable | None = None    # (rng, tensors, fused): names that files have either way
    further: Callable = lambda config: 0   # layers that predict further tokens, whose tensors a file may have


def chance(rng, p):
    return rng.random() < p


def size(rng, most):
    """Any number, and often one beside a multiple of what vectors have."""
    return min(most, max(1, rng.choice([rng.randint(1, most), rng.choice([8, 16, 32, 64]) + rng.randint(-1, 1)])))


def some(rng, p, **values):
    """Each of them with this probability; else the family's default holds."""
    return {key: value for key, value in values.items() if chance(rng, p)}


# ---- rotation ----


def rope(rng, rotated, kinds):
    """rope_theta and rope_scaling as checkpoints before transformers 5 have them, or rope_parameters. `rotated` elements of a head turn."""
    kind = rng.choice([kind for kind in kinds if kind != "dynamic" or rotated > 2])   # dynamic divides by rotated - 2
    values = {"rope_type": kind}
    if kind == "linear":
        values |= {"factor": rng.choice([1.0, 2.0, 7.5])}
    elif kind == "llama3":
        values |= {"factor": rng.choice([2.0, 8.0]), "low_freq_factor": 1.0, "high_freq_factor": rng.choice([2.0, 4.0]), "original_max_position_embeddings": rng.choice([16, 64, 128])}
    elif kind == "yarn":
        values |= {"factor": rng.choice([1.0, 2.0, 4.0]), "original_max_position_embeddings": rng.choice([48, 96])}
        values |= some(rng, 0.25, beta_fast=16.0, beta_slow=2.0, attention_factor=1.3, truncate=False)
    elif kind == "dynamic":
        values |= {"factor": rng.choice([1.0, 2.0, 4.0])}
    elif kind == "longrope":
        values |= {key: [round(rng.uniform(1, 4), 3) for _ in range(rotated // 2)] for key in ("short_factor", "long_factor")} | {"factor": 4.0, "original_max_position_embeddings": 48}
    theta = rng.choice([100.0, 10000.0, 1e6])
    if chance(rng, 0.5):
        return {"rope_parameters": values | {"rope_theta": theta}}
    made = {"rope_theta": theta}
    if kind != "default":
        scaling = dict(values)
        if chance(rng, 0.3):
            scaling["type"] = scaling.pop("rope_type")
        made["rope_scaling"] = scaling
    elif chance(rng, 0.5):
        made["rope_scaling"] = None
    return made


def part_of_head(rng, head, factors):
    """One of the factors of which an even number of elements comes, 2 at least; None: there is none."""
    fitting = [factor for factor in factors if int(head * factor) % 2 == 0 and int(head * factor) >= 2]
    return rng.choice(fitting) if fitting else None


# ---- experts, and which layers have which ----


def experts(rng, config, key="num_experts", topk="num_experts_per_tok", most=12):
    config[key] = rng.randint(1, most)
    config[topk] = rng.randint(1, min(config[key], 8))


def grouped_experts(rng, config, key="n_routed_experts"):
    """In groups, of which some are kept."""
    groups = rng.choice([1, 1, 2, 3, 4])
    each = rng.randint(2, 5)   # the two best of a group count
    kept = rng.randint(1, groups)
    config |= {key: groups * each, "n_group": groups, "topk_group": kept, "num_experts_per_tok": rng.randint(1, min(kept * each, 8))}


def layer_list(rng, config, words):
    return [rng.choice(words) for _ in range(config["num_hidden_layers"])]


def window(rng):
    return rng.randint(1, 50)
