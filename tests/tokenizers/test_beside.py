# SPDX-License-Identifier: Apache-2.0
"""Files beside tokenizer.json, at random: what tokenizer_config.json, special_tokens_map.json and added_tokens.json name becomes what AutoTokenizer makes of it.

    pip install transformers
    pytest tests/tokenizers/test_beside.py

CADRE_SEED repeats a run, CADRE_TOKENIZERS is how many folders are made; what came of them is printed."""
import collections
import json
import os
import pathlib
import random
import subprocess

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
ROOT = pathlib.Path(__file__).resolve().parents[2]
CADRECTL = pathlib.Path(os.environ.get("CADRE_BUILD", ROOT / "build")) / "bin" / "cadrectl"
COUNT = int(os.environ.get("CADRE_TOKENIZERS", 150))
SEED = int(os.environ.get("CADRE_SEED", 1))

NAMES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
TOKENS = ["<x>", "<y>", "<X>", "<z z>", "ab", "h", "  ", "<|a\n|>", "é"]
VOCAB = {c: i for i, c in enumerate("abcdefgh <>xyzé|\n")}


def flags(rng, keys=("lstrip", "rstrip", "single_word", "normalized", "special")):
    return {key: rng.random() < 0.4 for key in keys if rng.random() < 0.6}


def tokenizer(rng):
    own, next_id = [], len(VOCAB)
    for content in rng.sample(TOKENS, rng.randrange(4)):
        token_id = VOCAB.get(content, next_id)
        next_id += token_id == next_id
        own.append({"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False} | flags(rng))
    return own, {"version": "1.0", "truncation": None, "padding": None, "added_tokens": own, "normalizer": rng.choice([None, {"type": "Lowercase"}]), "pre_tokenizer": None, "post_processor": None,
                 "decoder": rng.choice([None, {"type": "Fuse"}]), "model": {"type": "BPE", "unk_token": None, "vocab": VOCAB, "merges": []}}


def decoder_map(rng, own):
    """"added_tokens_decoder": mostly with the ids that the tokens get."""
    ids = {token["content"]: token["id"] for token in own}
    next_id, listed = max([len(VOCAB) - 1, *ids.values()]) + 1, {}
    for content in rng.sample(TOKENS, rng.randrange(5)):
        token_id = ids.get(content, VOCAB.get(content, next_id))
        next_id += token_id == next_id
        listed[str(token_id + 7 * (rng.random() < 0.03))] = {"content": content} | flags(rng)
    return dict(rng.sample(list(listed.items()), len(listed)))


def special(rng, typed=True):
    content = rng.choice(TOKENS)
    if rng.random() < 0.6:
        return content
    return ({"__type": "AddedToken"} if typed else {}) | {"content": content} | {key: rng.random() < 0.4 for key in ("lstrip", "rstrip", "single_word", "normalized")}


def files(rng, own):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": rng.choice([512, 1000000000000000019884624838656])}
    if rng.random() < 0.5:
        config["added_tokens_decoder"] = decoder_map(rng, own)
    for name in rng.sample(NAMES, rng.randrange(4)):
        config[name] = special(rng) if rng.random() < 0.9 else None
    if rng.random() < 0.2:
        config["extra_special_tokens"] = {"image_token": rng.choice(TOKENS)}
    if rng.random() < 0.3:
        config[rng.choice(["additional_special_tokens", "extra_special_tokens"])] = [special(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.2:
        config[rng.choice(["image_token", "boi_token"])] = rng.choice(TOKENS)
    made = {"tokenizer_config": config} if rng.random() < 0.9 else {}
    if rng.random() < 0.3:
        made["special_tokens_map"] = {name: special(rng, typed=False) for name in rng.sample(NAMES, rng.randrange(3))}
    if rng.random() < 0.4:
        ids = {token["content"]: token["id"] for token in own}
        next_id = max([len(VOCAB) - 1, *ids.values()]) + 1
        made["added_tokens"] = {content: next_id + i for i, content in enumerate(rng.sample([t for t in TOKENS if t not in VOCAB and t not in ids], rng.randrange(3)))}
    return made


def check(number, folder):
    """What came of one folder: a word for the counts, and what is wrong."""
    rng = random.Random(f"{SEED}.{number}")
    own, made = tokenizer(rng)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(made))
    for name, content in files(rng, own).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    try:
        auto = transformers.AutoTokenizer.from_pretrained(str(folder))
    except BaseException:
        return "transformers refuses them", ""
    normalize = auto.backend_tokenizer.normalizer.normalize_str if auto.backend_tokenizer.normalizer else str
    forms = [normalize(token.content) for token in auto.added_tokens_decoder.values() if token.normalized]
    if len(set(forms)) < len(forms):
        return "added tokens are equal when normalized: the library answers by chance", ""
    texts = ["".join(rng.choice(TOKENS + ["a", " ", "b ", "<"]) for _ in range(rng.randrange(1, 8))) for _ in range(40)]
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = subprocess.run([CADRECTL, "tokenize", "--tokenizer", folder / "tokenizer.json", "--input", folder / "in.jsonl", "--output", "-"], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        return "refused: ids that contradict each other", "" if "says that its id is" in done.stderr else done.stderr
    lines = done.stdout.split("\n")[:-1]
    if len(lines) != len(texts):
        return "different", f"{len(lines)} lines"
    for text, line in zip(texts, lines):
        try:
            ids, got = auto(text, add_special_tokens=False)["input_ids"], json.loads(line)
        except BaseException:   # also a panic of the library's Rust code: of this text nothing is known
            continue
        decoded = auto.decode(ids, skip_special_tokens=True)
        if got["ids"] != ids or got["decoded"] != decoded:
            return "different", f"{text!a}: transformers {ids} {decoded!a}, Cadre {got['ids']} {got['decoded']!a}"
    return "equal", ""


def test_random_files(tmp_path, capsys):
    counts, wrong = collections.Counter(), []
    for number in range(COUNT):
        word, problem = check(number, tmp_path / str(number))
        counts[word] += 1
        if problem:
            wrong.append(f"seed {SEED}, number {number}: {problem}")
    with capsys.disabled():
        print(f"\nseed {SEED}, {COUNT} folders:", ", ".join(f"{count} {word}" for word, count in counts.most_common()))
    assert not wrong, f"{len(wrong)} of {COUNT} folders:\n" + "\n".join(wrong[:20])
    assert counts["equal"] >= COUNT // 2
