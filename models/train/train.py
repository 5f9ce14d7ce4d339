#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the model. The same command goes on where the last run stopped, whether it ended, was stopped by a signal or killed.

usage: train.py WORK --steps N            at a constant learning rate after a warm-up, up to step N; state in WORK/state.pt every few minutes
       train.py WORK --steps N --decay D  from step N on, D steps in which the learning rate falls to nothing; result in WORK/decayed.pt. WORK/state.pt
                                          stays as it is, so that the run can be made longer later

On CPUs each worker is a process with one thread, and gradients are summed: threads that share every matmul wait for each other thousands of times a step, which
on a busy machine costs more than half. On a GPU there is one worker.
"""
import argparse
import datetime
import json
import os
import pathlib
import signal
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

import mixture
from model import Config, Model
from optimiser import Optimiser

SEQUENCES, LENGTH, MICRO_SEQUENCES = 16, 256, 8          # a step; a sequence; what a worker computes at once
WARMUP, SAVE_SECONDS, LOG_STEPS = 60, 240, 10
Z_LOSS = 2e-4
LOAD_DECAY = 0.9                                          # of the running load: it remembers about ten steps, 40,000 tokens

stopping = False


def stop(*_):
    global stopping
    stopping = True


def balance_losses(routing, load):
    """Sums over layers. Auxiliary loss: E sum_e f_e P_e (Switch, GShard), 1 where the load is even. P is this micro-batch's mean probability; f, the share of rows, is that of the last
    steps of all workers, not of this micro-batch: a batch of one domain may then use few experts, as long as all domains together use all of them
    (Qiu et al., 2025). z-loss: the mean square of log sum exp of the logits (ST-MoE)."""
    auxiliary, z = 0.0, 0.0
    for (logits, probabilities, _), f in zip(routing, load):
        auxiliary = auxiliary + len(f) * (f * probabilities.mean(0)).sum()
        z = z + logits.logsumexp(1).square().mean()
    return auxiliary, z


class Run:
    def __init__(self, a, rank, workers):
        self.a, self.rank, self.workers = a, rank, workers
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        torch.manual_seed(a.seed)
        self.config = Config()
        self.model = Model(self.config).to(self.device)
        self.optimiser = Optimiser(self.model, rank, workers)
        self.data = mixture.Mixture(a.work, LENGTH, a.seed)
        self.load = torch.full((self.config.layers, self.config.experts), 1 / self.config.experts, device=self.device)
        self.n = 0
        state = a.work / 'state.pt'
        if state.exists():
            saved = torch.load(state, map_location=self.device, weights_only=False)
            self.optimiser.load(saved['optimiser'])
            self.load.copy_(saved['load'])
            self.model.bias.copy_(saved['bias'])
            self.n = saved['step']

    def save(self, name):
        if self.rank == 0:
            path = self.a.work / name
            state = {'step': self.n, 'optimiser': self.optimiser.state(), 'load': self.load, 'bias': self.model.bias, 'model': self.model.state_dict(), 'config': self.config}
            torch.save(state, f'{path}.new')
            os.replace(f'{path}.new', path)

    def reduce(self, t):
        if self.workers > 1:
            dist.all_reduce(t)

    def scale(self):
        """Of the learning rate."""
        if self.a.decay:
            return 1 - (self.n - self.a.steps) / self.a.decay
        return min(1.0, (self.n + 1) / WARMUP)

    def step(self):
        """One step. Returns what it saw: means over tokens, counts of rows by layer and expert, loss by domain, and whether a worker was told to stop."""
        c, o = self.config, self.optimiser
        o.gradients.zero_()
        mine = [self.data.sequence(self.n * SEQUENCES + i) for i in range(self.rank, SEQUENCES, self.workers)]
        counts = torch.zeros_like(self.load)
        sums = torch.zeros(3, device=self.device)
        domains = torch.zeros(2, len(mixture.SHARES), device=self.device)
        for begin in range(0, len(mine), MICRO_SEQUENCES):
            part = mine[begin:begin + MICRO_SEQUENCES]
            batch = torch.stack([torch.from_numpy(t) for _, t in part]).to(self.device)
            share = len(part) / SEQUENCES
            loss, losses, routing = self.model(batch[:, :-1], batch[:, 1:])
            auxiliary, z = balance_losses(routing, self.load)
            ((loss + self.a.auxiliary * auxiliary + Z_LOSS * z) * share).backward()
            for layer, (_, _, ids) in enumerate(routing):
                counts[layer] += torch.bincount(ids.flatten(), minlength=c.experts)
            sums += torch.stack((loss.detach(), auxiliary.detach() / c.layers, z.detach() / c.layers)) * share
            for (domain, _), mean in zip(part, losses.view(len(part), -1).mean(1)):
                domains[0, domain] += mean
                domains[1, domain] += 1
        told = torch.cat((counts.flatten(), sums, domains.flatten(), torch.tensor([float(stopping)], device=self.device)))
        self.reduce(o.gradients)
        self.reduce(told)
        counts, sums, domains, halt = told.split((counts.numel(), 3, domains.numel(), 1))
        load = counts.view_as(self.load) / counts.sum() * c.layers
        self.load.mul_(LOAD_DECAY).add_(load, alpha=1 - LOAD_DECAY)
        if self.a.bias:
            self.model.bias += self.a.bias * (1 / c.experts - load).sign()
            if self.a.decay:                             # the published architecture has no bias: it must be gone at the end
                self.model.bias *= self.scale()
        o.step(self.n, self.scale(), self.reduce)
        self.n += 1
        return sums, load, domains.view(2, -1), bool(halt > 0)

    def loop(self):
        end = self.a.steps + self.a.decay
        if self.a.decay and self.n != self.a.steps:
            raise SystemExit(f'{self.a.work}/state.pt is at step {self.n}: --decay begins at --steps {self.n}')
        saved = since = time.monotonic()
        sums, domains, steps = 0, 0, 0
        log = open(self.a.work / 'log.jsonl', 'a') if self.rank == 0 else None
        while self.n < end:
            s, load, d, halt = self.step()
            sums, domains, steps = sums + s, domains + d, steps + 1
            if self.rank == 0 and (self.n % LOG_STEPS == 0 or self.n == end or halt):
                seconds = time.monotonic() - since
                entropy = -(load * load.clamp_min(1e-9).log()).sum(1) / torch.tensor(float(self.config.experts)).log()
                line = {'step': self.n, 'decay': bool(self.a.decay), 'loss': (sums[0] / steps).item(), 'auxiliary': (sums[1] / steps).item(), 'z': (sums[2] / steps).item(),
                        'domains': {k: v for k, v in zip(mixture.SHARES, (domains[0] / domains[1]).tolist()) if v == v}, 'load_max': (load.amax(1) * self.config.experts).tolist(),
                        'load_min': (load.amin(1) * self.config.experts).tolist(), 'entropy': entropy.tolist(), 'tokens_per_s': steps * SEQUENCES * LENGTH / seconds}
                log.write(json.dumps(line) + '\n')
                log.flush()
                print(f"step {self.n} loss {line['loss']:.3f} en {line['domains'].get('en', float('nan')):.3f} aux {line['auxiliary']:.3f} z {line['z']:.2f} "
                      f"load max {max(line['load_max']):.2f} min {min(line['load_min']):.2f}, {line['tokens_per_s']:.0f} tokens/s", flush=True)
                sums, domains, steps, since = 0, 0, 0, time.monotonic()
            if halt:
                break
            if not self.a.decay and time.monotonic() - saved > SAVE_SECONDS:
                self.save('state.pt')
                saved = time.monotonic()
        if not self.a.decay:
            self.save('state.pt')
        elif self.n == end:
            self.save('decayed.pt')


def work(rank, a, workers):
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if workers > 1:
        torch.set_num_threads(1)
        os.environ['GLOO_SOCKET_IFNAME'] = 'lo'
        dist.init_process_group('gloo', init_method=f'file://{a.work.resolve()}/rendezvous', rank=rank, world_size=workers, timeout=datetime.timedelta(days=1))
    Run(a, rank, workers).loop()
    if workers > 1:
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=pathlib.Path)
    parser.add_argument('--steps', type=int, required=True)
    parser.add_argument('--decay', type=int, default=0)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--auxiliary', type=float, default=0.01, help='weight of the auxiliary loss of a layer')
    parser.add_argument('--bias', type=float, default=0.0, help='step of the bias update of DeepSeek-V3; with it, --auxiliary 0')
    parser.add_argument('--workers', type=int, default=1 if torch.cuda.is_available() else os.cpu_count())
    a = parser.parse_args()
    (a.work / 'rendezvous').unlink(missing_ok=True)
    if a.workers == 1:
        work(0, a, 1)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)     # the workers stop at the end of their step; this process waits for them
        context = multiprocessing.spawn(work, (a, a.workers), nprocs=a.workers, join=False)
        signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in context.processes])
        while not context.join():
            pass


if __name__ == '__main__':
    main()
