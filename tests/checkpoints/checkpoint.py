# SPDX-License-Identifier: Apache-2.0
"""Random small checkpoints, as transformers would read them: a configuration of a family, and its tensors in one of the forms in which files have them."""
import json
import math
import pathlib

import torch
import transformers
from safetensors.torch import save_file

import stored
from draw import POSITIONS, chance, rope, size
from families import FAMILIES

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# what a file may hold beside the model: of every dtype that torch and safetensors both have
OTHER_DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64, torch.float64, torch.complex64,
                torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.float32, torch.bfloat16]
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def classes(family):
    name, model = FAMILIES[family].name, FAMILIES[family].model or FAMILIES[family].name
    return getattr(transformers, f"{name}Config"), getattr(transformers, f"{model}ForCausalLM")


# ---- the configuration ----


def configuration(rng, name):
    family = FAMILIES[name]
    if family.whole:
        return family.draw(rng)
    heads = rng.randint(1, 8)
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    head = 2 * rng.choice([rng.randint(1, 24), rng.randint(1, 40), 64, 128]) if chance(rng, family.head_dim) else None
    hidden = size(rng, 80) if head else heads * 2 * rng.randint(1, 12)
    if family.whole_heads and hidden % heads:   # transformers takes no other
        hidden = heads * rng.randint(1, 24)
    config = {"architectures": [classes(name)[1].__name__], "model_type": name, "hidden_size": hidden, "num_hidden_layers": rng.randint(1, 4), "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "vocab_size": rng.randint(3, 150), "max_position_embeddings": POSITIONS, "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]), "hidden_act": "silu",
              "tie_word_embeddings": chance(rng, 0.4), "bos_token_id": 1, "eos_token_id": rng.choice([2, [1, 2], None]), "intermediate_size": size(rng, 90)}
    if head:
        config["head_dim"] = head
    if chance(rng, 0.7):
        config[rng.choice(["dtype", "torch_dtype"])] = rng.choice(["float32", "bfloat16", "float16"])
    turns = rope(rng, family.rotates(rng, config, head or hidden // heads), family.rope_kinds)
    config |= turns
    if "partial_rotary_factor" in config and "rope_parameters" in config and chance(rng, 0.5):
        config["rope_parameters"]["partial_rotary_factor"] = config.pop("partial_rotary_factor")
    if "dynamic" in json.dumps(turns):
        config["max_position_embeddings"] = rng.choice([40, POSITIONS])
    if "head_dim" not in config and "factor" in json.dumps(turns):   # which transformers 5.24 needs for mixtral then
        config["head_dim"] = hidden // heads
    family.draw(rng, config)
    return config


def what_is_special(config):
    turns = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "full_attention" in turns:
        turns = {"rope_type": "by type"}
    words = ["rope " + ("alpha" if "alpha" in turns else turns.get("rope_type") or turns.get("type") or "default")]
    if (config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]) % 4:
        words.append("heads not of fours")
    words += [word for key, word in (("attention_bias", "biases"), ("mlp_bias", "biases in the ffn"), ("qkv_bias", "biases"), ("clip_qkv", "clipped"), ("sliding_window", "window"), ("mlp_only_layers", "dense layers"),
                                     ("first_k_dense_replace", "dense layers"), ("use_qk_norm", "norms of q and k"), ("layer_types", "layer types"), ("mlp_layer_types", "ffn by layer")) if config.get(key)]
    if config.get("n_group", 1) > 1:
        words.append("groups")
    if config.get("rotary_dim") or config.get("partial_rotary_factor", turns.get("partial_rotary_factor", 1)) < 1:
        words.append("partial rotation")
    return words


# ---- the tensors ----


def is_gate(name):
    return name.endswith(("gate.weight", "gate.wg.weight", "router.weight"))


def values(rng, generator, name, shape, turned):
    """Such that attention looks at several keys, routing differs from token to token, and a residual stream neither fades nor explodes."""
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.3 * noise
    if name.endswith(("bias", "sinks")):
        return 0.3 * noise
    if "embed" in name:
        return noise
    gain = 1.5 if "q_proj" in name or "k_proj" in name or is_gate(name) else 1.0
    return gain * noise / math.sqrt(shape[1] if turned and len(shape) == 3 else shape[-1])


def split_experts(tensors, each):
    """Every expert with tensors of its own, in the family's published names."""
    gate, up, down = each
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


def published(name, names):
    for part, other in names:
        name = name.replace(part, other)
    return name


def layout(rng, tensors, family):
    """Experts fused or each, under the names that files have. Returns the tensors, and words that say which."""
    words = []
    fused = not family.each or chance(rng, 0.4)
    if family.each:
        words.append("fused" if fused else "each")
        if fused and chance(rng, 0.1):   # the one fused, the other not
            words[-1] = "half fused"
            some = {n for n in tensors if n.endswith("experts.down_proj")}
            tensors = {n: t for n, t in tensors.items() if n not in some} | split_experts({n: tensors[n] for n in some}, family.each)
        elif not fused:
            tensors = split_experts(tensors, family.each)
    tensors = {published(name, family.names): tensor for name, tensor in tensors.items()}
    return family.renames(rng, tensors, fused) if family.renames else tensors, words


def storage(rng, tensors, config):
    """The same tensors as files may have them. Returns them, and words that say which form it is."""
    gates = {name for name in tensors if is_gate(name) or "norm" in name or name.endswith("correction_bias")}
    dtype_of = {id(tensors[name]): torch.float32 for name in gates}
    family, tied = FAMILIES[config["model_type"]], config["tie_word_embeddings"]
    tensors, words = layout(rng, tensors, family)

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
        elif mixed != "one dtype":
            dtype = dtype_of.get(id(tensor), base)
        tensors[name] = tensor.to(dtype).contiguous()
    if tied and both == "equal":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    if chance(rng, 0.2):
        words.append("others")
        for i in range(rng.randint(1, 3)):
            shape = [rng.randint(0, 3) for _ in range(rng.choice([0, 1, 2, 3, 5]))]
            tensors[f"extra.{i}"] = torch.zeros(shape, dtype=rng.choice(OTHER_DTYPES))
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    for further in range(family.further(config)):
        if chance(rng, 0.3):
            words.append("further layers")
            tensors[f"model.layers.{config['num_hidden_layers'] + further}.eh_proj.weight"] = torch.zeros(3, 6, dtype=base)
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
    config_class, model_class = classes(family)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in model_class(config_class(**config)).state_dict().items()}
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    tensors = {name: values(rng, generator, name, shape, FAMILIES[family].turned) for name, shape in shapes.items()}
    tensors, words = storage(rng, tensors, config)
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
        model = classes(family)[1].from_pretrained(directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval().to(dtype)
        for name, module in model.named_modules():
            if name.endswith(FAMILIES[family].gate):
                module.register_forward_hook(lambda _module, _inputs, output: gates.append([part.detach().numpy() for part in FAMILIES[family].routing(output)]))
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
