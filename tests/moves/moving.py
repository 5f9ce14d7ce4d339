# SPDX-License-Identifier: Apache-2.0
"""Clusters whose experts move: who holds what, plans as files, commands, and when everything has come to rest."""
import contextlib
import json
import os
import subprocess
import time

import reflect
from cluster import BIN, Process, metric
from world import World

PACE_S = 10.0
REST_S = 0.5       # nothing changes for so long: it has come to rest
SETTLE_S = 120
POLL_S = 0.5       # every process answers then, and this one must understand it: milliseconds that tokens wait for
COMMAND_S = 300


def elsewhere():
    """Operators sit at other machines: if the cluster has real-time priority, what they type has not."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def ordinary():
    """What is started here is started without real-time priority."""
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    elsewhere()
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, param)


def give_priority(process, policy, param):
    """To its threads that have another one, but for those in the background."""
    for task in os.listdir(f'/proc/{process.popen.pid}/task'):
        with contextlib.suppress(ProcessLookupError):   # it has ended
            if os.sched_getscheduler(int(task)) not in (policy, os.SCHED_IDLE):
                os.sched_setscheduler(int(task), policy, param)


class MovingWorld(World):
    """`share`: of all experts, what the row moves. It takes pace_s, by the byte rate of the placement service."""

    def __init__(self, model, share=None, pace_s=PACE_S, placement_options=(), **options):
        self.pace_s, self.rate = pace_s, int(bytes_of_experts(model) * share / pace_s) if share else None
        rate = ['--bytes-per-second', self.rate] if share else []
        super().__init__(model=model, placement_options=[*placement_options, *rate], **options)
        self.told, self.started = [], []   # started: meanwhile, by ordinary()
        self.moves = self.bytes = 0

    def __enter__(self):
        super().__enter__()
        self.server = reflect.Server(self.placement_grpc)
        self.settle()
        return self

    def __exit__(self, *_):
        if hasattr(self, 'server'):
            self.server.close()
        super().__exit__()

    # ---- processes that start and stop: tens of milliseconds of the kernel's work, elsewhere on a machine of their own ----

    def newcomer(self, *how, **more):
        with ordinary():
            added = super().newcomer(*how, **more)
        self.started.append(getattr(added, 'process', added))
        return added

    def restart(self, process):
        with ordinary():
            super().restart(process)
        self.started.append(process)

    def stop(self, process):
        give_priority(process, os.SCHED_OTHER, os.sched_param(0))
        process.stop()

    # ---- commands ----

    def operate(self, *words):
        """What an operator types: JSON of a command that must succeed."""
        command = [str(word) for word in words]
        done = subprocess.run([BIN / 'cadrectl', *command, '--placement', self.placement_grpc, '-o', 'json'], capture_output=True, text=True, timeout=COMMAND_S,
                              preexec_fn=elsewhere)
        assert done.returncode == 0, f'cadrectl {" ".join(command)} ends with {done.returncode}: {done.stderr.strip()}'
        return json.loads(done.stdout)

    def plan_file(self, holders):
        """A plan as `cadrectl map apply` takes it."""
        ids = sorted(frozenset().union(*holders.values()) | {node.name for node in self.experts if node.alive()})
        layers = {}
        for (layer, expert), nodes in holders.items():
            layers.setdefault(str(layer), {})[str(expert)] = sorted(ids.index(node) for node in nodes)
        path = self.directory / 'plan.json'
        path.write_text(json.dumps({'format': 'cadre-placement-1', 'planner': 'test', 'nodes': len(ids), 'slots_per_node': 0, 'seconds': 0.0, 'layers': layers, 'node_ids': ids}))
        return path

    # ---- who holds what: {(layer, expert): ids of the nodes} ----

    def call(self, method):
        return self.server.method('cadre.v1.Placement', method)(self.server.message(f'cadre.v1.{method}Request'), timeout=5)

    def holders(self):
        """By the map in force."""
        found = self.call('GetMap')
        return {(layer.layer, expert): frozenset(found.nodes[i].id for i in replicas.nodes) for layer in found.layers for expert, replicas in enumerate(layer.experts)}

    def held(self):
        """Copies that each live node has in its memory, those on their way out included."""
        return [metric(node.http, 'cadre_expert_held') for node in self.experts if node.alive()]

    def look(self):
        """Who holds what by the map, and how many copies nodes have; None: a process is away."""
        for process in filter(Process.alive, self.started):
            give_priority(process, os.sched_getscheduler(0), os.sched_getparam(0))
        try:
            return self.holders(), self.held()
        except Exception:
            return None

    def watch(self, seconds):
        """Looks as often as settle() does, so that nothing but what is done is different meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_S, left))
            self.look()

    def settle(self, reached=lambda holders: True):
        """Until nodes have held just what the map says for REST_S, and it is as it should be. Returns it."""
        end, since, last = time.monotonic() + SETTLE_S, time.monotonic(), None
        while time.monotonic() - since < REST_S:
            assert time.monotonic() < end, f'experts are not where they should be after {SETTLE_S} s'
            time.sleep(POLL_S)
            now = self.look()
            if now is None or now != last or sum(map(len, now[0].values())) != sum(now[1]) or not all(now[0].values()) or not reached(now[0]):
                since, last = time.monotonic(), now
        return last[0]

    def count(self, before, after):
        """What was moved between two maps: copies that were not there."""
        self.moves = sum(len(after[cell] - before[cell]) for cell in before)
        self.bytes = self.moves * bytes_of_experts(self.model) // len(before)


def bytes_of_experts(model):
    """Of all of them, as they are in the checkpoint."""
    config = json.loads((model / 'config.json').read_text())
    return config['num_hidden_layers'] * config['num_experts'] * 3 * config['hidden_size'] * config['moe_intermediate_size'] * 2


def shifted(holders, pairs, share):
    """A plan in which each node of `pairs` gives a share of its experts, evenly over layers, to the other one."""
    to = dict(pairs)
    plan, seen, all_of = dict(holders), {}, {}
    for (layer, _), nodes in holders.items():
        for node in nodes:
            all_of[layer, node] = all_of.get((layer, node), 0) + 1
    for (layer, expert), nodes in holders.items():
        for node in nodes & to.keys():
            seen[layer, node] = seen.get((layer, node), 0) + 1
            if seen[layer, node] <= share * all_of[layer, node] and to[node] not in nodes:
                plan[layer, expert] = nodes - {node} | {to[node]}
    return plan


def share_done(holders, before, wanted):
    """How much of what should move has."""
    cells = [cell for cell in before if wanted[cell] != before[cell]]
    return sum(wanted[cell] <= holders[cell] for cell in cells) / len(cells)
