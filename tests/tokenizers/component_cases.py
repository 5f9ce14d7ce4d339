#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/tokenizers/component_cases.json, which tests/unit/test_tokenizer.c reads: small tokenizers, a component each, and what the `tokenizers` library makes
of a text ("ids"; "tokens" is for readers) or of ids ("decoded").

    pip install tokenizers
    python3 tests/tokenizers/component_cases.py > tests/tokenizers/component_cases.json"""
import json

import tokenizers

CHARACTERS = "abcdehlorstwx .,!-127▁éÉ中Ġ\u0301\u0316\n"
MERGES = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["▁", "hello"], ["w", "o"], ["▁", "wo"], ["c", "a"], ["Ġ", "wo"]]
BYTES = [f"<0x{b:02X}>" for b in (0xE4, 0xB8, 0xAD, 0x41, 0xF0, 0x9F, 0x98, 0x80)]
VOCAB = {token: i for i, token in enumerate(["<unk>", *CHARACTERS, *BYTES, *("".join(m) for m in MERGES)])}
MODEL = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": False, "byte_fallback": False, "vocab": VOCAB, "merges": MERGES}
cases = []


def make(parts, added):
    """added: [(content, letters)] with letters of single-word, lstrip, rstrip, normalized, special; a content may be there twice."""
    names = {"w": "single_word", "l": "lstrip", "r": "rstrip", "n": "normalized", "s": "special"}
    tokens, next_id, ids = [], len(VOCAB), dict(VOCAB)
    for content, letters in added:
        token_id = ids.setdefault(content, next_id)
        next_id += token_id == next_id
        tokens.append({"id": token_id, "content": content} | {name: letter in letters for letter, name in names.items()})
    made = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    made |= {key: value for key, value in parts.items() if key != "model"}
    made["model"] = MODEL | parts.get("model", {})
    return tokens, tokenizers.Tokenizer.from_str(json.dumps(made))


def encodes(parts, text, added=()):
    tokens, library = make(parts, added)
    ids = library.encode(text).ids
    cases.append({"parts": parts, "added_tokens": tokens, "text": text, "ids": ids, "tokens": [library.id_to_token(i) for i in ids]})


def decodes(decoder, names, added=(), skip_special=True):
    tokens, library = make({"decoder": decoder}, added)
    ids = [library.token_to_id(name) for name in names]
    cases.append({"parts": {"decoder": decoder}, "added_tokens": tokens, "skip_special": skip_special, "ids": ids, "decoded": library.decode(ids, skip_special)})


def normalizer(text, kind, **settings):
    encodes({"normalizer": {"type": kind} | settings}, text)


def pre_tokenizer(text, kind, *, added=(), **settings):
    encodes({"pre_tokenizer": {"type": kind} | settings}, text, added)


def normalizers():
    normalizer("hello", "Prepend", prepend="▁")
    normalizer("", "Prepend", prepend="▁")
    normalizer("hello  wo", "Replace", pattern={"String": " "}, content="▁")
    normalizer("hello", "Replace", pattern={"Regex": "l+"}, content="")
    normalizer("HELLO É", "Lowercase")
    normalizer(" \u3000a ", "Strip", strip_left=True, strip_right=False)
    normalizer("\n a \u0085\u00a0", "Strip", strip_left=False, strip_right=True)
    normalizer(" \n ", "Strip", strip_left=True, strip_right=True)
    normalizer("e\u0301 e\u0316\u0301 e\u0301\u0316 \u0301e", "NFC")
    normalizer("e" + "\u0301\u0316" * 40, "NFC")
    normalizer("é\u0316", "NFD")
    normalizer("\uff41\u2460\u2461", "NFKC")
    normalizer("\u00b2é\u212b", "NFKD")
    encodes({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]}]}}, "E\u0301")
    first = {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "a|[\u0301\u0316]+"}, "behavior": "Isolated", "invert": False},
                                                    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}]}
    for form in ("NFD", "NFKC", "NFC"):  # the mark that comes first now is not the one that did
        encodes({"normalizer": {"type": form}, "pre_tokenizer": first}, "\u0301\u0316a")
        encodes({"normalizer": {"type": form}, "pre_tokenizer": first}, "\u0344\u0316a")
    encodes({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Prepend", "prepend": "x"}, {"type": "NFKC"}]}}, " ")


def pre_tokenizers():
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        pre_tokenizer("-he-llo--ca-", "Split", pattern={"String": "-"}, behavior=behavior, invert=False)
        pre_tokenizer("hello2, 17hello", "Split", pattern={"Regex": r"\p{L}+|\d"}, behavior=behavior, invert=True)
    pre_tokenizer("he  he \n he  ", "Split", pattern={"Regex": r"\s+(?!\S)|\s+"}, behavior="Isolated", invert=False)
    pre_tokenizer("wo wo", "ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True)
    pre_tokenizer("wo's  wo", "ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    for scheme in ("always", "first", "never"):
        pre_tokenizer("hello<s>hello hello", "Metaspace", replacement="▁", prepend_scheme=scheme, split=True, added=[("<s>", "s")])
        pre_tokenizer("<s>hello hello", "Metaspace", replacement="▁", prepend_scheme=scheme, split=False, added=[("<s>", "s")])
    pre_tokenizer("hello hello", "Metaspace", replacement="▁", add_prefix_space=True)
    pre_tokenizer("a12b7", "Digits", individual_digits=True)
    pre_tokenizer("he12ll7", "Digits", individual_digits=False)
    pre_tokenizer("he.l,l!o", "Punctuation", behavior="Removed")
    pre_tokenizer("he,llo  he!", "Whitespace")
    pre_tokenizer("he,llo \u3000he!", "WhitespaceSplit")
    encodes({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                                    {"type": "Split", "pattern": {"String": "l"}, "behavior": "Isolated", "invert": False}]}}, "1hell2")
    encodes({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False},
                                                                    {"type": "Split", "pattern": {"String": "Ġ"}, "behavior": "MergedWithNext", "invert": False}]}}, "wo wo")


def added_tokens():
    encodes({}, "hello<s>he", [("<s>", "s")])
    for letters in ("l", "r", "lr"):
        encodes({}, "a  <s> \n b", [("<s>", letters)])
        encodes({}, "  <s> <s>  ", [("<s>", letters)])
    encodes({}, "cat ca ca.ca", [("ca", "w")])
    encodes({}, "hello hell he", [("hell", ""), ("hello", "")])
    encodes({"normalizer": {"type": "Lowercase"}}, "X x XX", [("X", "n")])
    encodes({"normalizer": {"type": "Lowercase"}}, "X x XX", [("X", "")])
    encodes({}, "  a", [("  ", "r"), (" ", "")])
    encodes({}, "\n\n a", [("\n", "lr")])
    for first, last in (("", "l"), ("lr", ""), ("s", "r"), ("n", ""), ("", "n"), ("ns", "s"), ("w", "s")):  # listed twice: the last one counts
        encodes({"normalizer": {"type": "Lowercase"}}, "a <S>  <s> b<S>w", [("<S>", first), ("c", ""), ("<S>", last)])
        decodes(None, ["a", "<S>", "b"], [("<S>", first), ("<S>", last)])


def models():
    encodes({"model": {"fuse_unk": True}}, "aZZZb")
    encodes({"model": {"fuse_unk": False}}, "aZZZb")
    encodes({"model": {"unk_token": None}}, "aZZZb")
    encodes({"model": {"unk_token": "<none>"}}, "hello wo")
    encodes({"model": {"unk_token": "<none>", "byte_fallback": True}}, "a\U0001f600<none>", [("<none>", "")])
    encodes({"model": {"byte_fallback": True}}, "a中国A\U0001f600")
    encodes({"model": {"byte_fallback": True, "vocab": {token: i for i, token in enumerate(t for t in VOCAB if t != "中")}}}, "a中Z中A")
    encodes({"model": {"ignore_merges": True}, "pre_tokenizer": {"type": "WhitespaceSplit"}}, "<0x41> hello")
    encodes({"model": {"merges": [["l", "l"], ["h", "e"], ["he", "ll"], ["hell", "o"]]}}, "hello")
    token = {"<unk>": {"id": "<unk>", "ids": [0], "tokens": ["<unk>"]}, "x": {"id": "x", "ids": [1, 2], "tokens": ["a", "b"]}}
    a, unk, x = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<unk>", "type_id": 0}}, {"SpecialToken": {"id": "x", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [unk, a, x], "pair": [a, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": token}
    encodes({"post_processor": template}, "ca")
    encodes({"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, template]}}, "")


def decoders():
    fallback, fuse = {"type": "ByteFallback"}, {"type": "Fuse"}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    e4, b8, ad, f0 = "<0xE4>", "<0xB8>", "<0xAD>", "<0xF0>"
    for names in ([e4, b8, ad], [e4, b8, "a"], ["a", e4, b8, ad, e4], [e4], [f0, "<0x9F>", "<0x98>", "<0x80>", "<0x41>", "b"], []):
        decodes({"type": "Sequence", "decoders": [fallback, fuse]}, names)
    decodes(byte_level, ["Ġ", "wo", "Ġ", "É", "é", "中", "a"])
    decodes(byte_level, ["a", "É", "b", "é"])
    decodes(None, ["hello", "wo", "a"])
    for scheme in ("always", "never"):
        decodes({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}, ["▁hello", "▁", "▁wo"])
        decodes({"type": "Sequence", "decoders": [fuse, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}]}, ["▁hello", "▁wo"])
    for start, stop in ((1, 0), (2, 1), (0, 2)):
        strip = {"type": "Strip", "content": "l", "start": start, "stop": stop}
        decodes(strip, ["ll", "a", "ll", "l"] if stop == 0 else ["hello", "all"][:1])
        decodes({"type": "Sequence", "decoders": [fuse, strip]}, ["l", "l", "ll", "a", "l", "b", "ll", "l", "l"])
    for pattern in ({"String": "lo"}, {"String": "▁"}, {"Regex": "l+"}):
        replace = {"type": "Replace", "pattern": pattern, "content": "_"}
        decodes(replace, ["l", "o", "▁hello", "ll"])
        decodes({"type": "Sequence", "decoders": [fuse, replace]}, ["l", "o", "▁hello", "l", "l", "x", "l"])
    for skip in (True, False):
        decodes(None, ["a", "<s>", "<t>", "b"], [("<s>", "s"), ("<t>", "")], skip)
    decodes({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, fallback, fuse,
                                              {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}, ["▁", "▁hello", e4, b8, ad, "▁wo"])


def main():
    for group in (normalizers, pre_tokenizers, added_tokens, models, decoders):
        group()
    print('{"model": %s,\n"cases": [' % json.dumps(MODEL))
    print(",\n".join(json.dumps(case) for case in cases))
    print("]}")


if __name__ == "__main__":
    main()
