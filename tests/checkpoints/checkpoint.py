# SPDX-License-Identifier: Apache-2.0
"""Random small checkpoints, as transformers would read them: a configuration of a family, and its tensors in one of the forms in which files have them."""
import json
import math
import pathlib

import torch
import transformers
from safetensors.torch import save_file

import by_layer
import stored

FAMILIES = {
    "mixtral": (transformers.MixtralConfig, transformers.MixtralForCausalLM),
    "olmoe": (transformers.OlmoeConfig, transformers.OlmoeForCausalLM),
    "qwen3_moe": (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM),
    "qwen2_moe": (transformers.Qwen2MoeConfig, transformers.Qwen2MoeForCausalLM),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "gpt_oss": (transformers.GptOssConfig, transformers.GptOssForCausalLM),
} | by_layer.FAMILIES
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# what a file may hold beside the model: of every dtype that torch and safetensors both have
OTHER_DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64, torch.float64, torch.complex64,
                torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.float32, torch.bfloat16]
POSITIONS = 192
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def chance(rng, p):
    return rng.random() < p


# ---- the configuration ----


def rope(rng, head):
    """rope_theta and rope_scaling as checkpoints before transformers 5 have them, or rope_parameters."""
    kind = rng.choice(["default", "default", "linear", "llama3", "yarn", "dynamic" if head > 2 else "default", "longrope"])   # dynamic divides by head - 2
    values = {"rope_type": kind}
    if kind == "linear":
        values |= {"factor": rng.choice([1.0, 2.0, 7.5])}
    elif kind == "llama3":
        values |= {"factor": rng.choice([2.0, 8.0]), "low_freq_factor": 1.0, "high_freq_factor": rng.choice([2.0, 4.0]), "original_max_position_embeddings": rng.choice([16, 64, 128])}
    elif kind == "yarn":
        values |= {"factor": rng.choice([1.0, 2.0, 4.0]), "original_max_position_embeddings": rng.choice([48, 96])}
        values |= {key: value for key, value in {"beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.3, "truncate": False}.items() if chance(rng, 0.25)}
    elif kind == "dynamic":
        values |= {"factor": rng.choice([1.0, 2.0, 4.0])}
    elif kind == "longrope":
        values |= {key: [round(rng.uniform(1, 4), 3) for _ in range(head // 2)] for key in ("short_factor", "long_factor")} | {"factor": 4.0, "original_max_position_embeddings": 48}
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


def size(rng, most):
    """Any number, and often one beside a multiple of what vectors have."""
    return min(most, max(1, rng.choice([rng.randint(1, most), rng.choice([8, 16, 32, 64]) + rng.randint(-1, 1)])))


def configuration(rng, family):
    if family in by_layer.CONFIGURATIONS:
        return by_layer.CONFIGURATIONS[family](rng)
    heads = rng.randint(1, 8)
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    head = 2 * rng.choice([rng.randint(1, 24), rng.randint(1, 40), 64, 128]) if family != "olmoe" and chance(rng, 0.7) else None
    hidden = size(rng, 80) if head else heads * 2 * rng.randint(1, 12)
    if family == "llama" and hidden % heads:   # transformers takes no other
        hidden = heads * rng.randint(1, 24)
    config = {"architectures": [FAMILIES[family][1].__name__], "model_type": family, "hidden_size": hidden, "num_hidden_layers": rng.randint(1, 4), "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "vocab_size": rng.randint(3, 150), "max_position_embeddings": POSITIONS, "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]), "hidden_act": "silu",
              "tie_word_embeddings": chance(rng, 0.4), "bos_token_id": 1, "eos_token_id": rng.choice([2, [1, 2], None]), "intermediate_size": size(rng, 90)}
    if head:
        config["head_dim"] = head
    if chance(rng, 0.7):
        config[rng.choice(["dtype", "torch_dtype"])] = rng.choice(["float32", "bfloat16", "float16"])
    turns = rope(rng, head or hidden // heads)
    config |= turns
    if "dynamic" in json.dumps(turns):
        config["max_position_embeddings"] = rng.choice([40, POSITIONS])
    if "head_dim" not in config and "factor" in json.dumps(turns):   # which transformers 5.24 needs for mixtral then
        config["head_dim"] = hidden // heads
    if family == "gpt_oss":
        return {"head_dim": hidden // heads} | config | stored.gpt_oss(rng, config)
    if family == "qwen2_moe":
        config["qkv_bias"] = chance(rng, 0.7)
    elif family != "mixtral":
        config["attention_bias"] = chance(rng, 0.4)
    if family == "llama":
        config["mlp_bias"] = chance(rng, 0.3)
        return config

    experts = rng.randint(1, 12)
    config["num_experts_per_tok"] = rng.randint(1, min(experts, 8))
    config["num_local_experts" if family == "mixtral" else "num_experts"] = experts
    if family == "mixtral":
        config["sliding_window"] = rng.choice([None, None, rng.randint(1, 50)])
    else:
        config["norm_topk_prob"] = chance(rng, 0.5)
    if family == "olmoe":
        config["clip_qkv"] = rng.choice([None, None, 0.5, 2.0])
    if family in ("qwen2_moe", "qwen3_moe"):
        layers = config["num_hidden_layers"]
        config |= {"moe_intermediate_size": size(rng, 90), "decoder_sparse_step": rng.choice([1, 1, 1, 2]), "mlp_only_layers": rng.choice([[], [], [rng.randrange(layers)]])}
        if chance(rng, 0.3):
            config |= {"use_sliding_window": True, "sliding_window": rng.randint(1, 50)}
    if family == "qwen2_moe":
        config |= {"shared_expert_intermediate_size": size(rng, 90), "max_window_layers": rng.randint(0, 5)}
    return config


def what_is_special(config):
    turns = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "full_attention" in turns:
        turns = {"rope_type": "by type"}
    words = ["rope " + (turns.get("rope_type") or turns.get("type") or "default")]
    if (config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]) % 4:
        words.append("heads not of fours")
    words += [word for key, word in (("attention_bias", "biases"), ("mlp_bias", "biases in the ffn"), ("qkv_bias", "biases"), ("clip_qkv", "clipped"), ("sliding_window", "window"), ("mlp_only_layers", "dense layers")) if config.get(key)]
    return words


# ---- the tensors ----


def values(rng, generator, name, shape, turned=False):
    """Such that attention looks at several keys, routing differs from token to token, and a residual stream neither fades nor explodes."""
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.3 * noise
    if name.endswith(("bias", "sinks")):
        return 0.3 * noise
    if "embed" in name:
        return noise
    gain = 1.5 if "q_proj" in name or "k_proj" in name or name.endswith(("gate.weight", "router.weight")) else 1.0
    return gain * noise / math.sqrt(shape[-1] if len(shape) < 3 or not turned else shape[1])


def split_experts(tensors, family):
    """Every expert with tensors of its own, in the family's published names."""
    gate, up, down = ("w1", "w3", "w2") if family == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    made = {}
    for name, tensor in tensors.items():
        prefix, _, last = name.rpartition(".")
        if last not in ("gate_up_proj", "down_proj"):
            made[name] = tensor
            continue
        for expert, matrix in enumerate(tensor):
            if last == "down_proj":
                made[f"{prefix}.{expert}.{down}.weight"] = matrix
            else:
                made[f"{prefix}.{expert}.{gate}.weight"], made[f"{prefix}.{expert}.{up}.weight"] = matrix.chunk(2)
    return made


def storage(rng, tensors, family, tied):
    """The same tensors as files may have them. Returns them, and words that say which form it is."""
    words = []
    each = family not in ("llama", "gpt_oss")
    fused = each and chance(rng, 0.4)
    if each:
        words.append("fused" if fused else "each")
        if fused and chance(rng, 0.1):   # the one fused, the other not
            words[-1] = "half fused"
            some = {n for n in tensors if n.endswith("experts.down_proj")}
            tensors = {n: t for n, t in tensors.items() if n not in some} | split_experts({n: tensors[n] for n in some}, family)
        elif not fused:
            tensors = split_experts(tensors, family)
    if family == "mixtral" and chance(rng, 0.3 if fused else 0.8):
        tensors = {name.replace(".mlp.", ".block_sparse_moe."): tensor for name, tensor in tensors.items()}

    if tied:
        both = rng.choice(["embedding", "embedding", "head", "equal", "differing"])
        words.append(f"tied, {both}")
        embed = tensors["model.embed_tokens.weight"]
        if both == "embedding":
            del tensors["lm_head.weight"]
        elif both == "head":
            del tensors["model.embed_tokens.weight"]
        if both != "differing" and "lm_head.weight" in tensors:
            tensors["lm_head.weight"] = embed.clone()

    mixed = rng.choice(["one dtype", "one dtype", "gates and norms f32", "any dtypes"])
    words.append(mixed)
    base = rng.choice(DTYPES)
    for name, tensor in tensors.items():
        dtype = base
        if mixed == "any dtypes":
            dtype = rng.choice(DTYPES)
        elif mixed != "one dtype" and (name.endswith("gate.weight") or "norm" in name):
            dtype = torch.float32
        tensors[name] = tensor.to(dtype).contiguous()
    if tied and both == "equal":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    if chance(rng, 0.2):
        words.append("others")
        for i in range(rng.randint(1, 3)):
            shape = [rng.randint(0, 3) for _ in range(rng.choice([0, 1, 2, 3, 5]))]
            tensors[f"extra.{i}"] = torch.zeros(shape, dtype=rng.choice(OTHER_DTYPES))
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    return tensors, words


def write(rng, directory, config, tensors):
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=rng.choice([None, 2])))
    shards = rng.choice([1, 1, 2, 5])
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    places = {name: rng.randrange(shards) for name in tensors}
    weight_map = {name: f"model-{place + 1:05}-of-{shards:05}.safetensors" for name, place in places.items()}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name, where in weight_map.items() if where == file}, directory / file, metadata={"format": "pt"})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def plain_of(directory):
    """Where the checkpoint is whose matrices transformers reads, if those of this one are stored otherwise."""
    return directory.with_name(directory.name + "-plain")


