# SPDX-License-Identifier: Apache-2.0
"""The model: Qwen3-MoE as Hugging Face defines it, written for training on few cores. Same arithmetic as transformers' Qwen3MoeForCausalLM.

T tokens, H hidden, F ffn, E experts, K top-k, V vocabulary.
"""
import dataclasses
import shutil

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    vocab: int = 4096
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head: int = 32
    experts: int = 32
    topk: int = 4
    ffn: int = 64
    rope_theta: float = 10000.0
    eps: float = 1e-6


def fused(function):
    """Compiled where there is a compiler: what goes over memory once for each operation then goes over it once."""
    return torch.compile(function, dynamic=False) if shutil.which('g++') or torch.cuda.is_available() else function


@fused
def activate(hidden, factor):                            # [N,2F] [N,1] -> [N,F]
    gate, up = hidden.chunk(2, dim=1)
    return F.silu(gate) * up * factor


@fused
def activate_backward(hidden, factor, grad):             # grad [N,F] -> of hidden [N,2F], of factor [N]
    gate, up = hidden.chunk(2, dim=1)
    sigmoid = torch.sigmoid(gate)
    silu, weighed = gate * sigmoid, grad * factor
    return torch.cat((weighed * up * (sigmoid + silu * (1 - sigmoid)), weighed * silu), dim=1), (grad * silu * up).sum(1)


@fused
def cross_entropy(logits, targets):                      # [N,V] [N] -> loss [N], gradient [N,V]
    log_p = torch.log_softmax(logits, dim=1)
    rows = torch.arange(logits.shape[1], device=logits.device)
    return -log_p.gather(1, targets[:, None]).squeeze(1), log_p.exp() - (rows == targets[:, None]).float()


class Experts(torch.autograd.Function):
    """Rows grouped by expert: one matmul an expert and matrix, on rows that lie together. The factor of the combine is applied before the second matmul, where a
    row is F wide, not H; and summing a token's K rows is an embedding bag, which gathers and adds in one pass."""

    @staticmethod
    def forward(ctx, x, gate_up, down, weights, ids):    # [T,H] [E,2F,H] [E,H,F] [T,K] [T,K]
        k = ids.shape[1]
        order = torch.argsort(ids.flatten(), stable=True)
        ends = torch.bincount(ids.flatten(), minlength=len(down)).cumsum(0).tolist()
        spans = list(zip([0] + ends[:-1], ends))
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        place = place.view(-1, k)
        rows = x.index_select(0, order.div(k, rounding_mode='floor'))
        hidden, out = rows.new_empty(len(rows), gate_up.shape[1]), torch.empty_like(rows)
        for (begin, end), w in zip(spans, gate_up.unbind()):
            torch.mm(rows[begin:end], w.t(), out=hidden[begin:end])
        factor = weights.flatten()[order].unsqueeze(1)
        weighed = activate(hidden, factor)
        for (begin, end), w in zip(spans, down.unbind()):
            torch.mm(weighed[begin:end], w.t(), out=out[begin:end])
        ctx.save_for_backward(rows, hidden, weighed, factor, gate_up, down, order, place)
        ctx.spans = spans
        return F.embedding_bag(place, out, mode='sum')

    @staticmethod
    def backward(ctx, grad):
        rows, hidden, weighed, factor, gate_up, down, order, place = ctx.saved_tensors
        grad_rows = grad.contiguous().index_select(0, order.div(place.shape[1], rounding_mode='floor'))
        grad_weighed, grad_down, grad_gate_up = torch.empty_like(weighed), torch.empty_like(down), torch.empty_like(gate_up)
        for (begin, end), w, g in zip(ctx.spans, down.unbind(), grad_down.unbind()):
            torch.mm(grad_rows[begin:end], w, out=grad_weighed[begin:end])
            torch.mm(grad_rows[begin:end].t(), weighed[begin:end], out=g)
        grad_hidden, grad_factor = activate_backward(hidden, factor, grad_weighed)
        grad_in = grad_rows                              # its values are used up
        for (begin, end), w, g in zip(ctx.spans, gate_up.unbind(), grad_gate_up.unbind()):
            torch.mm(grad_hidden[begin:end].t(), rows[begin:end], out=g)
            torch.mm(grad_hidden[begin:end], w, out=grad_in[begin:end])
        grad_weights = torch.empty_like(grad_factor)
        grad_weights[order] = grad_factor
        return F.embedding_bag(place, grad_in, mode='sum'), grad_gate_up, grad_down, grad_weights.view_as(place), None


