#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# transformers 5.24.0: AutoTokenizer gives the tokens of "added_tokens_decoder" other ids than the file says, without a word.
#
# tokenizer_config.json names tokens by their ids. Those that tokenizer.json lacks are added behind its own, in the order of the
# ids that are named, whatever these are. Seen: {"20": "<x>", "30": "<y>"} beside a vocabulary of 5 become 5 and 6, and no warning
# is logged. A model whose rows 20 and 30 were trained for them then gets rows 5 and 6. Cadre takes such tokens as AutoTokenizer
# does where the ids agree, and else refuses the files by a sentence that names both.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
mkdir "$WORK/model"
cat >"$WORK/model/tokenizer.json" <<'JSON'
{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
 "post_processor": null, "decoder": null, "model": {"type": "BPE", "unk_token": null, "vocab": {"a": 0, "<": 1, ">": 2, "x": 3, "y": 4}, "merges": []}}
JSON
cat >"$WORK/model/tokenizer_config.json" <<'JSON'
{"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"20": {"content": "<x>", "special": true}, "30": {"content": "<y>", "special": true}}}
JSON
cat >"$WORK/ids.py" <<'PYTHON'
import sys

import transformers

print('transformers', transformers.__version__)
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
print('a<x><y> is', tokenizer('a<x><y>', add_special_tokens=False)['input_ids'], 'with', {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()})
PYTHON
HF_HUB_OFFLINE=1 "$WORK/venv/bin/python" "$WORK/ids.py" "$WORK/model" >"$WORK/seen" 2>"$WORK/log"
cat "$WORK/seen"
echo "of these tokens its log says: $(grep -ciE '<x>|<y>|added_tokens' "$WORK/log") lines"
grep -q 'a<x><y> is \[0, 5, 6\]' "$WORK/seen" && ! grep -qiE '<x>|<y>|added_tokens' "$WORK/log"
