#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/tokenizers/beside_cases.json, which tests/unit/test_tokenizer_files.c reads: a small tokenizer.json with files beside it, and what AutoTokenizer of
transformers (5.24.0 when it was written) makes of a text.

    pip install transformers
    python3 tests/tokenizers/beside_cases.py > tests/tokenizers/beside_cases.json"""
import json
import os
import pathlib
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import transformers  # noqa: E402

VOCAB = {c: i for i, c in enumerate("abcdefgh <>xy")}
COUNT = len(VOCAB)
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast"}
cases = []


def token(content, token_id=None, typed=False, **flags):
    made = {"__type": "AddedToken"} if typed else {}
    return made | {"content": content} | flags | ({} if token_id is None else {"id": token_id})


def own(content, token_id, **flags):
    return token(content, token_id, **({"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False} | flags))


def case(text, listed=(), **files):
    made = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(listed), "normalizer": {"type": "Lowercase"}, "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "unk_token": None, "vocab": VOCAB, "merges": []}}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {"tokenizer": made, **files}.items():
            pathlib.Path(folder, f"{name}.json").write_text(json.dumps(content))
        auto = transformers.AutoTokenizer.from_pretrained(folder)
    ids = auto(text, add_special_tokens=False)["input_ids"]
    cases.append({"tokenizer": made, "files": {f"{name}.json": content for name, content in files.items()}, "text": text, "ids": ids, "decoded": auto.decode(ids, skip_special_tokens=True)})


def main():
    text = "a <x> b<y>h <X>"
    case(text)
    case(text, tokenizer_config=CONFIG | {"added_tokens_decoder": {str(COUNT + 1): token("<y>", special=True), str(COUNT): token("<x>")}})
    case(text, [own("<x>", COUNT)], tokenizer_config=CONFIG | {"added_tokens_decoder": {str(COUNT): token("<x>", lstrip=True, rstrip=True, special=True)}})
    case(text, [own("<x>", COUNT)], tokenizer_config=CONFIG | {"added_tokens_decoder": {str(COUNT + 3): token("<x>", special=True)}})  # the id of tokenizer.json counts
    case(text, tokenizer_config=CONFIG, added_tokens={"<y>": COUNT + 1, "<x>": COUNT})
    case(text, tokenizer_config=CONFIG | {"eos_token": "<y>"}, added_tokens={"<y>": COUNT + 1, "<x>": COUNT})
    case(text, tokenizer_config=CONFIG | {"added_tokens_decoder": {}}, added_tokens={"<y>": COUNT + 1, "<x>": COUNT})
    case(text, [own("<x>", COUNT)], tokenizer_config=CONFIG, added_tokens={"<y>": COUNT})
    case(text, added_tokens={"<y>": COUNT})
    case(text, tokenizer_config=CONFIG | {"eos_token": "<y>", "bos_token": "h", "pad_token": "<x>", "image_token": "b", "add_bos_token": True})
    case(text, tokenizer_config=CONFIG | {"eos_token": token("<x>", typed=True, lstrip=True, rstrip=True, normalized=False, single_word=False)})
    case(text, tokenizer_config=CONFIG | {"eos_token": token("<X>", typed=True, lstrip=False, rstrip=False, normalized=True, single_word=False)})
    case(text, tokenizer_config=CONFIG | {"additional_special_tokens": ["<x>", token("<y>", typed=True, lstrip=True)]})
    case(text, tokenizer_config=CONFIG | {"extra_special_tokens": {"image_token": "<x>"}, "additional_special_tokens": ["<y>"]})
    case(text, tokenizer_config=CONFIG, special_tokens_map={"eos_token": token("<x>", lstrip=True, rstrip=True, normalized=False, single_word=False), "pad_token": "<y>"})
    case(text, tokenizer_config=CONFIG | {"eos_token": "h"}, special_tokens_map={"eos_token": "<y>", "extra_special_tokens": ["<x>"]})
    case(text, tokenizer_config=CONFIG | {"added_tokens_decoder": {}, "eos_token": "h"}, special_tokens_map={"eos_token": "<y>"})
    case(text, [own("<x>", COUNT)], tokenizer_config=CONFIG | {"eos_token": "<x>"})
    case(text, [own("<x>", COUNT)], tokenizer_config=CONFIG | {"eos_token": "<x>", "added_tokens_decoder": {}})
    case(text, tokenizer_config=CONFIG | {"eos_token": "<x>", "sep_token": token("<x>", typed=True, lstrip=True, rstrip=False, normalized=False, single_word=False), "unk_token": None})
    case(text, tokenizer_config=CONFIG | {"unk_token": "<x>", "additional_special_tokens": [token("<x>", typed=True, lstrip=True, special=False), "<x>"]})
    print("[\n" + ",\n".join(json.dumps(made) for made in cases) + "\n]")


if __name__ == "__main__":
    main()
