#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a checkpoint on held-out text, by transformers and by Cadre, and draws its pictures.

usage: evaluate.py DIR --heldout DIR [--cadrectl PATH] [--log WORK/log.jsonl]

Writes DIR/evaluation.json, DIR/experts.png (use of each expert by domain and layer) and, with --log, DIR/training.png (loss, load and entropy of a run). Prints
the tables of the model card.
"""
import argparse
import json
import pathlib

import matplotlib
import numpy

import heldout

matplotlib.use('Agg')
from matplotlib import pyplot    # noqa: E402


def draw_experts(use, path):
    """use: {domain: [layers, experts]}. One map a layer: rows are domains, columns experts, in the order of the domain that favours them."""
    names, layers = list(use), len(next(iter(use.values())))
    share = numpy.stack([u / u.sum(1, keepdims=True) * u.shape[1] for u in use.values()])     # 1: as much as all others
    columns = 3
    figure, axes = pyplot.subplots((layers + columns - 1) // columns, columns, figsize=(13, 2.6 * ((layers + columns - 1) // columns)), squeeze=False, layout='constrained')
    for layer, axis in enumerate(axes.flat):
        if layer >= layers:
            axis.axis('off')
            continue
        part = share[:, layer]
        order = sorted(range(part.shape[1]), key=lambda e: (part[:, e].argmax(), -part[:, e].max()))
        image = axis.imshow(numpy.log2(numpy.maximum(part[:, order], 1 / 16)), cmap='RdBu_r', vmin=-3, vmax=3, aspect='auto')
        axis.set_title(f'layer {layer}', fontsize=9)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_xticks(range(part.shape[1]), order, fontsize=5)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=[-3, -2, -1, 0, 1, 2, 3])
    bar.ax.set_yticklabels(['1/8', '1/4', '1/2', '1', '2', '4', '8'])
    bar.set_label("an expert's share of a domain's rows,\nwhere 1 is an even share", fontsize=8)
    figure.savefig(path, dpi=110)


def draw_training(log, path):
    lines = {}
    for line in map(json.loads, log.read_text().splitlines()):
        lines[line['step']] = line                       # a run that went on from an earlier state repeats steps
    lines = [lines[n] for n in sorted(lines)]
    steps = [line['step'] for line in lines]
    figure, (loss, load, entropy) = pyplot.subplots(1, 3, figsize=(15, 4), layout='constrained')
    for domain in lines[-1]['domains']:
        points = [(line['step'], line['domains'][domain]) for line in lines if domain in line['domains']]
        smooth = numpy.convolve([p[1] for p in points], numpy.ones(5) / 5, 'valid')
        loss.plot([p[0] for p in points][4:], smooth, label=domain, linewidth=0.9)
    loss.set(title='training loss by domain, nats a token', xlabel='step', ylim=(2, 7))
    loss.legend(fontsize=7, ncol=2)
    for layer in range(len(lines[0]['load_max'])):
        load.plot(steps, [line['load_max'][layer] for line in lines], linewidth=0.8, color=f'C{layer}', label=f'layer {layer}')
        load.plot(steps, [line['load_min'][layer] for line in lines], linewidth=0.8, color=f'C{layer}')
        entropy.plot(steps, [line['entropy'][layer] for line in lines], linewidth=0.8, color=f'C{layer}', label=f'layer {layer}')
    load.set(title='busiest and idlest expert of a step, over the mean', xlabel='step', ylim=(0, 8))
    entropy.set(title='entropy of the load, 1 is even', xlabel='step', ylim=(0.6, 1.005))
    entropy.legend(fontsize=7)
    figure.savefig(path, dpi=90)


def information(use):
    """Bits that an expert tells of its domain, a layer: mutual information of domain and expert, domains weighed alike."""
    p = numpy.stack([u / u.sum(1, keepdims=True) for u in use.values()]) / len(use)           # [domains, layers, experts]
    marginal = p.sum(0, keepdims=True) / len(use)
    return numpy.where(p > 0, p * numpy.log2(numpy.maximum(p, 1e-12) / numpy.maximum(marginal, 1e-12)), 0).sum((0, 2))


def print_tables(result):
    print('| domain | bytes | tokens | transformers | Cadre |\n|---|---|---|---|---|')
    for domain, d in result['domains'].items():
        print(f"| {domain} | {d['bytes']} | {d['tokens']} | {d['bits_per_byte']:.4f} | {d.get('bits_per_byte_cadre', float('nan')):.4f} |")
    print('\n| layer | busiest expert, over the mean | idlest | four busiest, share of rows | entropy | bits that an expert tells of its domain |\n|---|---|---|---|---|---|')
    for layer, d in enumerate(result['layers']):
        print(f"| {layer} | {d['load_max']:.2f} | {d['load_min']:.2f} | {d['busiest_share']:.3f} | {d['entropy']:.3f} | {d['domain_bits']:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=pathlib.Path)
    parser.add_argument('--heldout', type=pathlib.Path, required=True)
    parser.add_argument('--cadrectl')
    parser.add_argument('--log', type=pathlib.Path)
    a = parser.parse_args()
    config = json.loads((a.model / 'config.json').read_text())
    experts, topk = config['num_experts'], config['num_experts_per_tok']
    reference = heldout.by_transformers(a.model)
    result, use = {'domains': {}, 'layers': []}, {}
    for domain in heldout.domains(a.heldout):
        path = a.heldout / f'{domain}.txt'
        result['domains'][domain], use[domain] = heldout.measure(reference, a.model, path, experts)
        if a.cadrectl:
            result['domains'][domain]['bits_per_byte_cadre'] = heldout.measure(heldout.by_cadre(a.model, a.cadrectl), a.model, path, experts)[0]['bits_per_byte']
    even = sum(u / u.sum(1, keepdims=True) for u in use.values()) / len(use)                  # domains weighed alike
    for load, told in zip(even, information(use)):
        entropy = -(load * numpy.log(numpy.maximum(load, 1e-12))).sum() / numpy.log(experts)
        result['layers'].append({'load_max': float(load.max() * experts), 'load_min': float(load.min() * experts), 'busiest_share': float(numpy.sort(load)[-topk:].sum()),
                                 'entropy': float(entropy), 'domain_bits': float(told)})
    (a.model / 'evaluation.json').write_text(json.dumps(result, indent=1) + '\n')
    draw_experts(use, a.model / 'experts.png')
    if a.log:
        draw_training(a.log, a.model / 'training.png')
    print_tables(result)


if __name__ == '__main__':
    main()
