#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes common/tokenizer/unicode_data.h: what the `tokenizers` library takes characters for.

The library is built from parts that each carry a Unicode version of their own (its regular expressions, normal forms, \\w, punctuation, case), none of
them that of PCRE2 or utf8proc. This asks the library about every character, and writes down either the whole class or how it differs.

    pip install tokenizers unicodedata2
    python3.11 tests/tokenizers/unicode_tables.py > common/tokenizer/unicode_data.h

It must run under a Python whose unicodedata is Unicode 14.0, which is what PCRE2 10.42 knows (Debian 12 has both)."""
import sys
import unicodedata

import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

CHARACTERS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
UNASSIGNED = "\u0378"


def ranges(members):
    found = []
    for c in sorted(members):
        if found and c == found[-1][1] + 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def isolated_by(pre_tokenizer):
    return {c for c in CHARACTERS if len(pre_tokenizer.pre_tokenize_str(UNASSIGNED + chr(c) + UNASSIGNED)) > 1}


def category(name):
    members = set()
    split = pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed", invert=True)
    for i in range(0, len(CHARACTERS), 4096):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, CHARACTERS[i:i + 4096]))):
            members.update(map(ord, piece))
    return members


def moves(nfd, s):
    """Whether s has a combining class of its own: then one of these is put in order."""
    return any(nfd.normalize_str(text) != text for text in ("a" + s + "\u0334", "a\u0345" + s))


def unstable():
    """Characters that NFC may change, move, or join to what stands before them."""
    nfc, nfd = normalizers.NFC(), normalizers.NFD()
    members = {c for c in CHARACTERS if nfc.normalize_str(chr(c)) != chr(c) or moves(nfd, chr(c))}
    members.update(range(0x1161, 0x1176))
    members.update(range(0x11A8, 0x11C3))
    for c in CHARACTERS:
        parts = nfd.normalize_str(chr(c))
        if len(parts) > 1:
            members.add(ord(parts[-1]))
    # a decomposition that decomposes further: the last step is what joins
    members.update(int(p[1], 16) for p in (unicodedata2.decomposition(chr(c)).split() for c in CHARACTERS) if len(p) == 2 and not p[0].startswith("<"))
    members = {c for c in members if c >= 0x300}
    return members - inert()


def inert():
    """Characters that newer normal forms know as marks, decompose or compose, and the library's do not."""
    nfc, nfd, nfkd = normalizers.NFC(), normalizers.NFD(), normalizers.NFKD()
    members = set()
    for c in CHARACTERS:
        s = chr(c)
        if unicodedata2.combining(s) != 0 and not moves(nfd, s) and nfd.normalize_str(s) == s:
            members.add(c)
        if nfkd.normalize_str(s) != unicodedata2.normalize("NFKD", s):
            members.add(c)
        parts = unicodedata2.decomposition(s).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pair = "".join(chr(int(p, 16)) for p in parts)
            if nfc.normalize_str(pair) != unicodedata2.normalize("NFC", pair):
                members.add(ord(pair[0]))
    return members


def lowercase():
    """(first, last, what to add) where the simple lower case of Unicode 14 is not the library's; U+0130 is in the code."""
    lower, found = normalizers.Lowercase(), []
    for c in CHARACTERS:
        s = lower.normalize_str(chr(c))
        if c == 0x130 or s == chr(c) or s == chr(c).lower():
            continue
        assert len(s) == 1
        if found and found[-1][1] == c - 1 and found[-1][2] == ord(s) - c:
            found[-1][1] = c
        else:
            found.append([c, c, ord(s) - c])
    return found


def print_list(items):
    line = "\t"
    for item in items:
        if len(line) + len(item) > 108:
            print(line.rstrip())
            line = "\t"
        line += item + " "
    print(line.rstrip())


def print_ranges(name, members):
    print(f"\nstatic const struct unicode_range {name}[] = {{")
    print_list("{ 0x%x, 0x%x }," % (a, b) for a, b in ranges(members))
    print("};")


def print_additions():
    print("\n/* What the library's regular expressions count to a general category and PCRE2 10.42 does not,")
    print(" * as it stands in a character class. */")
    print("static const struct { const char *category, *more; } unicode_additions[] = {")
    for name in ("L Lu Ll Lt Lm Lo M Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp Cc Cf Co").split():
        members = category(name)
        ours = {c for c in CHARACTERS if unicodedata.category(chr(c)).startswith(name)}
        if not ours <= members:
            sys.exit(f"category {name} has lost characters: it cannot be written as an addition")
        parts = ["\\\\x{%x}" % a if a == b else "\\\\x{%x}-\\\\x{%x}" % (a, b) for a, b in ranges(members - ours)]
        print(f'\t{{ "{name}",')
        for i in range(0, max(len(parts), 1), 6):
            print(f'\t  "{"".join(parts[i:i + 6])}"' + ("" if i + 6 < len(parts) else " },"))
    print("};")


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}: 14.0.0 is needed (Python 3.11)")
    print("/* SPDX-License-Identifier: Apache-2.0 AND Unicode-3.0 */")
    print(f"/* Written by tests/tokenizers/unicode_tables.py from tokenizers {tokenizers.__version__}:")
    print(" * what that library takes characters for. */")
    print("/* clang-format off */")
    print("struct unicode_range {\n\tunsigned int first, last;\n};")
    print("\n/* A number for Digits. */", end="")
    print_ranges("unicode_numbers", isolated_by(pre_tokenizers.Digits(individual_digits=True)))
    print("\n/* Punctuation. */", end="")
    print_ranges("unicode_punctuation", isolated_by(pre_tokenizers.Punctuation()))
    words = pre_tokenizers.Whitespace()
    print("\n/* \\w */", end="")
    print_ranges("unicode_words", {c for c in CHARACTERS if len(words.pre_tokenize_str("a" + chr(c) + "a")) == 1})
    print("\n/* Normal forms leave these as they are, and nothing moves or composes across them. */", end="")
    print_ranges("unicode_inert", inert())
    print("\n/* NFC may change these, move them, or join them to what stands before them. None is below U+0300. */", end="")
    print_ranges("unicode_unstable", unstable())
    print("\n/* Lower case that utf8proc may not know yet. */")
    print("static const struct { unsigned int first, last; int add; } unicode_lowercase[] = {")
    print_list("{ 0x%x, 0x%x, %d }," % (a, b, add) for a, b, add in lowercase())
    print("};")
    print_additions()


if __name__ == "__main__":
    main()
