#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long clients wait between two tokens while prompts of others arrive, and what the pace of prompts costs, through gRPC, in one process with everything in it.

usage: bench/gaps.py --model DIR [--streams 16] [--tokens 200] [--prompt 512] [--every 4] [--rounds 3] [--csv FILE]
So many streams generate tokens; at random times, `every` seconds apart on average, the same in every form, a prompt arrives that wants one token. Forms are options of the
router: prompts as large as fit, chunks of fixed sizes, and the default. p50 and p99 are over the gaps between tokens of the streams; throughput counts the rows of prompts and
the tokens that were computed while the streams ran. Medians over the rounds, in which forms take turns. Every digest must be the same in every form, or this fails.
"""
import argparse
import pathlib
import random
import statistics
import threading
import time

import serve

FORMS = {'as fit': ['--step-stretch', '0'], 'chunk 128': ['--step-stretch', '0', '--chunk', '128'], 'chunk 32': ['--step-stretch', '0', '--chunk', '32'], 'default': []}


class Stream(threading.Thread):
    """One answer, and when its tokens came."""

    def __init__(self, router, rng, prompt, tokens):
        super().__init__()
        self.call = router.stream(tokens=[rng.randrange(1000) for _ in range(prompt)], max_tokens=tokens, ignore_eos=True, timeout=600)
        self.first, self.times, self.digest = threading.Event(), [], None
        self.start()

    def run(self):
        for message in self.call:
            self.times += [time.monotonic()] * len(message.token_ids)
            self.first.set()
            self.digest = message.digest or self.digest


def computed(router):
    return sum(serve.clusters.metric(router.http, f'cadre_router_tokens_{kind}_total') for kind in ('prefilled', 'generated'))


def measure(router, a, seed):
    """(p50 and p99 of the gaps in seconds, rows per second, the longest gap), and digests."""
    rng = random.Random(seed)
    streams = [Stream(router, rng, 16, a.tokens) for _ in range(a.streams)]
    for stream in streams:
        stream.first.wait()
    began, before, prompts = time.monotonic(), computed(router), []
    next_prompt = began + rng.expovariate(1 / a.every)
    while any(stream.is_alive() for stream in streams):
        if time.monotonic() >= next_prompt:
            prompts.append(Stream(router, rng, a.prompt, 1))
            next_prompt += rng.expovariate(1 / a.every)
        time.sleep(0.002)
    rate = (computed(router) - before) / (time.monotonic() - began)
    for prompt in prompts:
        prompt.join()
    gaps = sorted(after - earlier for stream in streams for earlier, after in zip(stream.times, stream.times[1:]))
    return (statistics.median(gaps), gaps[len(gaps) * 99 // 100], rate, gaps[-1]), [stream.digest for stream in streams]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', type=pathlib.Path, required=True)
    parser.add_argument('--streams', type=int, default=16)
    parser.add_argument('--tokens', type=int, default=200)
    parser.add_argument('--prompt', type=int, default=512)
    parser.add_argument('--every', type=float, default=4)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--csv', type=pathlib.Path)
    a = parser.parse_args()
    samples, digests = {form: [] for form in FORMS}, {}
    for round_number in range(a.rounds):
        for form, options in FORMS.items():
            with serve.Embedded(a.model, a.threads, options) as c:
                sample, got = measure(c.routers[0], a, round_number)
            samples[form].append(sample)
            assert digests.setdefault(round_number, got) == got, f'{form}: other digests than before'
    lines = []
    for form in FORMS:
        p50, p99, rate, most = (statistics.median(values) for values in zip(*samples[form]))
        lines.append((form, p50 * 1e3, p99 * 1e3, p99 / p50, most * 1e3, rate))
        print(f'{form:10} p50 {p50 * 1e3:7.1f} ms   p99 {p99 * 1e3:7.1f} ms ({p99 / p50:.2f} x)   most {most * 1e3:7.1f} ms   {rate:8.1f} rows/s', flush=True)
    if a.csv:
        a.csv.write_text('form,p50_ms,p99_ms,ratio,most_ms,rows_per_s\n' + ''.join(f'{form},' + ','.join(f'{v:.2f}' for v in values) + '\n' for form, *values in lines))


main()
