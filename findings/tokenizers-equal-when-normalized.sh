#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tokenizers 0.23.3: of two added tokens that are equal when normalized, a text gets the one or the other, by process.
#
# "<S>" and "<s>" are added tokens of an uncased tokenizer, both "normalized". Seen: the same file and the same text, "<s>", give id 3
# in some processes and id 4 in others; within a process it stays. So ids that were stored by one process are not those of the next,
# and Cadre, which takes the first and says so in its log, can be equal to no more than one of them.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
cat >"$WORK/ids.py" <<'PYTHON'
import json

import tokenizers

token = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': True, 'special': False}
spec = {'version': '1.0', 'truncation': None, 'padding': None, 'added_tokens': [token | {'id': 3, 'content': '<S>'}, token | {'id': 4, 'content': '<s>'}],
        'normalizer': {'type': 'Lowercase'}, 'pre_tokenizer': None, 'post_processor': None, 'decoder': None,
        'model': {'type': 'BPE', 'unk_token': None, 'vocab': {'a': 0, 'b': 1, 'c': 2}, 'merges': []}}
library = tokenizers.Tokenizer.from_str(json.dumps(spec))
ids = [library.encode('<s>').ids for _ in range(100)]
assert all(i == ids[0] for i in ids), 'not even the same within a process'
print('<s> is', ids[0])
PYTHON
"$WORK/venv/bin/python" -c 'import tokenizers; print("tokenizers", tokenizers.__version__)'
for _ in $(seq 40); do
	"$WORK/venv/bin/python" "$WORK/ids.py"
done | sort | uniq -c | tee "$WORK/seen"
grep -q 'is \[3\]' "$WORK/seen" && grep -q 'is \[4\]' "$WORK/seen"
