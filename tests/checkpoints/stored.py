# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose matrices are stored in FP8 or MXFP4: random values and scales, and beside them what they stand for, which transformers reads."""
import torch

FAMILIES = ("mixtral", "olmoe", "qwen3_moe", "qwen2_moe", "llama", "gpt_oss", "deepseek_v2", "deepseek_v3", "minimax_m2", "glm4_moe")
BLOCK, GROUP = 128, 32
F4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def sizes(rng, config):
    """Sizes of more than a block, and not of whole ones; of MXFP4 whole groups."""
    def many(most):
        return rng.choice([rng.randint(1, most), BLOCK + rng.randint(-1, 1), 2 * BLOCK, 2 * BLOCK + rng.randint(1, 40)])

    if config["model_type"] == "gpt_oss":
        return config | {"hidden_size": GROUP * rng.randint(1, 5), "intermediate_size": GROUP * rng.randint(1, 5)}
    made = {key: many(300) for key in ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size") if key in config}
    if "head_dim" in config and config["model_type"] not in ("llama", "olmoe"):
        made["hidden_size"] = many(300)
    return config | made


def fp8(rng, tensor, block):
    """(values, scales, what they stand for): each block of [..., N, K] as its largest value asks for."""
    rows, columns = tensor.shape[-2:]
    down, across = (-(-n // size) for n, size in zip((rows, columns), block))
    scales = torch.empty(*tensor.shape[:-2], down, across)
    for i in range(down):
        for j in range(across):
            part = tensor[..., i * block[0]:(i + 1) * block[0], j * block[1]:(j + 1) * block[1]]
            scales[..., i, j] = part.abs().amax((-2, -1)) / 448 + 1e-12
    if rng.random() < 0.3:   # powers of two, which the format ue8m0 is
        scales = torch.exp2(torch.ceil(torch.log2(scales)))
    wide = scales.repeat_interleave(block[0], -2)[..., :rows, :].repeat_interleave(block[1], -1)[..., :columns]
    values = (tensor / wide).to(torch.float8_e4m3fn)
    return values, scales, values.float() * wide


def mxfp4(tensor):
    """The same of [E, N, K]: blocks [E, N, K / 32, 16], a byte for each group, and what they stand for."""
    groups = tensor.unflatten(-1, (-1, GROUP))
    exponent = torch.ceil(torch.log2(groups.abs().amax(-1) / 6 + 1e-30)).clamp(-127, 126)
    index = (groups / torch.exp2(exponent)[..., None]).unsqueeze(-1).sub(F4).abs().argmin(-1)
    blocks = (index[..., 0::2] | index[..., 1::2] << 4).to(torch.uint8)
    return blocks, (exponent + 127).to(torch.uint8), (F4[index] * torch.exp2(exponent)[..., None]).flatten(-2)


def store_fp8(rng, config, tensors):
    single = rng.random() < 0.2
    made, plain = {}, {}
    for name, tensor in tensors.items():
        matrix = "layers." in name and tensor.dim() >= 2 and "conv" not in name and "norm" not in name and "gate.weight" not in name and "bias" not in name
        if not matrix or rng.random() < 0.1:   # as published files have some that are not
            made[name] = plain[name] = tensor
            continue
        block = tuple(tensor.shape[-2:]) if single else (BLOCK, BLOCK)
        values, scales, wide = fp8(rng, tensor.float(), block)
        if single and tensor.dim() == 2:
            scales = scales.reshape(rng.choice([[], [1]]))
        made[name], made[name + "_scale_inv"], plain[name] = values, scales.contiguous(), wide.contiguous()
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": None if single else [BLOCK, BLOCK]}
    return config | {"quantization_config": quantization}, made, plain, "fp8 with one scale" if single else "fp8"


def store_mxfp4(config, tensors):
    made, plain = {}, {}
    for name, tensor in tensors.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            made[name] = plain[name] = tensor
            continue
        made[name + "_blocks"], made[name + "_scales"], wide = mxfp4(tensor.float().mT)
        plain[name] = wide.mT.contiguous()
    return config | {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}, made, plain, "mxfp4"


def store(rng, config, tensors):
    """(config, tensors, what they stand for, word)"""
    return store_mxfp4(config, tensors) if config["model_type"] == "gpt_oss" else store_fp8(rng, config, tensors)
