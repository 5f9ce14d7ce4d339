#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the byte-level BPE on the corpus and turns the corpus into token ids.

usage: tokenizer.py WORK

Writes WORK/tokenizer/ (Hugging Face layout) and WORK/tokens/DOMAIN.npy (uint16; an end-of-text token before each document).
"""
import argparse
import json
import math
import pathlib

import numpy
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import mixture

VOCAB, END_OF_TEXT = 4096, '<|endoftext|>'
SAMPLE_BYTES = 12_000_000
PACKAGE_BYTES_MAX = {'en': 3_000_000}        # of tokens to train on: English is to be no kernel manual
# The pattern that Qwen publishes: words with one space before them, digits alone, runs of spaces up to the last.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def documents(path):
    with open(path) as f:
        for line in f:
            document = json.loads(line)
            yield document['source'], document['text']


def sample(work):
    """The beginning of each domain, as much of it as the mixture says."""
    for domain, share in mixture.SHARES.items():
        left = int(SAMPLE_BYTES * share)
        for _, text in documents(work / 'corpus' / f'{domain}.jsonl'):
            yield text
            left -= len(text.encode())
            if left < 0:
                break


def train(work):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(PATTERN), 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END_OF_TEXT], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(sample(work), trainer)
    directory = work / 'tokenizer'
    directory.mkdir(exist_ok=True)
    config = {'tokenizer_class': 'PreTrainedTokenizerFast', 'bos_token': None, 'eos_token': END_OF_TEXT, 'add_bos_token': False, 'model_max_length': 2048, 'clean_up_tokenization_spaces': False}
    (directory / 'tokenizer_config.json').write_text(json.dumps(config, indent=2) + '\n')
    tokenizer.save(str(directory / 'tokenizer.json'))


def encode(work, domain):
    tokenizer = tokenizers.Tokenizer.from_file(str(work / 'tokenizer/tokenizer.json'))
    end, parts, batch = tokenizer.token_to_id(END_OF_TEXT), [], []

    def flush():
        for encoding in tokenizer.encode_batch(batch):
            parts.append(numpy.array([end] + encoding.ids, dtype=numpy.uint16))
        batch.clear()

    sizes = {}
    for source, text in documents(work / 'corpus' / f'{domain}.jsonl'):
        package, n = source.partition(':')[0], len(text.encode())
        if sizes.get(package, 0) + n > PACKAGE_BYTES_MAX.get(domain, math.inf):
            continue
        sizes[package] = sizes.get(package, 0) + n
        batch.append(text)
        if len(batch) == 64:
            flush()
    flush()
    (work / 'tokens').mkdir(exist_ok=True)
    tokens = numpy.concatenate(parts)
    numpy.save(work / 'tokens' / f'{domain}.npy', tokens)
    print(f'{domain}: {len(tokens) / 1e6:.2f} M tokens, {sum(sizes.values()) / len(tokens):.2f} bytes a token', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=pathlib.Path)
    work = parser.parse_args().work
    if not (work / 'tokenizer/tokenizer.json').exists():
        train(work)
    for domain in mixture.SHARES:
        if not (work / 'tokens' / f'{domain}.npy').exists():
            encode(work, domain)


if __name__ == '__main__':
    main()
