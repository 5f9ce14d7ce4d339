#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ik_llama.cpp (ik-llama-cpp-python 0.1.5): with flash attention, which is the default, the second sequence of a context ends the process.
#
# Keys of all sequences lie in one cache. A block of 32 keys in which a query has none of its own leaves a sum of 0, and
# iqk_fa_templates.h asserts S > 0. Seen: two prompts of 16 tokens, whether in one batch or one after the other: "GGML_ASSERT(S >
# 0) failed" and abort(), from a model with finite logits. Without flash attention both are answered. (Heads of 64 and 128;
# those of 32 take another way.) So bench/peers measures several sequences without it.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install -q --disable-pip-version-check ik-llama-cpp-python==0.1.5 gguf==0.19.0
cat >"$WORK/two.py" <<'PYTHON'
import ctypes
import sys

import gguf
import ik_llama_cpp._ctypes_api as c
import numpy

HIDDEN, HEADS, HEAD, FFN, VOCAB = 128, 2, 64, 256, 64
path, flash = sys.argv[1], sys.argv[2] == 'flash'
random = numpy.random.default_rng(1)
w = gguf.GGUFWriter(path, 'llama')
w.add_context_length(512), w.add_embedding_length(HIDDEN), w.add_block_count(1), w.add_feed_forward_length(FFN)
w.add_head_count(HEADS), w.add_head_count_kv(HEADS), w.add_layer_norm_rms_eps(1e-6), w.add_rope_dimension_count(HEAD)
w.add_vocab_size(VOCAB), w.add_tokenizer_model('no_vocab')
for name, shape in {'token_embd': (VOCAB, HIDDEN), 'output': (VOCAB, HIDDEN), 'output_norm': (HIDDEN,), 'blk.0.attn_norm': (HIDDEN,), 'blk.0.ffn_norm': (HIDDEN,),
                    'blk.0.attn_q': (HIDDEN, HIDDEN), 'blk.0.attn_k': (HIDDEN, HIDDEN), 'blk.0.attn_v': (HIDDEN, HIDDEN), 'blk.0.attn_output': (HIDDEN, HIDDEN),
                    'blk.0.ffn_gate': (FFN, HIDDEN), 'blk.0.ffn_up': (FFN, HIDDEN), 'blk.0.ffn_down': (HIDDEN, FFN)}.items():
    w.add_tensor(name + '.weight', (random.standard_normal(shape) / HIDDEN ** 0.5).astype('f4') if len(shape) > 1 else numpy.ones(shape, 'f4'))
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()

model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
options = c.llama_context_default_params()
options.n_ctx, options.n_seq_max, options.flash_attn, options.n_threads, options.n_threads_batch = 512, 2, flash, 1, 1
context = c.llama_init_from_model(model, options)
batch = c.llama_batch_init(16, 0, 1)
for sequence in range(2):
    batch.n_tokens = 16
    for i in range(16):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = 3 * i + sequence, i, 1, i == 15
        batch.seq_id[i][0] = sequence
    assert c.llama_decode(context, batch) == 0
    logits = numpy.ctypeslib.as_array(c.llama_get_logits_ith(context, 15), (VOCAB,))
    print(f'sequence {sequence}: logits finite: {numpy.isfinite(logits).all()}', flush=True)
PYTHON
two() {
	"$WORK/venv/bin/python" "$WORK/two.py" "$WORK/model.gguf" "$1" >"$WORK/out" 2>"$WORK/errors" || echo "the process ended with $?"
	grep '^sequence' "$WORK/out"
	grep -m 1 ASSERT "$WORK/errors" || true
}
echo "without flash attention:"
two plain | tee "$WORK/plain"
echo "with it:"
two flash | tee "$WORK/flash"
[ "$(grep -c 'finite: True' "$WORK/plain")" = 2 ] && grep -q 'sequence 0: logits finite: True' "$WORK/flash" && grep -q 'S > 0' "$WORK/flash"
