#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Speed of llama.cpp or ik_llama.cpp, through their C interface as its Python packages have it. Says "ready", then waits for a line on standard input before each repeat, and
answers with tokens per second: peers.py lets engines run in turn.

usage: llama.py llama_cpp|ik_llama_cpp FILE [--prefill N | --decode SEQUENCES [--context N] | --first] [--threads N]
--first does one thing: it loads, computes one token after 16, and prints the seconds of that and the most memory of the process, in bytes.
"""
import argparse
import ctypes
import importlib
import resource
import sys
import time

import numpy

DECODE_TOKENS, PROMPT = 24, 16


class Engine:
    def __init__(self, name, path, threads, context, sequences):
        self.c = importlib.import_module(name)
        self.ik = name == 'ik_llama_cpp'
        if self.ik:
            self.c = importlib.import_module('ik_llama_cpp._ctypes_api')
            self.c._lib.llama_kv_cache_seq_rm.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]
        self.c.llama_backend_init()
        # Silent: what they log is not measured
        self.quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        (self.c._lib if self.ik else self.c.llama_cpp._lib).llama_log_set(self.quiet, None)
        model = self.c.llama_model_default_params()
        if self.ik:
            model.repack_tensors, model.use_mmap = True, False
        self.model = self.c.llama_model_load_from_file(str(path).encode(), model)
        assert self.model, f'{name} cannot read {path}'
        options = self.c.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch, options.n_seq_max = -(-context * sequences // 256) * 256, 2048, 512, sequences
        options.n_threads = options.n_threads_batch = threads
        if self.ik:
            options.flash_attn = sequences == 1  # with more it ends the process: findings/ik-llama-sequences.sh
        self.context = self.c.llama_init_from_model(self.model, options)
        assert self.context, f'{name} has no memory for a context of {options.n_ctx}'
        self.vocab = self.c.llama_vocab_n_tokens(self.c.llama_model_get_vocab(self.model))
        self.batch = self.c.llama_batch_init(2048, 0, 1)

    def decode(self, tokens, positions, sequences, wanted):
        """Of up to 2048 tokens; those that `wanted` names by index have logits."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence) in enumerate(zip(tokens, positions, sequences)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, i in wanted
            batch.seq_id[i][0] = sequence
        assert self.c.llama_decode(self.context, batch) == 0, 'llama_decode failed'

    def logits(self, index):
        return numpy.ctypeslib.as_array(self.c.llama_get_logits_ith(self.context, index), (self.vocab,))

    def forget(self, sequence, begin):
        if self.ik:
            self.c._lib.llama_kv_cache_seq_rm(self.context, sequence, begin, -1)
        else:
            self.c.llama_memory_seq_rm(self.c.llama_get_memory(self.context), sequence, begin, -1)

    def prompt(self, tokens, sequence):
        """Gives the token that follows."""
        for begin in range(0, len(tokens), 2048):
            part = tokens[begin:begin + 2048]
            last = {len(part) - 1} if begin + 2048 >= len(tokens) else set()
            self.decode(part, range(begin, begin + len(part)), [sequence] * len(part), last)
        return int(self.logits(len(part) - 1).argmax())


def prefill(engine, length, random):
    def turn():
        tokens = random.integers(engine.vocab, size=length).tolist()
        began = time.perf_counter()
        engine.prompt(tokens, 0)
        seconds = time.perf_counter() - began
        engine.forget(0, 0)
        return length / seconds
    if length <= 512:
        turn()
    return turn


def decode(engine, sequences, context, random):
    tokens = [engine.prompt(random.integers(engine.vocab, size=context).tolist(), s) for s in range(sequences)]
    position = context

    def turn():
        nonlocal position, tokens
        began = time.perf_counter()
        for _ in range(DECODE_TOKENS):
            engine.decode(tokens, [position] * sequences, range(sequences), range(sequences))
            tokens = [int(engine.logits(s).argmax()) for s in range(sequences)]
            position += 1
        return DECODE_TOKENS * sequences / (time.perf_counter() - began)
    turn()
    return turn


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('engine', choices=('llama_cpp', 'ik_llama_cpp'))
    parser.add_argument('file')
    parser.add_argument('--prefill', type=int)
    parser.add_argument('--decode', type=int)
    parser.add_argument('--context', type=int, default=PROMPT)
    parser.add_argument('--first', action='store_true')
    parser.add_argument('--threads', type=int, default=2)
    a = parser.parse_args()
    random = numpy.random.default_rng(1)
    importlib.import_module(a.engine)
    began = time.perf_counter()
    if a.first:
        engine = Engine(a.engine, a.file, a.threads, 256, 1)
        engine.prompt(random.integers(engine.vocab, size=PROMPT).tolist(), 0)
        print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    if a.prefill:
        turn = prefill(Engine(a.engine, a.file, a.threads, a.prefill, 1), a.prefill, random)
    else:
        turn = decode(Engine(a.engine, a.file, a.threads, a.context + DECODE_TOKENS * 16, a.decode), a.decode, a.context, random)
    print('ready', flush=True)
    for _ in sys.stdin:
        print(turn(), flush=True)


if __name__ == '__main__':
    main()
