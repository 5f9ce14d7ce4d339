# SPDX-License-Identifier: Apache-2.0
"""Random small checkpoints of every family that runs, over all sizes, dtypes and forms of files: what Cadre computes against what transformers does.

    pytest tests/checkpoints/test_random.py

CADRE_CHECKPOINTS is how many are made, CADRE_SEED where they begin: checkpoint i has the seed CADRE_SEED + i, so that CADRE_CHECKPOINTS=1 repeats any of them. They are of all families in turn, or of those that
CADRE_FAMILIES names (with a space between), of which a seed then makes another checkpoint. CADRE_KEEP is a directory that keeps the first that fails.

A family is a row in a file of families/."""
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the package torch is not installed")
pytest.importorskip("transformers", reason="the package transformers is not installed")
from safetensors.numpy import load_file  # noqa: E402

import checkpoint  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CADRECTL = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build" / "bin")) / "cadrectl"
COUNT = int(os.environ.get("CADRE_CHECKPOINTS", 60))
SEED = int(os.environ.get("CADRE_SEED", 1))
FAMILIES = os.environ.get("CADRE_FAMILIES", "").split() or list(checkpoint.FAMILIES)
TOLERANCE = 1e-4   # of the largest logit; float32 sums in another order come to some 1e-6
GREEDY = 4


def run(*arguments):
    return subprocess.run([CADRECTL, *map(str, arguments)], capture_output=True, text=True)


def differences(got, want, index, tolerance=TOLERANCE):
    """(what differs, ties): nothing, unless more than rounding does. What comes after a choice between equal experts is not compared."""
    logits, compared = got[f"logits.{index}"], want["logits"].shape[0]
    ties = 0
    for layer, (scores, weights, ids) in enumerate(want["routing"]):
        if np.abs(got[f"router_logits.{index}"][layer] - scores)[:compared].max(initial=0) > tolerance * np.abs(scores).max():
            return f"the gate's logits of layer {layer}", ties
        for token in range(compared):
            own = dict(zip(got[f"experts.{index}"][layer, token].tolist(), got[f"expert_weights.{index}"][layer, token].tolist()))
            theirs = dict(zip(ids[token].tolist(), weights[token].tolist()))
            swapped = sorted(own.keys() ^ theirs.keys())
            if swapped:
                if np.ptp(scores[token, swapped]) > tolerance * np.abs(scores).max():
                    return f"the experts of token {token} in layer {layer}", ties
                compared, ties = token, ties + 1
                break
            if max(abs(own[e] - theirs[e]) for e in own) > tolerance:
                return f"the weights of token {token} in layer {layer}", ties
    off = np.abs(logits - want["logits"])[:compared]
    if not np.isfinite(logits).all() or off.max(initial=0) > tolerance * np.abs(want["logits"]).max():
        return f"the logits, by {off.max(initial=0) / np.abs(want['logits']).max():.1e}", ties
    if compared < len(want["logits"]):
        return None, ties
    greedy = got[f"greedy.{index}"].tolist()
    same = next((i for i, (a, b) in enumerate(zip(greedy, want["greedy"])) if a != b), None)
    if same == 0:   # later ones may follow from a tie
        best = want["logits"][-1]
        if best[want["greedy"][0]] - best[greedy[0]] > tolerance * np.abs(best).max():
            return "the next token", ties
    return None, ties


def noise(single, double):
    """How far the reference in f32 is from itself in f64, relatively: of a model whose hidden states pass near 0, before a norm, that may be more than the tolerance."""
    far = lambda a, b: np.abs(a - b).max(initial=0) / np.abs(b).max(initial=1e-30)
    return max(max([far(a["logits"], b["logits"])] + [far(x[0], y[0]) for x, y in zip(a["routing"], b["routing"])]) for a, b in zip(single, double))


def packed_is_the_same(rng, directory, model, options):
    """A packed model gives the bytes that its checkpoint gives."""
    profile = rng.choice(["f32", "bf16", "int8", "int4"])
    made = run("model", "pack", "--numerics", profile, "--router-numerics", profile, model, directory / "packed")
    if made.returncode != 0:
        return f"model pack --numerics {profile}: {made.stderr.strip()}"
    for source, file in ((model, "plain.out"), (directory / "packed", "packed.out")):
        got = run("eval", "--model", source, "--output", directory / file, *options, "--numerics", profile, "--router-numerics", profile)
        if got.returncode != 0:
            return f"--numerics {profile}, {file}: rc {got.returncode}: {got.stderr.strip()}"
    plain, packed = (load_file(directory / file) for file in ("plain.out", "packed.out"))
    return None if all(np.array_equal(plain[name], packed[name], equal_nan=True) for name in plain) else f"packed with --numerics {profile}, other numbers come out"


def check(seed, directory):
    """(what the checkpoint is, what is wrong with it or None, ties)"""
    rng = random.Random(seed)
    family = FAMILIES[seed % len(FAMILIES)]
    model = directory / "model"
    what = checkpoint.make(rng, model, family)
    vocab = json.loads((model / "config.json").read_text())["vocab_size"]
    sequences = [[rng.randrange(vocab) for _ in range(length)] for length in (1, rng.randint(2, 12), rng.randint(30, 120))]
    (directory / "input.json").write_text(json.dumps({"sequences": sequences, "greedy_tokens": GREEDY}))
    options = ["--input", directory / "input.json"]
    got = run("eval", "--model", model, "--output", directory / "out", "--weights", "f32", "--wire", "f32", *options)
    if got.returncode != 0:
        return what, f"rc {got.returncode}: {got.stderr.strip()}", 0
    outputs, ties, tolerance = load_file(directory / "out"), 0, TOLERANCE
    wanted = checkpoint.reference(model, family, sequences, GREEDY)
    for index, want in enumerate(wanted):
        wrong, tied = differences(outputs, want, index, tolerance)
        if wrong and tolerance == TOLERANCE:
            tolerance = max(TOLERANCE, 10 * noise(wanted, checkpoint.reference(model, family, sequences, GREEDY, torch.float64)))
            wrong, tied = differences(outputs, want, index, tolerance)
            what += ", noisy" if not wrong else ""
        ties += tied
        if wrong:
            return what, f"sequence {index}: {wrong}", ties
    return what, packed_is_the_same(rng, directory, model, options) if checkpoint.chance(rng, 0.25) else None, ties


def test_random_checkpoints(tmp_path, capsys):
    torch.set_num_threads(1)
    kinds, failures, ties = collections.Counter(), [], 0
    for seed in range(SEED, SEED + COUNT):
        directory = tmp_path / str(seed)
        what, wrong, tied = check(seed, directory)
        ties += tied
        kinds.update(word.strip() for word in what.split(","))
        if wrong:
            with capsys.disabled():
                print(f"\nseed {seed}: {what}: {wrong}")
            if not failures and "CADRE_KEEP" in os.environ:
                shutil.copytree(directory, os.environ["CADRE_KEEP"], dirs_exist_ok=True)
            failures.append(f"seed {seed}: {what}: {wrong}")
        shutil.rmtree(directory)
    with capsys.disabled():
        print(f"\n{COUNT} checkpoints, seeds {SEED} to {SEED + COUNT - 1}: {len(failures)} differ; {ties} ties of experts; " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    assert not failures, "\n".join(failures[:20])