class HeadLoss(torch.autograd.Function):
    """Mean cross entropy of tied logits, a few rows at a time: the logits of a whole batch would not fit in any cache. Gradients are made on the way."""
    ROWS = 256

    @staticmethod
    def forward(ctx, x, weight, targets):                # [T,H] [V,H] [T] -> mean loss, loss of each row [T]
        losses, grad_x, grad_weight = x.new_empty(len(x)), torch.empty_like(x), torch.zeros_like(weight)
        for begin in range(0, len(x), HeadLoss.ROWS):
            rows = x[begin:begin + HeadLoss.ROWS]
            losses[begin:begin + HeadLoss.ROWS], grad = cross_entropy(rows @ weight.t(), targets[begin:begin + HeadLoss.ROWS])
            torch.mm(grad, weight, out=grad_x[begin:begin + HeadLoss.ROWS])
            grad_weight.addmm_(grad.t(), rows)
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.mark_non_differentiable(losses)
        return losses.mean(), losses

    @staticmethod
    def backward(ctx, grad, _):
        grad_x, grad_weight = ctx.saved_tensors
        scale = grad / len(grad_x)
        return grad_x * scale, grad_weight * scale, None


def rope_table(length, config):
    angle = torch.arange(length)[:, None] / config.rope_theta ** (torch.arange(0, config.head, 2) / config.head)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):                                 # x [B,S,heads,D], cos and sin [S,1,D/2]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


@fused
def before_attention(x, norm, qkv, q_norm, k_norm, cos, sin, heads, kv_heads, eps):      # x [B,S,H] -> q, k, v [B,heads,S,D]
    rows = F.linear(F.rms_norm(x, x.shape[-1:], norm, eps), qkv).unflatten(-1, (heads + 2 * kv_heads, -1))
    q, k, v = rows.split((heads, kv_heads, kv_heads), dim=2)
    q = rotate(F.rms_norm(q, q.shape[-1:], q_norm, eps), cos, sin)
    k = rotate(F.rms_norm(k, k.shape[-1:], k_norm, eps), cos, sin)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


@fused
def after_attention(x, out, o, norm, router, eps):       # -> x [B,S,H], the router's input [T,H], its logits and probabilities [T,E]
    x = x + F.linear(out.transpose(1, 2).flatten(2), o)
    rows = F.rms_norm(x, x.shape[-1:], norm, eps).flatten(0, 1)
    logits = F.linear(rows, router)
    return x, rows, logits, torch.softmax(logits, dim=1)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        width = c.heads * c.head
        small = 0.02 / (2 * c.layers) ** 0.5
        self.input_norm, self.post_norm = nn.Parameter(torch.ones(c.hidden)), nn.Parameter(torch.ones(c.hidden))
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(c.head)), nn.Parameter(torch.ones(c.head))
        self.qkv = nn.Parameter(torch.randn(width + 2 * c.kv_heads * c.head, c.hidden) * 0.05)
        self.o = nn.Parameter(torch.randn(c.hidden, width) * small)
        self.router = nn.Parameter(torch.randn(c.experts, c.hidden) * 0.02)
        self.gate_up = nn.Parameter(torch.randn(c.experts, 2 * c.ffn, c.hidden) * 0.05)
        self.down = nn.Parameter(torch.randn(c.experts, c.hidden, c.ffn) * small)

    def forward(self, x, cos, sin, bias):
        """x [B,S,H]. Returns x and the router's logits [T,E], probabilities [T,E] and choices [T,K]. bias [E] is added to probabilities where experts are chosen, not
        where they are weighed."""
        c = self.config
        q, k, v = before_attention(x, self.input_norm, self.qkv, self.q_norm, self.k_norm, cos, sin, c.heads, c.kv_heads, c.eps)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x, rows, logits, probabilities = after_attention(x, out, self.o, self.post_norm, self.router, c.eps)
        ids = torch.topk(probabilities.detach() + bias, c.topk, dim=1).indices
        weights = probabilities.gather(1, ids)
        weights = weights / weights.sum(1, keepdim=True)
        return x + Experts.apply(rows, self.gate_up, self.down, weights, ids).view_as(x), (logits, probabilities, ids)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.randn(config.vocab, config.hidden) * 0.05)
        self.norm = nn.Parameter(torch.ones(config.hidden))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.register_buffer('bias', torch.zeros(config.layers, config.experts))

    def forward(self, tokens, targets):                  # [B,S] both -> mean loss, loss of each token [T], what each layer's router did
        x = F.embedding(tokens, self.embed)
        cos, sin = (t[:, None].to(x.device) for t in rope_table(tokens.shape[1], self.config))
        routing = []
        for layer, bias in zip(self.layers, self.bias):
            x, r = layer(x, cos, sin, bias)
            routing.append(r)
        x = F.rms_norm(x, x.shape[-1:], self.norm, self.config.eps).view(-1, self.config.hidden)
        loss, losses = HeadLoss.apply(x, self.embed, targets.flatten())
        return loss, losses, routing
