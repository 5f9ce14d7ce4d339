# SPDX-License-Identifier: Apache-2.0
"""Every component, in random company: tokenizer.json files made of random normalizers, pre-tokenizers, decoders and added tokens, against the `tokenizers` library.

    pytest tests/tokenizers/test_components.py

CADRE_SEED repeats a run; CADRE_TOKENIZERS is how many are made."""
import json
import os
import pathlib
import random
import subprocess

import pytest

import convert
import corpus

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
ROOT = pathlib.Path(__file__).resolve().parents[2]
CADRECTL = pathlib.Path(os.environ.get("CADRE_BUILD", ROOT / "build")) / "bin" / "cadrectl"
COUNT = int(os.environ.get("CADRE_TOKENIZERS", 150))
SEED = int(os.environ.get("CADRE_SEED", 1))

PATTERNS = [{"String": " "}, {"String": "a"}, {"String": "aa"}, {"String": "▁"}, {"String": "é"}, {"Regex": r"\s+"}, {"Regex": r"\d"}, {"Regex": r"\p{L}+"}, {"Regex": r"[^\s\p{L}]+"},
            {"Regex": r"\S+\s?"}, {"Regex": r"(?i:'s|'t)|\p{Lu}\p{Ll}*"}, {"Regex": r"\p{N}{1,3}"}, {"Regex": r"a*"}, {"Regex": r"\s+(?!\S)|\s"}, {"Regex": r"[a-z]{2,}?"}, {"Regex": r"\P{L}"},
            {"Regex": r"\D+"}, {"Regex": r"[\p{P}\p{S}]"}, {"Regex": r"\p{M}|\u3000|\x{e9}"}, {"Regex": r"(?<=a)b|(?<!b)c"}, {"Regex": r"[^\S\n]+"}]
BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def sequence(rng, key, make, most=3):
    parts = [make(rng) for _ in range(rng.randrange(most + 1))]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 and rng.random() < 0.5 else {"type": "Sequence", key: parts}


