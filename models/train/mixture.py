# SPDX-License-Identifier: Apache-2.0
"""How much of each domain is in the training mixture, and which window of which text is the n-th sequence of a run."""
import functools

import numpy

SHARES = {'en': 0.34, 'man': 0.08, 'de': 0.08, 'fr': 0.08, 'ru': 0.08, 'ja': 0.06, 'c': 0.08, 'py': 0.08, 'go': 0.06, 'sql': 0.06}
BLOCK = 1000


class Mixture:
    """Sequence n of a run depends on the seed and on n alone, so that a run can stop and go on anywhere, with any number of workers. Within a domain
    windows come in random order, none twice before all have come once; the next time round they begin elsewhere."""

    def __init__(self, work, length, seed):
        self.tokens = [numpy.load(work / 'tokens' / f'{domain}.npy', mmap_mode='r') for domain in SHARES]
        self.length, self.seed = length, seed
        counts = [round(share * BLOCK) for share in SHARES.values()]
        assert sum(counts) == BLOCK
        self.pattern = numpy.random.default_rng(seed).permutation(numpy.repeat(numpy.arange(len(counts)), counts))
        self.rank = numpy.zeros(BLOCK, dtype=int)      # how many of the same domain stand before it in the pattern
        for domain in range(len(counts)):
            self.rank[self.pattern == domain] = numpy.arange(counts[domain])
        self.counts = counts

    @functools.lru_cache(maxsize=64)
    def order(self, domain, turn):
        rng = numpy.random.default_rng((self.seed, domain, turn))
        begin = int(rng.integers(self.length))
        return begin, rng.permutation((len(self.tokens[domain]) - 1 - begin) // self.length)

    def windows(self, domain):
        return (len(self.tokens[domain]) - 2 * self.length) // self.length

    def sequence(self, n):
        """(domain, length + 1 token ids)"""
        block, place = divmod(n, BLOCK)
        domain = int(self.pattern[place])
        turn, index = divmod(block * self.counts[domain] + int(self.rank[place]), self.windows(domain))
        begin, order = self.order(domain, turn)
        at = begin + int(order[index]) * self.length
        return domain, self.tokens[domain][at:at + self.length + 1].astype(numpy.int64)
