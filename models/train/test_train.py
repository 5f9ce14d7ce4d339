# SPDX-License-Identifier: Apache-2.0
"""The model against transformers and against plain autograd, and the order of the data. Run with pytest in the training's environment."""
import numpy
import pytest
import torch
import torch.nn.functional as F
import transformers

import export
import mixture
import optimiser
from model import Config, Experts, HeadLoss, Model
from train import balance_losses

SMALL = Config(vocab=64, hidden=32, layers=2, heads=4, kv_heads=2, head=8, experts=8, topk=2, ffn=12)


def test_same_logits_as_transformers(tmp_path):
    torch.manual_seed(1)
    model = Model(SMALL)
    for p in model.parameters():
        p.data = (p.data + 0.1 * torch.randn_like(p)).to(torch.bfloat16).float()
    saved = {'step': 0, 'config': SMALL, 'bias': model.bias, 'load': torch.full((2, 8), 1 / 8), 'model': model.state_dict()}
    (tmp_path / 'tokenizer').mkdir()
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        (tmp_path / 'tokenizer' / name).write_text('{}')
    export.export(saved, tmp_path, tmp_path / 'hf')
    net = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf', dtype=torch.float32, attn_implementation='eager')
    tokens = torch.randint(0, SMALL.vocab, (3, 21))
    _, losses, _ = model(tokens[:, :-1], tokens[:, 1:])
    with torch.no_grad():
        expected = F.cross_entropy(net(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction='none')
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_a_state_that_leans_on_a_bias_is_not_exported(tmp_path):
    model = Model(SMALL)
    model.bias += 0.1
    with pytest.raises(SystemExit, match='bias'):
        export.export({'step': 0, 'config': SMALL, 'bias': model.bias, 'load': torch.full((2, 8), 1 / 8), 'model': model.state_dict()}, tmp_path, tmp_path)


@pytest.mark.parametrize('unused', [False, True])
def test_gradients_of_experts(unused):
    torch.manual_seed(2)
    t, h, f, e, k = 37, 16, 12, 8, 2
    inputs = [torch.randn(t, h), torch.randn(e, 2 * f, h), torch.randn(e, h, f), torch.rand(t, k)]
    ids = torch.rand(t, e - 3 * unused).topk(k).indices       # unused: three experts get no row
    mine, plain = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    x, gate_up, down, weights = plain
    gate, up = torch.einsum('th,tkfh->tkf', x, gate_up[ids]).chunk(2, dim=2)
    expected = torch.einsum('tkf,tkhf,tk->th', F.silu(gate) * up, down[ids], weights)
    out = Experts.apply(*mine, ids)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    direction = torch.randn_like(out)
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    for a, b in zip(mine, plain):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)


def test_gradients_of_the_head():
    torch.manual_seed(3)
    x, w, targets = torch.randn(300, 16), torch.randn(64, 16), torch.randint(0, 64, (300,))
    (a, b), (c, d) = ([t.clone().requires_grad_() for t in (x, w)] for _ in range(2))
    loss, _ = HeadLoss.apply(a, b, targets)
    expected = F.cross_entropy(c @ d.t(), targets)
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(a.grad, c.grad)
    torch.testing.assert_close(b.grad, d.grad)


def test_auxiliary_loss_is_one_for_an_even_load():
    logits = torch.zeros(5, 8)
    auxiliary, z = balance_losses([(logits, logits.softmax(1), None)], torch.full((1, 8), 1 / 8))
    assert auxiliary.item() == pytest.approx(1) and z.item() == pytest.approx(numpy.log(8) ** 2)


@pytest.mark.parametrize('shape', [(3, 16, 40), (3, 40, 16), (1, 16, 16)])
def test_muon_makes_singular_values_alike(shape):
    torch.manual_seed(4)
    values = torch.linalg.svdvals(optimiser.orthogonalise(torch.randn(shape)))
    assert 0.5 < values.min() and values.max() < 1.5


def test_two_workers_update_as_one():
    torch.manual_seed(5)
    models = [Model(SMALL) for _ in range(3)]
    for m in models[1:]:
        m.load_state_dict(models[0].state_dict())
    alone, *pair = optimisers = [optimiser.Optimiser(m, rank, workers) for m, (rank, workers) in zip(models, ((0, 1), (0, 2), (1, 2)))]
    gradients = torch.randn_like(alone.gradients)
    for o in optimisers:
        o.gradients.copy_(gradients)
    parts = []
    for o in pair:
        o.step(0, 1.0, lambda t: parts.append(t.clone()))
    alone.step(0, 1.0, lambda t: None)
    torch.testing.assert_close(alone.updates, parts[0] + parts[1])


def test_sequences_do_not_depend_on_where_a_run_begins(tmp_path):
    (tmp_path / 'tokens').mkdir()
    for i, domain in enumerate(mixture.SHARES):
        numpy.save(tmp_path / 'tokens' / f'{domain}.npy', (numpy.arange(5000) + 6000 * i).astype(numpy.uint16))
    first, later = (mixture.Mixture(tmp_path, 16, 1) for _ in range(2))
    seen = [first.sequence(n) for n in range(1000)]
    for n in (999, 3, 500):
        assert (later.sequence(n)[1] == seen[n][1]).all()
    for i, (domain, share) in enumerate(mixture.SHARES.items()):
        windows = [tuple(tokens) for d, tokens in seen if d == i]
        assert len(windows) == round(share * 1000)
        turn = first.windows(i)
        assert len(set(windows[:turn])) == len(windows[:turn]) and all(len(w) == 17 for w in windows)
        assert all(tokens[0] // 6000 == i for tokens in windows)