def make(rng, directory: pathlib.Path, family):
    """Writes a checkpoint. Returns words that say what is special about it."""
    config = configuration(rng, family)
    quantised = family in stored.FAMILIES and chance(rng, 0.3)
    if quantised:
        config = stored.sizes(rng, config)
    config_class, model_class = FAMILIES[family]
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in model_class(config_class(**config)).state_dict().items()}
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    tensors = {name: values(rng, generator, name, shape, family == "gpt_oss") for name, shape in shapes.items()}
    tensors, words = storage(rng, tensors, family, config["tie_word_embeddings"])
    if quantised:
        plain_config = config
        config, tensors, plain, word = stored.store(rng, config, tensors)
        write(rng, plain_of(directory), plain_config, plain)
        words.append(word)
    write(rng, directory, config, tensors)
    return ", ".join([family, *what_is_special(config), *words])


# ---- what it computes ----


def reference(directory, family, sequences, greedy_tokens, dtype=torch.float32):
    """What transformers computes of the files: per sequence logits, greedy tokens, and of each MoE layer the gate's logits, choice and weights."""
    gates = []
    directory = plain_of(directory) if plain_of(directory).exists() else directory
    config = (directory / "config.json").read_text()
    lasting = not any(kind in config for kind in ('"dynamic"', '"longrope"'))   # those keep the rotation of the longest sequence that they have seen

    def load():
        model = FAMILIES[family][1].from_pretrained(directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval().to(dtype)
        for name, module in model.named_modules():
            if name.endswith(("mlp.gate", "mlp.router")):
                module.register_forward_hook(lambda _module, _inputs, output: gates.append([part.detach().numpy() for part in output]))
        return model

    def compute(tokens):
        gates.clear()
        with torch.no_grad():
            return (model if lasting else load())(torch.tensor([tokens]), use_cache=False).logits[0]

    model = load() if lasting else None
    results = []
    for tokens in sequences:
        logits = compute(tokens)
        routing = [tuple(gate) for gate in gates]
        greedy = list(tokens)
        for _ in range(greedy_tokens):
            greedy.append(int(compute(greedy)[-1].argmax()))
        results.append({"logits": logits.numpy(), "routing": routing, "greedy": greedy[len(tokens):]})
    return results
