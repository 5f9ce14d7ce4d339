#!/usr/bin/env python3
"""Records the routing of a model on texts: tokens in pieces, through `cadrectl eval`, into a trace.

    record.py --model DIR --output T.ctr [--piece 256] [--seed 1] TEXT...

Every piece of a text becomes a request. Pieces come in random order, so that both halves of the trace have some of every text.
"""
import argparse
import json
import pathlib
import random
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
AT_ONCE = 32      # sequences; eval keeps all their logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', type=pathlib.Path, required=True)
    parser.add_argument('--output', required=True)
    parser.add_argument('--piece', type=int, default=256, help='tokens')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--cadrectl', default=ROOT / 'build' / 'bin' / 'cadrectl')
    parser.add_argument('texts', type=pathlib.Path, nargs='+')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)

        def cadrectl(*command):
            subprocess.run([arguments.cadrectl, *command], check=True, stdout=subprocess.DEVNULL)

        (folder / 'texts').write_text(''.join(json.dumps({'text': path.read_text(encoding='utf-8')}) + '\n' for path in arguments.texts), encoding='utf-8')
        cadrectl('tokenize', '--tokenizer', arguments.model / 'tokenizer.json', '--input', folder / 'texts', '--output', folder / 'ids')
        pieces = []
        for line in (folder / 'ids').read_text(encoding='utf-8').splitlines():
            ids = json.loads(line)['ids']
            pieces += [ids[begin:begin + arguments.piece] for begin in range(0, len(ids), arguments.piece)]
        random.Random(arguments.seed).shuffle(pieces)
        outputs = []
        for begin in range(0, len(pieces), AT_ONCE):
            outputs.append(folder / f'{begin:09}.ctr')
            (folder / 'sequences').write_text(json.dumps({'sequences': pieces[begin:begin + AT_ONCE], 'greedy_tokens': 0}))
            cadrectl('eval', '--model', arguments.model, '--input', folder / 'sequences', '--output', folder / 'out')
            cadrectl('trace', 'import', folder / 'out', '--output', outputs[-1])      # small: the logits stay behind
        subprocess.run([arguments.cadrectl, 'trace', 'import', *outputs, '--output', arguments.output, '--model', arguments.model.resolve().name, '--provenance',
                        f'{len(pieces)} pieces of {arguments.piece} tokens of {", ".join(path.name for path in arguments.texts)}'], check=True)


if __name__ == '__main__':
    main()
