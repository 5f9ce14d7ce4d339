#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the corpus from Debian packages: fetches them with apt-get (none is installed), extracts text, writes one JSON-lines file of documents per domain.

usage: corpus.py WORK [--heldout DIR]

packages.csv says which packages, their versions and licences, and which of their files. WORK/corpus/DOMAIN.jsonl is training text, --heldout DIR gets a
text file of at most 24 KB a domain from packages that are not trained on, with their copyright files.
"""
import argparse
import csv
import functools
import gzip
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT_BYTES_MIN, DOCUMENT_BYTES_MAX = 400, 100_000
DOMAIN_BYTES_MAX = {'en': 48_000_000}       # others:
DOMAIN_BYTES_MAX_OTHER = 10_000_000
HELDOUT_BYTES_MAX, HELDOUT_DOCUMENT_BYTES_MAX = 24_000, 8_000
# What a document of a language has more of than of English, so that untranslated pages stay out.
LANGUAGE_WORDS = {'de': r'\b(?:der|die|das|und|nicht|ist|wird|mit|von)\b', 'fr': r'\b(?:le|la|les|des|est|une|pour|dans|que)\b', 'ru': r'[а-яё]{2,}', 'ja': r'[\u3040-\u30ff]{2,}'}
ENGLISH_WORDS = r'\b(?:the|of|and|is|to|with|for|that|this)\b'


def packages():
    with open(HERE / 'packages.csv', newline='') as f:
        return list(csv.DictReader(f))


@functools.cache
def unpack(work, package, version):
    """The files of a package, in a folder. Nothing is installed, no script of the package runs."""
    root = work / 'packages' / package
    if root.exists():
        return root
    debs = work / 'debs'
    root.parent.mkdir(parents=True, exist_ok=True)
    debs.mkdir(parents=True, exist_ok=True)
    run = subprocess.run(['apt-get', 'download', '-q', f'{package}={version}'], cwd=debs, capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f'{package} {version} cannot be downloaded: {run.stderr.strip()}\nRun apt-get update; '
                         f'if Debian has moved on to another version, take this one from snapshot.debian.org, or change packages.csv and expect other figures.')
    deb, = debs.glob(f'{package}_*.deb')
    subprocess.run(['dpkg-deb', '-x', deb, f'{root}.new'], check=True)
    pathlib.Path(f'{root}.new').rename(root)
    return root


def find_files(root, patterns):
    """Yields the files of patterns; 'ARCHIVE!PATTERN' looks into a tar file."""
    for pattern in patterns.split():
        outer, bang, inner = pattern.partition('!')
        for path in sorted(root.glob(outer)):
            if not bang:
                if path.is_file() and not path.is_symlink():
                    yield path
                continue
            unpacked = path.with_name(path.name + '.unpacked')
            if not unpacked.exists():
                new = path.with_name(path.name + '.new')
                new.mkdir(exist_ok=True)
                subprocess.run(['tar', '-xf', path, '-C', new], check=True)
                new.rename(unpacked)
            yield from (p for p in sorted(unpacked.glob(inner)) if p.is_file() and not p.is_symlink())


class Html(html.parser.HTMLParser):
    """The text of a page: blocks become paragraphs, what is preformatted stays as it is."""
    SKIP = {'script', 'style', 'head', 'nav', 'footer', 'svg', 'button'}
    BLOCK = {'p', 'div', 'li', 'dt', 'dd', 'h1', 'h2', 'h3', 'h4', 'h5', 'tr', 'table', 'ul', 'ol', 'dl', 'pre', 'blockquote', 'section'}

    def __init__(self, sphinx):
        super().__init__(convert_charrefs=True)
        self.sphinx, self.parts, self.skip, self.pre, self.divs = sphinx, [], 0, 0, []

    def handle_starttag(self, tag, attrs):
        self.skip += tag in self.SKIP
        if tag == 'div':                                 # Sphinx marks what leads to other pages, and puts a sign behind headings
            self.divs.append(self.sphinx and ('role', 'navigation') in attrs)
            self.skip += self.divs[-1]
        self.pre += tag == 'pre'
        if tag in self.BLOCK:
            self.parts.append('\n\n' if tag not in ('li', 'dt', 'dd', 'tr') else '\n')
        elif tag in ('br', 'td', 'th'):
            self.parts.append('\n' if tag == 'br' else ' ')

    def handle_endtag(self, tag):
        self.skip -= tag in self.SKIP and self.skip > 0
        if tag == 'div' and self.divs:
            self.skip -= self.divs.pop()
        self.pre -= tag == 'pre' and self.pre > 0
        if tag in self.BLOCK:
            self.parts.append('\n\n' if tag not in ('li', 'dt', 'dd', 'tr') else '\n')

    def handle_data(self, data):
        if not self.skip:
            self.parts.append(data if self.pre else re.sub(r'\s+', ' ', data.replace('¶', '') if self.sphinx else data))


def text_of_html(raw, sphinx=False):
    parser = Html(sphinx)
    parser.feed(raw)
    return '\n'.join(line.strip() if not line.startswith('    ') else line for line in ''.join(parser.parts).split('\n'))


def text_of_pod(raw):
    raw = re.sub(r'^=(?:cut|pod|over.*|back|encoding.*|for.*|begin.*|end.*)$', '', raw, flags=re.M)
    raw = re.sub(r'^=(?:head\d|item)\s*', '', raw, flags=re.M)
    for _ in range(3):
        raw = re.sub(r'\b[BCIFSLXEZ]<([^<>|]*\|)?([^<>]*)>', r'\2', raw)
    return raw


ROFF_ESCAPES = [(r'\\f(?:\[\w*\]|\(..|.)', ''), (r'\\s[-+]?\d', ''), (r'\\[&|^/,)%]', ''), (r'\\\((?:em|en|hy)', '-'), (r'\\\((?:lq|rq|dq)', '"'), (r'\\\((?:oq|cq|aq)', "'"),
                (r'\\\[(?:lq|rq|dq|Fo|Fc)\]', '"'), (r'\\\[(?:oq|cq|aq)\]', "'"), (r'\\\[(?:em|en|hy)\]', '-'), (r'\\\(co', '©'), (r'\\\(bu', '*'), (r'\\-', '-'), (r'\\e', r'\\'),
                (r'\\[ ~0]', ' '), (r'\\\[u([0-9A-F]{4})\]', lambda m: chr(int(m[1], 16))), (r'\\\[[^]]*\]|\\\(..|\\\*.|\\".*', ''), (r'\\(.)', r'\1')]


def text_of_roff(raw):
    """A man page as running text: macros go, their words stay."""
    lines, skip = [], False
    for line in raw.split('\n'):
        if re.match(r"[.'](?:de|TS|ig|ds|EQ)\b", line):
            skip = True
        if skip:
            skip = not re.match(r'[.\'](?:\.|TE|ds|EN)', line)
            continue
        if line.startswith(('.', "'")):
            macro, _, words = line[1:].strip().partition(' ')
            if macro in ('SH', 'SS', 'PP', 'P', 'LP', 'TP', 'IP', 'HP', 'RS', 'RE', 'sp'):
                lines.append('')
            if macro in ('SH', 'SS', 'B', 'I', 'BR', 'IR', 'BI', 'IB', 'RB', 'RI', 'SM', 'SB'):
                alternate = macro in ('BR', 'IR', 'BI', 'IB', 'RB', 'RI')
                pieces = re.findall(r'"([^"]*)"|(\S+)', words)
                lines.append(('' if alternate else ' ').join(a or b for a, b in pieces))
            continue
        lines.append(line)
    text = '\n'.join(lines)
    for pattern, to in ROFF_ESCAPES:
        text = re.sub(pattern, to, text)
    return text


def drop_comment_header(raw):
    """Licence texts at the top of sources would be most of what a model learns of short files."""
    return re.sub(r'\A(?:\s*(?:/\*.*?\*/|(?://|--|#)[^\n]*\n))+', '', raw, count=1, flags=re.S) if re.search(r'copyright|licen[sc]e', raw[:2000], re.I) else raw


CONVERT = {'html': text_of_html, 'sphinx': functools.partial(text_of_html, sphinx=True), 'pod': text_of_pod, 'roff-text': text_of_roff, 'code': drop_comment_header, 'text': str, 'roff': str}


def read(path, kind):
    raw = path.read_bytes()
    if raw[:2] == b'\x1f\x8b':
        raw = gzip.decompress(raw)
    try:
        text = CONVERT[kind](raw.decode('utf-8').replace('\r\n', '\n'))
    except UnicodeDecodeError:
        return ''
    text = re.sub(r'[ \t\u3000]+$', '', text, flags=re.M)
    return re.sub(r'\n{3,}', '\n\n', text).strip('\n') + '\n'


def in_language(text, domain):
    return domain not in LANGUAGE_WORDS or len(re.findall(LANGUAGE_WORDS[domain], text, re.I)) > 3 * len(re.findall(ENGLISH_WORDS, text, re.I))


def translated(text, domain):
    """Without the paragraphs that were left in English."""
    if domain not in LANGUAGE_WORDS:
        return text
    return '\n\n'.join(p for p in text.split('\n\n') if len(re.findall(ENGLISH_WORDS, p, re.I)) <= len(re.findall(LANGUAGE_WORDS[domain], p, re.I)))


def documents(work, rows):
    """(source, text) of the rows, each text once, in an order that depends on the names alone and mixes the packages."""
    found, seen = [], set()
    for row in rows:
        root = unpack(work, row['package'], row['version'])
        for path in find_files(root, row['files']):
            name = f"{row['package']}:{path.relative_to(root)}"
            found.append((hashlib.sha256(name.encode()).digest(), name, path, row))
    for _, name, path, row in sorted(found, key=lambda f: f[0]):
        text = read(path, row['kind'])
        if row['split'] == 'heldout':
            text = translated(text, row['domain'])
        digest = hashlib.sha256(text.encode()).digest()
        if DOCUMENT_BYTES_MIN <= len(text.encode()) and digest not in seen and in_language(text, row['domain']):
            seen.add(digest)
            yield name, text


def cut(text, bytes_max):
    """The beginning of a text, up to the last paragraph that fits."""
    if len(text.encode()) <= bytes_max:
        return text
    text = text.encode()[:bytes_max].decode('utf-8', 'ignore')
    return text[:max(text.rfind('\n\n'), text.rfind('\n', 0, -1)) + 1]


def write_training(work, domain, rows):
    directory = work / 'corpus'
    directory.mkdir(parents=True, exist_ok=True)
    out_path = directory / f'{domain}.jsonl'
    if out_path.exists():
        return
    size, count, limit = 0, 0, DOMAIN_BYTES_MAX.get(domain, DOMAIN_BYTES_MAX_OTHER)
    by_package = {}
    with open(f'{out_path}.new', 'w') as out:
        for name, text in documents(work, rows):
            text = cut(text, DOCUMENT_BYTES_MAX)
            n = len(text.encode())
            if size + n > limit:
                break
            size, count = size + n, count + 1
            package = name.partition(':')[0]
            by_package[package] = by_package.get(package, 0) + n
            out.write(json.dumps({'source': name, 'text': text}, ensure_ascii=False) + '\n')
    pathlib.Path(f'{out_path}.new').rename(out_path)
    shares = ', '.join(f'{p} {n / 1e6:.2f}' for p, n in sorted(by_package.items(), key=lambda i: -i[1]))
    print(f'{domain}: {count} documents, {size / 1e6:.2f} MB ({shares})', flush=True)
    (directory / f'{domain}.packages.json').write_text(json.dumps({'bytes': size, 'documents': count, 'packages': by_package}))


def write_heldout(work, domain, rows, directory):
    directory.mkdir(parents=True, exist_ok=True)
    texts, size = [], 0
    for name, text in documents(work, rows):
        text = cut(text, min(HELDOUT_DOCUMENT_BYTES_MAX, HELDOUT_BYTES_MAX - size))
        if len(text.encode()) >= DOCUMENT_BYTES_MIN:
            texts.append(text)
            size += len(text.encode())
    # A form feed stands between documents.
    (directory / f'{domain}.txt').write_text('\f'.join(texts))
    copyright_file = unpack(work, rows[0]['package'], rows[0]['version']) / 'usr/share/doc' / rows[0]['package'] / 'copyright'
    if copyright_file.is_file():
        shutil.copyfile(copyright_file, directory / f'{domain}.copyright')
    print(f"{domain}: {len(texts)} held-out documents, {size} bytes, of {rows[0]['package']}; copyright file {'found' if copyright_file.is_file() else 'MISSING'}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=pathlib.Path)
    parser.add_argument('--heldout', type=pathlib.Path)
    a = parser.parse_args()
    rows = packages()
    for domain in dict.fromkeys(row['domain'] for row in rows):
        write_training(a.work, domain, [r for r in rows if r['domain'] == domain and r['split'] == 'train'])
        if a.heldout:
            write_heldout(a.work, domain, [r for r in rows if r['domain'] == domain and r['split'] == 'heldout'], a.heldout)


if __name__ == '__main__':
    main()
