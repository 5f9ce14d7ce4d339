# SPDX-License-Identifier: Apache-2.0
"""Prompts of ten domains (text that models/demo was not trained on), and the routing that comes back with their answers."""
import pathlib
import sys
import tempfile

from cluster import BIN, ROOT
from world import MODEL

sys.path.append(str(ROOT / 'tests' / 'tools'))
import record_routing  # noqa: E402

HELDOUT = MODEL / 'heldout'
# Neighbours have something in common: a mixture that drifts from one to the next drifts slowly.
DOMAINS = ('en', 'man', 'py', 'go', 'c', 'sql', 'ja', 'ru', 'fr', 'de')


def prompts(tokens):
    """{domain: its prompts}, each of so many tokens, less at the ends of documents; those under half of it are left out."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: record_routing.windows(BIN / 'cadrectl', MODEL, [HELDOUT / f'{name}.txt'], tokens, pathlib.Path(folder)) for name in DOMAINS}
    return {name: [piece for piece in pieces if len(piece) >= tokens // 2] for name, pieces in found.items()}


def usage(requests):
    """(nodes per token and MoE layer, bytes both ways, tokens) of requests that have ended, as their answers say."""
    ended = [request.messages[-1].usage for request in requests if request.messages and request.messages[-1].digest]
    rows = sum(u.routed_rows for u in ended)
    return (sum(u.nodes_touched for u in ended) / rows, sum(u.bytes_sent + u.bytes_received for u in ended) / rows, sum(u.prompt_tokens + u.generated_tokens for u in ended))
