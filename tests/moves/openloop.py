# SPDX-License-Identifier: Apache-2.0
"""Open-loop load: a request begins at its time, whatever has become of those before. So a cluster that falls behind is seen to.

Times between requests are equal, so that two windows of the same length have the same load.
"""
import concurrent.futures
import sys
import threading
import time

from load import DEADLINE_S, Asker, Client, why_failed
from stillness import both

AT_ONCE_MAX = 256
SWITCH_S = 0.0005   # how long a thread of this process may let another one wait, which is one that looks at the clock


class Request(Asker):
    """One request, and when which tokens of its answer came. `digest`: what it must have; None: any."""

    def __init__(self, index, ask, clients, resumes):
        super().__init__(ask['prompt'], ask['tokens'], clients, index, resumes, **ask.get('fields', {}))
        self.expected, self.label = ask.get('digest'), ask.get('label')
        self.began = self.ended = 0.0
        self.came_at = []      # a time for each message
        self.messages = []     # kept where they are wanted
        self.keep = ask.get('keep', False)
        self.why, self.unequal = None, False

    def run(self):
        self.began = time.monotonic()
        try:
            digest = self.answer()
            self.unequal = self.expected not in (None, digest)
        except Exception as error:
            self.why = why_failed(error)
        self.ended = time.monotonic()

    def came(self, message):
        self.came_at.append(time.monotonic())
        if self.keep:
            self.messages.append(message)

    def gaps(self, since, until, still):
        """Times between two messages that ended in the window."""
        return [b - a for a, b in zip(self.came_at, self.came_at[1:]) if since <= b < until and not both([(a, b)], still)]

    def first(self, since, until, still):
        """How long the first one took, if it came in the window: a list of none or one."""
        return [at - self.began for at in self.came_at[:1] if since <= at < until and not both([(self.began, at)], still)]


class OpenLoop(threading.Thread):
    """`ask(k)` is the k-th request, as a dict: prompt, tokens, and what else Request takes. Use as a context manager."""

    def __init__(self, world, ask, period_s):
        super().__init__(daemon=True)
        self.world, self.ask, self.period = world, ask, period_s
        self.clients = [Client(router) for router in world.routers]
        self.pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE_MAX)
        self.stopping, self.requests, self.futures, self.late = threading.Event(), [], [], 0.0

    def run(self):
        began = time.monotonic()
        while not self.stopping.wait(max(0.0, began + len(self.requests) * self.period - time.monotonic())):
            self.late = max(self.late, time.monotonic() - began - len(self.requests) * self.period)
            request = Request(len(self.requests), self.ask(len(self.requests)), self.clients, self.world.resumes)
            self.requests.append(request)
            self.futures.append(self.pool.submit(request.run))

    def __enter__(self):
        self.interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        self.start()
        return self

    def __exit__(self, kind, *_):
        """Every request comes to its end first: its digest counts. After an exception nothing counts any more."""
        self.stopping.set()
        self.join()
        if kind:
            self.close()
        concurrent.futures.wait(self.futures, 2 * DEADLINE_S)
        self.close()
        sys.setswitchinterval(self.interval)

    def close(self):
        for client in self.clients:
            client.close()

    def window(self, since, until, without=(), still=()):
        """What users saw in it. `without`: indices of requests that do not count. `still`: when the machine stood still; no wait counts that this was part of."""
        still = both([(since - 2 * DEADLINE_S, until)], still)
        counted = [request for i, request in enumerate(self.requests) if i not in without]
        return Window([gap for r in counted for gap in r.gaps(since, until, still)], [wait for r in counted for wait in r.first(since, until, still)])

    def running_at(self, router):
        """Requests that wait for an answer of this router: their indices."""
        return {i for i, request in enumerate(self.requests) if request.at == router and not request.ended}

    @property
    def failed(self):
        return [request.why for request in self.requests if request.why]

    @property
    def unequal(self):
        return sum(request.unequal for request in self.requests)


class Window:
    """Figures of the gaps between two messages and of the waits for the first one, in seconds."""

    def __init__(self, gaps, firsts):
        ordered = sorted(gaps)
        self.first = max(firsts, default=0.0)
        self.count = len(ordered)
        self.p50, self.p99, self.longest = (ordered[int(share * (len(ordered) - 1))] if ordered else 0.0 for share in (0.5, 0.99, 1.0))

    def as_dict(self):
        return {'gaps': self.count, 'p50_s': self.p50, 'p99_s': self.p99, 'longest_s': self.longest, 'first_s': self.first}
