# SPDX-License-Identifier: Apache-2.0
"""Muon for matrices, Adam for the rest, over one flat buffer of parameters.

Muon (K. Jordan, 2024): momentum, then the nearest semi-orthogonal matrix by five Newton-Schulz rounds. Each expert's matrices, and q, k and v, are matrices of
their own. With several workers each takes a part of the matrices, and the updates are summed.
"""
import math

import torch

MUON_LR, ADAM_LR, ROUTER_LR = 0.02, 0.004, 0.002
MOMENTUM, BETAS, WEIGHT_DECAY = 0.95, (0.9, 0.95), 0.01


def orthogonalise(m):                                    # [N,A,B]
    """Newton-Schulz with the usual quintic: singular values come to about 1."""
    transposed = m.shape[-2] > m.shape[-1]
    x = m.mT if transposed else m
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x.mT if transposed else x


def matrices(name, t, config):
    """The matrices of a parameter, each as [N,A,B]; none where Adam has it."""
    if name.endswith('qkv'):
        return list(m.unsqueeze(0) for m in t.split((config.heads * config.head, config.kv_heads * config.head, config.kv_heads * config.head)))
    if name.endswith('gate_up'):
        return [t.view(-1, config.ffn, config.hidden)]
    if name.endswith('down'):
        return [t]
    return [t.unsqueeze(0)] if name.endswith('.o') else []


class Optimiser:
    def __init__(self, model, rank, workers):
        parameters = list(model.named_parameters())
        size = sum(p.numel() for _, p in parameters)
        self.config, self.rank, self.workers = model.config, rank, workers
        device = parameters[0][1].device
        self.values, self.gradients, self.first, self.second, self.updates = (torch.zeros(size, device=device) for _ in range(5))
        self.parts, at = [], 0
        for name, p in parameters:
            end = at + p.numel()
            self.values[at:end] = p.detach().flatten()
            p.data, p.grad = self.values[at:end].view_as(p), self.gradients[at:end].view_as(p)
            self.parts.append((name, p.shape, at, end))
            at = end

    def state(self):
        return {'values': self.values, 'first': self.first, 'second': self.second}

    def load(self, state):
        for name, t in self.state().items():
            t.copy_(state[name])

    def step(self, n, scale, reduce):
        """Step n (from 0); scale: of the learning rate; reduce(tensor): sums a tensor over the workers."""
        self.updates.zero_()
        turn = 0
        for name, shape, at, end in self.parts:
            g, first, update = (t[at:end].view(shape) for t in (self.gradients, self.first, self.updates))
            value = self.values[at:end].view(shape)
            muon = matrices(name, first, self.config)
            if muon:
                first.mul_(MOMENTUM).add_(g)
                for m, gm, um, vm in zip(muon, *(matrices(name, t, self.config) for t in (g, update, value))):
                    if turn % self.workers == self.rank:
                        lr = MUON_LR * scale
                        um.copy_(orthogonalise(gm + MOMENTUM * m)).mul_(-lr * math.sqrt(max(1.0, m.shape[-2] / m.shape[-1]))).sub_(vm, alpha=lr * WEIGHT_DECAY)
                    turn += 1
                continue
            second = self.second[at:end].view(shape)
            first.lerp_(g, 1 - BETAS[0])
            second.lerp_(g * g, 1 - BETAS[1])
            if self.rank == 0:
                lr = (ROUTER_LR if name.endswith('router') else ADAM_LR) * scale
                denominator = (second / (1 - BETAS[1] ** (n + 1))).sqrt_().add_(1e-10)
                update.copy_(first).div_(denominator).mul_(-lr / (1 - BETAS[0] ** (n + 1)))
        reduce(self.updates)
        self.values += self.updates