def normalizer(rng):
    kind = rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Strip"])
    extra = {"Prepend": {"prepend": rng.choice(["▁", "x", "a "])}, "Replace": {"pattern": rng.choice([p for p in PATTERNS if p != {"Regex": "a*"}]), "content": rng.choice(["▁", "", "a", "bb", " "])},
             "Strip": {"strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.5}}
    return {"type": kind} | extra.get(kind, {})


def pre_tokenizers(rng):
    made = sequence(rng, "pretokenizers", pre_tokenizer)
    # "first" goes by offsets into the original text, which the library gets wrong after some other components
    for part in (made or {}).get("pretokenizers", [])[1:]:
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "always"
    return made


def pre_tokenizer(rng):
    kind = rng.choice(["Split", "Split", "ByteLevel", "Metaspace", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"])
    extra = {"Split": {"pattern": rng.choice(PATTERNS), "behavior": rng.choice(BEHAVIORS), "invert": rng.random() < 0.3},
             "ByteLevel": {"add_prefix_space": rng.random() < 0.5, "trim_offsets": True, "use_regex": rng.random() < 0.5},
             "Metaspace": {"replacement": "▁", "prepend_scheme": rng.choice(["always", "first", "never"]), "split": rng.random() < 0.5},
             "Digits": {"individual_digits": rng.random() < 0.5}, "Punctuation": {"behavior": rng.choice(BEHAVIORS)}}
    return {"type": kind} | extra.get(kind, {})


def decoder(rng):
    """A chain in which nothing that works on tokens stands behind what joins them."""
    tokenwise = [{"type": "Replace", "pattern": rng.choice(PATTERNS), "content": rng.choice([" ", "", "xy"])}, {"type": "ByteFallback"},
                 {"type": "Strip", "content": rng.choice(" ▁a"), "start": rng.randrange(3), "stop": 0},
                 {"type": "Metaspace", "replacement": "▁", "prepend_scheme": rng.choice(["always", "first", "never"]), "split": True}]
    parts = [part for part in rng.sample(tokenwise, len(tokenwise)) if rng.random() < 0.5]
    parts += [{"type": rng.choice(["Fuse", "ByteLevel"]), "add_prefix_space": True, "trim_offsets": True, "use_regex": True}] if rng.random() < 0.7 else []
    if parts and parts[-1]["type"] in ("Fuse", "ByteLevel"):
        parts += [part for part in rng.sample(tokenwise, len(tokenwise)) if part["type"] != "ByteFallback" and rng.random() < 0.4]
    return {"type": "Sequence", "decoders": parts} if parts and rng.random() < 0.9 else None


def bpe(rng):
    characters = list("abcdefghijklmnopqrstuvwxyz .,'0123456789▁ABÉé中文") + list(convert.byte_characters().values())
    byte_fallback = rng.random() < 0.5
    tokens = ["<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []) + characters
    merges = []
    for _ in range(rng.randrange(200)):
        pair = [rng.choice(tokens[-120:] if rng.random() < 0.8 else tokens[1:]) for _ in range(2)]
        if pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return {"type": "BPE", "dropout": None, "unk_token": rng.choice(["<unk>", None]), "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": rng.random() < 0.5, "byte_fallback": byte_fallback, "ignore_merges": rng.random() < 0.3, "vocab": vocab,
            "merges": merges if rng.random() < 0.5 or any(" " in t for pair in merges for t in pair) else [" ".join(pair) for pair in merges]}


def added_tokens(rng, vocab):
    contents = rng.sample(["<s>", "<unk>", "<sep>", "  ", "   ", "the", "a", "ab", "<|x|>", "<|x|>y", "É", "é", "中", "½", " of", "\n"], rng.randrange(8))
    next_id, tokens = len(vocab), []
    for content in contents:
        token_id = vocab.get(content)
        if token_id is None:
            token_id, next_id = next_id, next_id + 1
        flags = {key: rng.random() < 0.3 for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        tokens.append({"id": token_id, "content": content} | flags)
    return tokens


def make(rng):
    model = bpe(rng)
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(rng, model["vocab"]), "normalizer": sequence(rng, "normalizers", normalizer),
            "pre_tokenizer": pre_tokenizers(rng), "post_processor": rng.choice([None, convert.template("<unk>", 0)]), "decoder": decoder(rng), "model": model}


def library_for(made):
    """None where the library itself refuses or panics; where it would loop for ever (an added token is empty when normalized, which Cadre refuses); and where its
    answer is by chance (two added tokens are equal when normalized)."""
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(made))
    except BaseException:
        return None
    normalize = library.normalizer.normalize_str if library.normalizer else str
    forms = [normalize(token["content"]) for token in made["added_tokens"] if token["normalized"]]
    return library if all(forms) and len(set(forms)) == len(forms) else None


@pytest.mark.parametrize("number", range(COUNT))
def test_random_tokenizer(number, tmp_path):
    rng = random.Random(f"{SEED}.{number}")
    made = make(rng)
    library = library_for(made)
    if library is None:
        pytest.skip("the library refuses this one, would never end, or answers by chance")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(made))
    specials = [token["content"] for token in made["added_tokens"]] or ["<unk>"]
    expected = []
    for text in rng.sample(list(corpus.texts(400, specials)), 120):
        try:
            encoding = library.encode(text)
            expected.append((text, encoding.ids, library.decode(encoding.ids)))
        except BaseException:   # a panic of the library's Rust code
            continue
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text, _, _ in expected))
    subprocess.run([CADRECTL, "tokenize", "--tokenizer", path, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"], check=True, timeout=60)
    lines = (tmp_path / "out.jsonl").read_text().split("\n")[:-1]
    assert len(lines) == len(expected)
    for (text, ids, decoded), line in zip(expected, lines):
        got = json.loads(line)
        assert got["ids"] == ids, f"seed {SEED}, number {number}: {text!r}"
        assert got["decoded"] == decoded, f"seed {SEED}, number {number}: {text!r}"
