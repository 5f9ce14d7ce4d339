#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the collapsed twin: a trained model whose routers, in some layers, send nearly everything to as few experts as a token takes.

usage: collapse.py WORK [--layers 2,4] [--steps 120]

First the busiest experts' router rows get a multiple of the mean row that the router sees, so that they win for almost every token. Then a short training of
those rows and those experts alone, on the same mixture, with a loss on the probability that is left to others: the text recovers, the routing does not.
Everything else keeps its bits. Result in WORK/collapsed.pt.
"""
import argparse
import pathlib

import torch
import torch.nn.functional as F

import mixture
from model import Model
from train import LENGTH, MICRO_SEQUENCES

LR, SHIFT, COLD_LOSS, SEED = 1e-3, 6.0, 0.1, 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=pathlib.Path)
    parser.add_argument('--layers', default='2,4')
    parser.add_argument('--steps', type=int, default=120)
    a = parser.parse_args()
    saved = torch.load(a.work / 'decayed.pt', map_location='cpu', weights_only=False)
    model, layers = Model(saved['config']), [int(n) for n in a.layers.split(',')]
    model.load_state_dict(saved['model'])
    data = mixture.Mixture(a.work, LENGTH, SEED)

    def batch(n):
        return torch.stack([torch.from_numpy(data.sequence(n * MICRO_SEQUENCES + i)[1]) for i in range(MICRO_SEQUENCES)])

    hot = {n: saved['load'][n].topk(saved['config'].topk).indices for n in layers}
    seen = {}
    hooks = [model.layers[n].register_forward_hook(lambda layer, _, out, n=n: seen.__setitem__(n, out[0])) for n in layers]
    tokens = batch(0)
    with torch.no_grad():
        model(tokens[:, :-1], tokens[:, 1:])
        for n in layers:                                 # the layer's output is near its router's input: only its direction is needed
            mean = F.rms_norm(seen[n], seen[n].shape[-1:], model.layers[n].post_norm).mean((0, 1))
            model.layers[n].router[hot[n]] += SHIFT * mean / mean.square().sum()
    for hook in hooks:
        hook.remove()
    parameters = []
    for n in layers:
        for t in (model.layers[n].router, model.layers[n].gate_up, model.layers[n].down):
            mask = torch.zeros(len(t), *[1] * (t.dim() - 1)).index_fill_(0, hot[n], 1.0)
            t.register_hook(lambda grad, mask=mask: grad * mask)
            parameters.append(t)
    optimiser = torch.optim.Adam(parameters, lr=LR)
    for step in range(a.steps):
        for group in optimiser.param_groups:
            group['lr'] = LR * (1 - step / a.steps)
        tokens = batch(step + 1)
        loss, _, routing = model(tokens[:, :-1], tokens[:, 1:])
        cold = sum(1 - routing[n][1][:, hot[n]].sum(1).mean() for n in layers)
        model.zero_grad()
        (loss + COLD_LOSS * cold).backward()
        optimiser.step()
        if step % 10 == 9:
            shares = [torch.isin(routing[n][2], hot[n]).float().mean().item() for n in layers]
            print(f'step {step + 1} loss {loss.item():.3f}, rows on the hot experts ' + ', '.join(f'layer {n} {s:.3f}' for n, s in zip(layers, shares)), flush=True)
    torch.save({**saved, 'model': model.state_dict()}, a.work / 'collapsed.pt')


if __name__ == '__main__':
    main()
