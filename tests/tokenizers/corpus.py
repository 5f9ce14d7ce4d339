#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A large and nasty corpus of texts, the same on every machine: corpus.py COUNT FILE.jsonl [SPECIAL ...]

Every script that Unicode has, combining marks in any order, emoji sequences, whitespace of all kinds, numbers, code, control characters and NUL, runs of one
thing, added tokens spelled out whole, cut short and glued to their neighbours, and all of these mixed."""
import json
import random
import sys

SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\v", "\f", "\x1c", "\x1f", "\x85", "\u00a0", "\u1680", "\u180e", "\u2000", "\u2003", "\u2009",
          "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff"]
WORDS = ("the of and to in is that for it was with as his on be at by I this had not are but from or have an they which one you were all her she there would their we him "
         "been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over "
         "such our man me even most made after also did many off before must well back through years where much your way down should because long each just state those people "
         "too Mr good very make world still see own men work here life being both between under us never day same another know while last might great old year come since go "
         "against right came take used himself few house use during without again place American around however home small found Mrs thought went say part once general high "
         "upon school every don't can't it's we'll they've I'm you're he'd O'Neill 'S 'T DON'T WE'LL iPhone JSONParser camelCase snake_case SCREAMING_CASE").split()
SENTENCES = [
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.", "素早い茶色の狐はのろまな犬を飛び越える。ｶﾀｶﾅ", "敏捷的棕色狐狸跳过了懒狗。繁體中文測試，標點「」！", "빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول", "השועל החום המהיר קופץ מעל הכלב העצלן", "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है", "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το σκυλί", "Świeży żółw ściga się z źrebięciem", "Çevik kahverengi tilki, İSTANBUL ıI", "Đi một ngày đàng học một sàng khôn", "သွက်လက်သော မြေခွေး",
    "ቀልጣፋው ቡናማ ቀበሮ", "ბრაუნი მელა", "Արագ դարչնագույն աղվեսը", "ខ្មែរ ភាសា", "ཁམས་བཟང་།", "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 ℌ𝔢𝔩𝔩𝔬", "ﬁ ﬂ ﬀ ﬃ ẞ ß ŉ ſ K Å Ω", "１２３４ ＡＢＣ ㌔ ㎏ ½ Ⅷ ² ₃ ①"]
CODE = [
    "def f(x: int) -> int:\n    return x ** 2  # square\n\n\nclass A(B):\n\tpass\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]*c; }\r\n", "SELECT * FROM t WHERE a='it''s' AND b<>0;--\n",
    "<div class=\"x\">\n        <p>&nbsp;&amp;</p>\n</div>", "{\"k\": [1, 2.5e-10, null, true], \"\\u00e9\": \"\\n\"}", "https://example.org/a/b?c=d&e=%20#f user@example.com C:\\dir\\file.txt",
    "#include <stdio.h>\nint main(void){printf(\"%d\\n\",42);}", "$ curl -s http://127.0.0.1:8080 | jq '.[] | {a, b}'", "\\frac{a}{b} \\int_0^\\infty e^{-x^2}dx = \\frac{\\sqrt{\\pi}}{2}",
    "0x7fff_ffff 0b1010 1'000'000 3.14159265358979 1,234,567.89 12345678901234567890 ١٢٣ १२३ 一二三", "a+=b--c!=d&&e||!f;g?.h??i=>j::k<<l>>m~n^o%p@q`r", "....!!!???---___***///\\\\\\|||"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏴‍☠️", "🏳️‍🌈", "🇩🇪🇫🇷🇯🇵", "1️⃣", "☃️", "☃", "❤️‍🔥", "🧑🏿‍🚀", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "™️", "\U0001fae8", "\U0001f979"]
MARKS = [chr(c) for c in (0x300, 0x301, 0x302, 0x308, 0x30a, 0x316, 0x321, 0x323, 0x327, 0x328, 0x331, 0x334, 0x335, 0x338, 0x345, 0x360, 0x36f, 0x5b0, 0x5c1, 0x64b, 0x651, 0x670, 0x6dc,
                                 0x93c, 0x94d, 0x9bc, 0x9be, 0x9d7, 0xb3e, 0xb57, 0xdca, 0xdcf, 0xe38, 0xe48, 0xf71, 0xf72, 0xf74, 0x1037, 0x1161, 0x1175, 0x11a8, 0x11c2, 0x135d,
                                 0x1ab0, 0x1dc0, 0x20d0, 0x20e3, 0x3099, 0x309a, 0xfe0e, 0xfe0f, 0xfe20, 0x1d165, 0x1d16e, 0x1e8d0, 0xe0100, 0x7fd, 0x9fe, 0x897, 0x1abf, 0x10d24, 0x16ff0)]
BASES = [chr(c) for c in (0x41, 0x61, 0x65, 0x6f, 0x3c, 0x3d, 0xc4, 0xe9, 0x130, 0x131, 0x1ea5, 0x212b, 0x2126, 0x1e9b, 0x344, 0x374, 0x37e, 0x387, 0x958, 0x9c7, 0xb47, 0xdd9, 0xf43, 0x1025,
                                 0x1100, 0x1112, 0xac00, 0xac01, 0xd7a3, 0x304b, 0x30ab, 0xf900, 0xfa1a, 0x2f800, 0xfb1d, 0xfb2c, 0x1d15e, 0x1109a, 0x114b9, 0x11935, 0x11938, 0x105d2)]


def any_character(rng):
    while True:
        c = rng.choice((rng.randrange(0x80), rng.randrange(0x100), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x20000), rng.randrange(0x110000)))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def block(rng):
    """Neighbours in the code chart: assigned or not, of one script mostly."""
    start = rng.choice((rng.randrange(0x3000), rng.randrange(0x11000), rng.randrange(0x10000, 0x1FB00), rng.randrange(0x20000, 0x33000)))
    return "".join(chr(c) for c in (start + rng.randrange(64) for _ in range(rng.randrange(1, 30))) if not 0xD800 <= c < 0xE000)


def marked(rng):
    return "".join(rng.choice(BASES) + "".join(rng.choice(MARKS) for _ in range(rng.choice((0, 1, 1, 2, 3, 8)))) for _ in range(rng.randrange(1, 8)))


def run(rng):
    unit = rng.choice(("a", "A", "ab", " ", "\n", "\t", " \n", "0", "12", "é", "e\u0301", "中", "ア", "😀", "-", "=", "'", "'s", "\u0301", "\x00", "\u200d", "\ufffd", "▁", "Ġ", "ß", any_character(rng)))
    return unit * rng.choice((2, 3, 7, 16, 17, 31, 64, 200))


def special(rng, specials):
    token = rng.choice(specials)
    kind = rng.randrange(6)
    if kind == 0:
        return token[:rng.randrange(len(token) + 1)]
    if kind == 1:
        return token[rng.randrange(len(token)):]
    if kind == 2:
        return rng.choice(WORDS) + token + rng.choice(WORDS)
    if kind == 3:
        return rng.choice(SPACES) + token + rng.choice(SPACES)
    return token * rng.choice((1, 1, 2))


def piece(rng, specials):
    kind = rng.randrange(14)
    if kind < 4:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 12)))
    if kind == 4:
        return rng.choice(SENTENCES)
    if kind == 5:
        return rng.choice(CODE)
    if kind == 6:
        return rng.choice(EMOJI) * rng.choice((1, 1, 3))
    if kind == 7:
        return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 6)))
    if kind == 8:
        return marked(rng)
    if kind == 9:
        return run(rng)
    if kind == 10:
        return block(rng)
    if kind == 11:
        return "".join(any_character(rng) for _ in range(rng.randrange(1, 12)))
    if kind == 12:
        return str(rng.randrange(10 ** rng.randrange(1, 25)))
    return special(rng, specials)


def texts(count, specials=("<s>", "</s>", "<unk>", "<|endoftext|>")):
    rng = random.Random(20240611)
    yield from ("", " ", "\n", "a", "\x00", "▁", "Ġ", "\ufeff", "\ud7ff", "\ue000", "\uffff", "\U0010ffff", " a", "a ")[:count]
    for _ in range(count - 14):
        joint = rng.choice(("", "", " ", rng.choice(SPACES)))
        yield joint.join(piece(rng, specials) for _ in range(rng.choice((1, 1, 2, 3, 5, 10))))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with open(sys.argv[2], "w") as out:
        for text in texts(int(sys.argv[1]), sys.argv[3:] or ("<s>", "</s>")):
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
