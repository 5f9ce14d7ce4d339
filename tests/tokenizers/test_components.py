# SPDX-License-Identifier: Apache-2.0
"""Every component, in random company: tokenizer.json files made of random normalizers, pre-tokenizers, post-processors, decoders, models and added tokens,
against the `tokenizers` library. Cadre gives the library's ids and text, or refuses the file by a sentence that names what it refuses.

    pytest tests/tokenizers/test_components.py

CADRE_SEED repeats a run, CADRE_TOKENIZERS is how many files are made (CADRE_FIRST: from which number on); what came of them is printed."""
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import re
import subprocess

import pytest

import convert
import corpus

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
ROOT = pathlib.Path(__file__).resolve().parents[2]
CADRECTL = pathlib.Path(os.environ.get("CADRE_BUILD", ROOT / "build")) / "bin" / "cadrectl"
COUNT = int(os.environ.get("CADRE_TOKENIZERS", 300))
FIRST = int(os.environ.get("CADRE_FIRST", 0))
SEED = int(os.environ.get("CADRE_SEED", 1))
TEXTS = 60

PATTERNS = [{"String": " "}, {"String": "a"}, {"String": "aa"}, {"String": "▁"}, {"String": "é"}, {"Regex": r"\s+"}, {"Regex": r"\d"}, {"Regex": r"\p{L}+"}, {"Regex": r"[^\s\p{L}]+"},
            {"Regex": r"\S+\s?"}, {"Regex": r"(?i:'s|'t)|\p{Lu}\p{Ll}*"}, {"Regex": r"\p{N}{1,3}"}, {"Regex": r"a*"}, {"Regex": r"\s+(?!\S)|\s"}, {"Regex": r"[a-z]{2,}?"}, {"Regex": r"\P{L}"},
            {"Regex": r"\D+"}, {"Regex": r"[\p{P}\p{S}]"}, {"Regex": r"\p{M}|\u3000|\x{e9}"}, {"Regex": r"(?<=a)b|(?<!b)c"}, {"Regex": r"[^\S\n]+"}, {"Regex": r"\x{0}"}, {"String": "\0"}]
# Letters, classes and what is around them where case is ignored: some are folded to several characters, which is refused.
CASE_ATOMS = ["s", "t", "f", "i", "k", "K", "ll", "re", "'", "\u2019", "中", "ß", "\ufb01", "é", "[sdmt]", "[a-z]", "[^a-k]", r"[\s']", r"\p{L}", r"\p{Lu}", r"[\p{Lu}]", r"\P{L}", r"\d", r"\S", r"[^\S]",
              "(?:s)", "(?:f|x)", "(?=i)", "(?!t)", "(?>s)", r"\x73", r"\u0069", "[é]", r"[\u0100-\u017f]", ".", "s+", "t?", "f{2}", "i*", "|"]
BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
UNSUPPORTED = {"normalizer": [{"type": "StripAccents"}, {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}, {"type": "Nmt"}],
               "pre_tokenizer": [{"type": "BertPreTokenizer"}, {"type": "UnicodeScripts"}, {"type": "CharDelimiterSplit", "delimiter": " "}, {"type": "FixedLength", "length": 3}],
               "post_processor": [{"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": True, "add_prefix_space": True}, {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}],
               "decoder": [{"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True}]}


def has_unsupported(made):
    return any(json.dumps(part["type"]) in json.dumps(made[kind]) for kind, parts in UNSUPPORTED.items() for part in parts)


# What may be refused: the sentence of Cadre, and when the file has what it is about.
REFUSALS = [
    (r"this (normalizer|pre-tokenizer|post-processor|decoder) is not supported", has_unsupported),
    (r"ignores case at", lambda made: "(?i:" in json.dumps(made)),
    (r"can match nothing at all", lambda made: "Replace" in json.dumps(made["normalizer"])),
    (r'"prepend" is an empty string', lambda made: '"prepend": ""' in json.dumps(made["normalizer"])),
    (r"is empty when normalized", lambda made: any(token["normalized"] for token in made["added_tokens"])),
    (r"is set, which Cadre does not support", lambda made: made["model"]["dropout"] or made["model"]["continuing_subword_prefix"] or made["model"]["end_of_word_suffix"]),
    (r"comes after one that joins them into one string", lambda made: made["decoder"]),
]


def sequence(rng, key, make, most=3):
    parts = [make(rng) for _ in range(rng.randrange(most + 1))]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 and rng.random() < 0.5 else {"type": "Sequence", key: parts}


def pattern(rng):
    if rng.random() < 0.85:
        return rng.choice(PATTERNS)
    return {"Regex": "(?i:" + "".join(rng.choice(CASE_ATOMS) for _ in range(rng.randrange(1, 4))) + ")" + rng.choice(["", "", "+", "|a", "t"])}


def normalizer(rng):
    kind = rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Strip", "ByteLevel"])
    if kind == "ByteLevel" and rng.random() < 0.6:
        kind = "NFKC"
    if rng.random() < 0.01:
        return rng.choice(UNSUPPORTED["normalizer"])
    extra = {"Prepend": {"prepend": rng.choice(["▁", "x", "a ", " ", "\u0301", ""] if rng.random() < 0.2 else ["▁", "x", "a "])},
             "Replace": {"pattern": pattern(rng), "content": rng.choice(["▁", "", "a", "bb", " ", "\0"])},
             "Strip": {"strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.5}}
    return {"type": kind} | extra.get(kind, {})


def pre_tokenizer(rng):
    kind = rng.choice(["Split", "Split", "ByteLevel", "Metaspace", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"])
    if rng.random() < 0.01:
        return rng.choice(UNSUPPORTED["pre_tokenizer"])
    extra = {"Split": {"pattern": pattern(rng), "behavior": rng.choice(BEHAVIORS), "invert": rng.random() < 0.3},
             "ByteLevel": {"add_prefix_space": rng.random() < 0.5, "trim_offsets": True, "use_regex": rng.random() < 0.5},
             "Metaspace": {"replacement": rng.choice("▁▁▁_a"), "prepend_scheme": rng.choice(["always", "first", "never"]), "split": rng.random() < 0.5},
             "Digits": {"individual_digits": rng.random() < 0.5}, "Punctuation": {"behavior": rng.choice(BEHAVIORS)}}
    return {"type": kind} | extra.get(kind, {})


def post_processor(rng):
    if rng.random() < 0.01:
        return rng.choice(UNSUPPORTED["post_processor"])
    byte_level = {"type": "ByteLevel", "add_prefix_space": rng.random() < 0.5, "trim_offsets": rng.random() < 0.5, "use_regex": True}
    made = convert.template("<unk>", 0)
    if rng.random() < 0.3:
        made["single"] = made["single"] + [{"SpecialToken": {"id": "x", "type_id": 0}}]
        made["special_tokens"]["x"] = {"id": "x", "ids": [1, 2], "tokens": ["a", "b"]}
    return rng.choice([None, made, byte_level, {"type": "Sequence", "processors": [byte_level, made]}, {"type": "Sequence", "processors": []}])


def decoder(rng):
    """A chain; now and then one in which what works on tokens stands behind what joins them."""
    if rng.random() < 0.01:
        return rng.choice(UNSUPPORTED["decoder"])
    tokenwise = [{"type": "Replace", "pattern": pattern(rng), "content": rng.choice([" ", "", "xy", "\0"])}, {"type": "ByteFallback"},
                 {"type": "Strip", "content": rng.choice(" ▁a"), "start": rng.randrange(3), "stop": 0 if rng.random() < 0.9 else rng.randrange(3)},
                 {"type": "Metaspace", "replacement": rng.choice("▁▁_"), "prepend_scheme": rng.choice(["always", "first", "never"]), "split": True}]
    parts = [part for part in rng.sample(tokenwise, len(tokenwise)) if rng.random() < 0.5]
    parts += [{"type": rng.choice(["Fuse", "ByteLevel"]), "add_prefix_space": True, "trim_offsets": True, "use_regex": True}] if rng.random() < 0.7 else []
    if parts and parts[-1]["type"] in ("Fuse", "ByteLevel"):
        parts += [part for part in rng.sample(tokenwise, len(tokenwise)) if (part["type"] != "ByteFallback" or rng.random() < 0.05) and rng.random() < 0.4]
    return {"type": "Sequence", "decoders": parts} if parts and rng.random() < 0.9 else None


def bpe(rng):
    characters = list("abcdefghijklmnopqrstuvwxyz .,'0123456789▁_ABÉé中文\u0301\u0316") + list(convert.byte_characters().values()) + ["\0", "a\0b"] * (rng.random() < 0.2)
    if rng.random() < 0.2:
        characters = rng.sample(characters, len(characters) * 3 // 4)
    byte_fallback = rng.random() < 0.5
    tokens = ["<unk>"] * (rng.random() < 0.9) + ([f"<0x{b:02X}>" for b in range(256) if rng.random() < 0.999] if byte_fallback else []) + characters
    merges = []
    for _ in range(rng.randrange(200)):
        pair = [rng.choice(tokens[-120:] if rng.random() < 0.8 else tokens[1:]) for _ in range(2)]
        if pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return {"type": "BPE", "dropout": 0.1 if rng.random() < 0.005 else rng.choice([None, 0.0]), "unk_token": rng.choice(["<unk>", None, "<unk>", None, "<none>"]),
            "continuing_subword_prefix": rng.choice([None, None, ""]) if merges or rng.random() < 0.9 else "##", "end_of_word_suffix": rng.choice([None, None, ""]) if rng.random() < 0.995 else "</w>",
            "fuse_unk": rng.random() < 0.5, "byte_fallback": byte_fallback, "ignore_merges": rng.random() < 0.3, "vocab": vocab,
            "merges": merges if rng.random() < 0.5 or any(" " in t or not t for pair in merges for t in pair) else [" ".join(pair) for pair in merges]}


def added_tokens(rng, vocab):
    contents = rng.sample(["<s>", "<unk>", "<none>", "<sep>", "  ", "   ", "the", "a", "ab", "<|x|>", "<|x|>y", "É", "é", "中", "½", " of", "\n", "\0", "x\0", ""], rng.randrange(9))
    contents += rng.sample(contents, min(len(contents), 2)) if rng.random() < 0.3 else []  # listed twice, and otherwise
    next_id, tokens, ids = len(vocab), [], {}
    for content in contents:
        token_id = vocab.get(content, ids.get(content))
        if token_id is None:
            token_id, next_id = next_id, next_id + (content != "")
        ids[content] = token_id
        tokens.append({"id": token_id, "content": content} | {key: rng.random() < 0.3 for key in ("single_word", "lstrip", "rstrip", "normalized", "special")})
    return tokens


def make(rng):
    model = bpe(rng)
    return {"version": "1.0", "truncation": None if rng.random() < 0.9 else {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": None if rng.random() < 0.9 else {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
            "added_tokens": added_tokens(rng, model["vocab"]), "normalizer": sequence(rng, "normalizers", normalizer), "pre_tokenizer": sequence(rng, "pretokenizers", pre_tokenizer),
            "post_processor": post_processor(rng), "decoder": decoder(rng), "model": model}


def library_for(made):
    """The library's tokenizer, or why there is none: it refuses the file, would loop for ever (an added token is empty when normalized), or answers by chance
    (two added tokens are equal when normalized)."""
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(made))
        normalize = library.normalizer.normalize_str if library.normalizer else str
        last = {token["content"]: token for token in made["added_tokens"] if token["content"]}
        forms = [normalize(token["content"]) for token in last.values() if token["normalized"]]
    except BaseException:   # also a panic of its Rust code
        return None, "the library refuses it"
    library.no_truncation()
    library.no_padding()
    if not all(forms):
        return None, "an added token is empty when normalized"
    return (library, "") if len(set(forms)) == len(forms) else (None, "added tokens are equal when normalized")


POOL = list(corpus.texts(3000))
LEADING = ["\u0344\u0316a", "\u0f73\u0f71x", "\u0301\u0316\u0327", "\u1e9b\u0323 a", "\u0344\u0316\u0301 a b", "a\u0301\u0316 b", "\u212b a", " \u0301a", "\u0130 x", "7 6", "\x00a\x00"]


def texts_for(rng, made):
    specials = [token["content"] for token in made["added_tokens"] if token["content"]] or ["<unk>"]
    texts = rng.sample(POOL, TEXTS - 30) + rng.sample(LEADING, 6)
    texts += [rng.choice(["", " ", "a", "x ", "\u0301"]).join(corpus.piece(rng, specials) if rng.random() < 0.3 else rng.choice(specials + ["a", " ", "s", "É ", "7"])
                                                              for _ in range(rng.randrange(1, 6))) for _ in range(18)]
    return texts + ["".join(rng.choice("abst fiA'7\u0301\u0316\u0344▁ éſKßﬁ") for _ in range(rng.randrange(1, 12))) for _ in range(6)]


def what_library_says(library, texts):
    """(text, ids, decoded); ids None: the text has an unknown character, and there is no unknown token."""
    said = []
    for text in texts:
        try:
            encoding = library.encode(text)
            said.append((text, encoding.ids, library.decode(encoding.ids)))
        except Exception as error:
            if "out of the vocabulary" in str(error) or "Unk token" in str(error):
                said.append((text, None, None))
        except BaseException:   # also a panic of its Rust code: of this text nothing is known
            continue
    return said


def tokenize(path, texts):
    source = path.with_suffix(".jsonl")
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return subprocess.run([CADRECTL, "tokenize", "--tokenizer", path, "--input", source, "--output", "-"], capture_output=True, text=True, timeout=120)


def compare(known, done):
    """What is wrong with the lines of cadrectl."""
    lines = done.stdout.split("\n")[:-1]
    if len(lines) != len(known):
        return f"{len(lines)} lines of {len(known)}"
    for (text, ids, decoded), line in zip(known, lines):
        got = json.loads(line)
        if got["ids"] != ids or got["decoded"] != decoded:
            return f"{text!a}: library {ids} {decoded!a}, Cadre {got['ids']} {got['decoded']!a}"
    return ""


def check(number, folder):
    """What came of one file: a word for the counts, and what is wrong."""
    rng = random.Random(f"{SEED}.{number}")
    made = make(rng)
    texts = texts_for(rng, made)
    path = folder / f"{number}.json"
    path.write_text(json.dumps(made))
    library, why = library_for(made)
    said = what_library_says(library, texts) if library else []
    known = [entry for entry in said if entry[1] is not None]
    done = tokenize(path, [text for text, _, _ in known] if library else texts[:1])
    if library is None:
        return why, "" if done.returncode in (0, 1) else f"exit {done.returncode}"
    if done.returncode != 0:
        for sentence, has in REFUSALS:
            if re.search(sentence, done.stderr):
                return f"refused: {sentence}", "" if has(made) else f"refused without need: {done.stderr}"
        return "refused", f"refused for a reason that the test does not know: {done.stderr}"
    if problem := compare(known, done):
        return "different", problem
    unknown = [text for text, ids, _ in said if ids is None][:2]
    for text in unknown:
        done = tokenize(path, [text])
        if done.returncode == 0 or "is not in the vocabulary" not in done.stderr:
            return "different", f"{text!a}: the library has no unknown token for it, Cadre says {done.stdout or done.stderr}"
    return "equal, and texts without an unknown token are refused" if unknown else "equal", ""


def test_random_tokenizers(tmp_path, capsys):
    counts, wrong = collections.Counter(), []
    numbers = range(FIRST, FIRST + COUNT)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for number, (word, problem) in zip(numbers, pool.map(lambda n: check(n, tmp_path), numbers)):
            counts[word] += 1
            if problem:
                wrong.append(f"seed {SEED}, number {number}: {problem}")
                continue
            for name in (f"{number}.json", f"{number}.jsonl"):
                (tmp_path / name).unlink(missing_ok=True)
    with capsys.disabled():
        print(f"\nseed {SEED}, {COUNT} files from number {FIRST} on, {TEXTS} texts each:")
        for word, count in counts.most_common():
            print(f"{count:7} {word}")
    assert not wrong, f"{len(wrong)} of {COUNT} files:\n" + "\n".join(wrong[:20])
    assert counts["equal"] >= COUNT // 3, "too few files are compared"
