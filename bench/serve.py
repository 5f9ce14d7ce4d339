#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokens per second through gRPC: one process with everything in it, then a router with 1 and with 3 expert nodes, on this machine, same run, in turn.

usage: bench/serve.py --model DIR [--experts 0 1 3] [--rounds 3] [--tokens 32] [--prompt 512] [--csv FILE]
0 expert nodes is the embedded form (cadre-router --local-experts). Decode: so many streams at once, after their prompts. Prefill: the time to the first token of
one long prompt. Medians over the rounds, with the lowest and the highest. Every digest must be the same in every form, or this fails.
"""
import argparse
import pathlib
import random
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tests' / 'cluster'))
import cluster as clusters  # noqa: E402


class Embedded:
    """A router with its experts inside, as a cluster of nobody else."""

    def __init__(self, model, threads, options=()):
        grpc, http = (f'127.0.0.1:{clusters.free_port()}' for _ in range(2))
        self.process = clusters.Process('router', [clusters.BIN / 'cadre-router', '--local-experts', '--model', model, '--grpc', grpc, '--http', http, '--threads', threads, '--streams-per-client', 0, *options],
                                        pathlib.Path(tempfile.mkdtemp(prefix='cadre-bench-')))
        self.routers = [clusters.Router(self.process, grpc, http)]

    def __enter__(self):
        end = time.monotonic() + 300
        while True:
            try:
                clusters.http(self.routers[0].http, '/readyz')
                return self
            except OSError:
                assert self.process.alive() and time.monotonic() < end, self.process.log.read_text()
                time.sleep(0.05)

    def __exit__(self, *_):
        self.routers[0].close()
        self.process.stop()


def decode(router, streams, tokens, rng):
    """Tokens per second from the moment that all streams have their first token."""
    calls = [iter(router.stream(tokens=[rng.randrange(1000) for _ in range(16)], max_tokens=tokens + 1, ignore_eos=True, timeout=600)) for _ in range(streams)]
    for call in calls:
        while not next(call).token_ids:
            pass
    began, count, digests = time.monotonic(), 0, []
    for call in calls:
        for message in call:
            count += len(message.token_ids)
            if message.digest:
                digests.append(message.digest)
    return count / (time.monotonic() - began), digests


def prefill(router, prompt, rng):
    result = router.generate(tokens=[rng.randrange(1000) for _ in range(prompt)], max_tokens=1, ignore_eos=True, timeout=600)
    return prompt / (result.usage.first_token_us * 1e-6), [result.digest]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', type=pathlib.Path, required=True)
    parser.add_argument('--experts', type=int, nargs='+', default=[0, 1, 3])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--tokens', type=int, default=32)
    parser.add_argument('--prompt', type=int, default=512)
    parser.add_argument('--streams', type=int, nargs='+', default=[1, 16])
    parser.add_argument('--threads', type=int, default=2, help='compute threads of the router, and of all expert nodes together (at least one each)')
    parser.add_argument('--csv', type=pathlib.Path)
    a = parser.parse_args()
    lines, digests = [], {}
    for experts in a.experts:
        form = f'router + {experts}' if experts else 'embedded'
        with (clusters.Cluster(a.model, experts=experts, router_threads=a.threads, threads=max(1, a.threads // experts)) if experts else Embedded(a.model, a.threads)) as c:
            router = c.routers[0]
            measures = [(f'decode x{n}', lambda rng, n=n: decode(router, n, a.tokens, rng)) for n in a.streams] + [(f'prefill {a.prompt}', lambda rng: prefill(router, a.prompt, rng))]
            for name, measure in measures:
                measure(random.Random(0))
                rates = []
                for round_number in range(a.rounds):
                    rate, got = measure(random.Random(round_number + 1))
                    rates.append(rate)
                    assert digests.setdefault((name, round_number), got) == got, f'{form}, {name}: other digests than before'
                lines.append((form, name, statistics.median(rates), min(rates), max(rates)))
                print(f'{form:12} {name:12} {statistics.median(rates):8.1f} tokens/s ({min(rates):.1f} to {max(rates):.1f})', flush=True)
    if a.csv:
        a.csv.write_text('form,measure,tokens_per_s,low,high\n' + ''.join(f'{f},{n},{m:.2f},{lo:.2f},{hi:.2f}\n' for f, n, m, lo, hi in lines))


if __name__ == '__main__':
    main()
