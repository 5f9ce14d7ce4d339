#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Quantises a GGUF file by llama.cpp's own rules.

usage: quantise.py FROM TO q8_0|q4_0
"""
import sys

import llama_cpp

TYPES = {'q8_0': llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, 'q4_0': llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def main():
    if len(sys.argv) != 4 or sys.argv[3] not in TYPES:
        sys.exit(__doc__)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = TYPES[sys.argv[3]]
    status = llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), options)
    if status != 0:
        sys.exit(f'{sys.argv[1]} cannot be quantised to {sys.argv[3]}: llama.cpp says {status}')


if __name__ == '__main__':
    main()
