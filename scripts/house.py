#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the house looks like from outside: its include graph, and the shape of its text.

    scripts/house.py graph [--folder F] [--uses] [--dot]   who includes whom: in the whole house, or inside a folder
    scripts/house.py statistics                            functions, widths, blank and comment lines: code and tests

--root DIR reads another checkout, so that two of them can be compared. The words of the graph: a *room* is a folder
(of the whole house: the top-level ones; inside a folder: its subfolders, and its files, x.c and x.h being one room);
an *arrow* leads from the room that includes to the one that is included; *floors* are the longest layering;
an arrow runs *up* when it goes against the order that LAYERS declares or, where none is declared, when it is one of the
fewest that must go to leave no circle; a *circle* is a set of rooms each of which reaches every other.

tests/rules.py reads the tree through this file.
"""
import argparse
import functools
import os
import re
import subprocess
import sys

# A folder includes what stands above it in this list, and itself; folders of one line do not include each other.
LAYERS = (
    ("proto",),
    ("common/base",),
    ("common/process",),
    ("common/rpc", "common/transport", "common/model", "common/tokenizer"),
    ("common/cluster",),
    ("kernels", "orchestration/planner"),
    ("router-svc", "expert-svc", "orchestration/placement"),
    ("embedded",),
    ("orchestration/cli",),
    ("tests",),
    ("bench",),
)

# What may run up all the same, and why: (file, folder) -> reason.
UP_ALLOWED = {
    ("router-svc/main.c", "embedded"): "cadre-router --local-experts is the embedded form; only the program's wiring knows it",
}

TAB = 8
SOURCES = (".c", ".h", ".cc", ".cu", ".S")

# ---- the tree ----

TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
INCLUDE = re.compile(r'\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)')
ATTRIBUTE = re.compile(r"\b(?:__attribute__|__declspec|[A-Z][A-Z0-9_]*)\s*\(+[^()]*(?:\([^()]*\)[^()]*)*\)+")
DECLARED = re.compile(r"\b([A-Za-z_]\w*)\s*\((?!\s*\*)")
ONE_LINE_FUNCTION = re.compile(r"[A-Za-z_][^=;{]*\)\s*\{.*\}\s*$")


def blanked(text):
    """The text with all but its line ends gone."""
    return re.sub(r"[^\n]", " ", text)


class Source:
    """One file, its lines numbered from 1 in what is handed out."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.lines = text.split("\n")
        if self.lines and self.lines[-1] == "":
            self.lines.pop()

    @functools.cached_property
    def code(self):
        """The text without comments and without what stands in string literals: only code and line ends are left."""
        def strip(match):
            token = match.group(0)
            return blanked(token) if token[0] == "/" else token[0] + " " * (len(token) - 2) + token[-1]
        return TOKEN.sub(strip, self.text)

    @functools.cached_property
    def code_lines(self):
        return self.code.split("\n")[:len(self.lines)]

    @functools.cached_property
    def comment_only(self):
        """For each line: does it hold a comment and nothing else?"""
        return [bool(line.strip()) and not code.strip() for line, code in zip(self.lines, self.code_lines)]

    @functools.cached_property
    def narrow_lines(self):
        """The lines without what stands in string literals; comments stay."""
        strip = lambda match: match.group(0) if match.group(0)[0] == "/" else match.group(0)[0] * 2
        return TOKEN.sub(strip, self.text).split("\n")[:len(self.lines)]

    @functools.cached_property
    def includes(self):
        """(line, name, is it in quotes) of each #include."""
        found = []
        for number, line in enumerate(self.lines, 1):
            match = INCLUDE.match(line)
            if match:
                found.append((number, match.group(1) or match.group(2), bool(match.group(1))))
        return found

    @functools.cached_property
    def functions(self):
        """Function: its name, what stands before the body, and the lines of the body from { to }."""
        found, lines = [], self.code_lines
        i = 0
        while i < len(lines):
            if lines[i].rstrip() == "{":
                end = i + 1
                while end < len(lines) - 1 and not lines[end].startswith("}"):
                    end += 1
                found.append(Function(head_before(lines, i), i + 1, end + 1))
                i = end
            elif ONE_LINE_FUNCTION.match(lines[i]):
                found.append(Function(lines[i][:lines[i].index("{")], i + 1, i + 1))
            i += 1
        return found


    @functools.cached_property
    def declarations(self):
        """(line, name) of each function that the file declares without a body: at depth 0, up to a semicolon."""
        text = re.sub(r"^[ \t]*#(?:.*\\\n)*.*$", lambda match: blanked(match.group(0)), self.code, flags=re.M)
        found, depth, start = [], 0, 0
        for at, letter in enumerate(text):
            if letter == "{":
                depth += 1
            elif letter == "}":
                depth -= 1
                start = at + 1 if depth == 0 else start
            elif letter == ";" and depth == 0:
                statement = ATTRIBUTE.sub(lambda match: blanked(match.group(0)), text[start:at])
                match = DECLARED.search(statement)
                if match and "=" not in statement and not re.match(r"\s*typedef\b", statement):
                    found.append((text.count("\n", 0, start + match.start(1)) + 1, match.group(1)))
                start = at + 1
        return found


class Function:
    def __init__(self, head, first, last):
        self.head = " ".join(head.split())
        match = re.search(r"\b([A-Za-z_]\w*)\s*\(", self.head)
        self.name = match.group(1) if match else "?"
        self.first, self.last = first, last
        self.length = last - first + 1


def head_before(lines, brace):
    start = brace
    while start > 0 and lines[start - 1].strip() and not re.search(r"[;}]\s*$|^#", lines[start - 1]):
        start -= 1
    return " ".join(lines[start:brace])


def tracked_files(root):
    """Every file of the checkout that git tracks or would; without git, every file outside of build folders."""
    command = ["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, below, files in os.walk(root):
            below[:] = [name for name in below if not name.startswith((".", "build", "run"))]
            names += [os.path.relpath(os.path.join(folder, name), root) for name in files]
    return sorted(name for name in set(names) if os.path.isfile(os.path.join(root, name)))


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return Source(path, file.read())


def sources(root):
    """path -> Source of every C file."""
    return {path: read(root, path) for path in tracked_files(root) if path.endswith(SOURCES)}


def included_file(path, name, exists):
    """The file of the tree that `name`, included by `path`, means; a generated header means its .proto; else None."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    for candidate in (name, beside):
        if exists(candidate):
            return candidate
    if name.endswith(".pb-c.h") and exists("proto/" + name[:-len(".pb-c.h")] + ".proto"):
        return "proto/" + name
    return None


def floor_of(path):
    """(folder, floor) that LAYERS gives a file: of the longest folder it lies in, else of the first one below its own."""
    best = None
    for floor, folders in enumerate(LAYERS):
        for folder in folders:
            if path.startswith(folder + "/") and (best is None or len(folder) > len(best[0])):
                best = (folder, floor)
    if best:
        return best
    top = path.split("/")[0] + "/"
    for floor, folders in enumerate(LAYERS):
        for folder in folders:
            if folder.startswith(top):
                return top[:-1], floor
    return None


def runs_up(path, target):
    """Does an #include of `target` by `path` go against LAYERS?"""
    here, there = floor_of(path), floor_of(target)
    return bool(here and there) and here[0] != there[0] and there[1] >= here[1]


def up_allowed(path, target):
    return UP_ALLOWED.get((path, floor_of(target)[0]))

# ---- graphs ----


def arrows_of(tree, exists):
    """(file, line, included file) of every #include that stays in the house."""
    for path, source in tree.items():
        for line, name, quoted in source.includes:
            target = included_file(path, name, exists) if quoted else None
            if target:
                yield path, line, target


def uses_of(tree):
    """(file, line, defining file) of each use of a function that another file defines: what a shared header hides."""
    declared = {name for path, source in tree.items() if path.endswith(".h") for _, name in source.declarations}
    home = {function.name: path for path, source in tree.items() if path.endswith(".c")
            for function in source.functions if function.name in declared}
    for path, source in tree.items():
        own = {function.name for function in source.functions}
        for number, line in enumerate(source.code_lines, 1) if path.endswith(".c") else []:
            for word in re.findall(r"(?<![\w.>])(?<!struct )(?<!enum )(?<!union )[A-Za-z_]\w*", line):
                if word not in own and home.get(word, path) not in (path, None):
                    yield path, number, home[word]


def room_of(path, folder):
    """The room of `folder` that a file lies in; None outside. The whole house is the folder ''."""
    below = path[len(folder) + 1:] if folder else path
    if folder and not path.startswith(folder + "/"):
        return None
    first, slash, _ = below.partition("/")
    return first + "/" if slash else os.path.splitext(first)[0]


class Graph:
    """The rooms of a folder and the arrows between them."""

    def __init__(self, folder, tree, includes):
        self.folder = folder
        self.rooms = sorted({room_of(path, folder) for path in tree} - {None})
        self.lines = {}   # (from, to) -> [(file, line, included file)]
        for path, line, target in includes:
            here, there = room_of(path, folder), room_of(target, folder)
            if here and there and here != there:
                self.lines.setdefault((here, there), []).append((path, line, target))
                if there not in self.rooms:
                    self.rooms.append(there)
        self.to = {room: sorted(b for a, b in self.lines if a == room) for room in self.rooms}
        self.circles = [circle for circle in components(self.to) if len(circle) > 1]
        self.up = self.against_order()

    def is_declared(self):
        """Does LAYERS know an order of these rooms? It does of the whole house, and of folders that it names rooms of."""
        named = {folder for floor in LAYERS for folder in floor}
        full = (self.folder + "/" + room.rstrip("/") for room in self.rooms)
        return self.folder == "" or all(name in named for name in full)

    def against_order(self):
        """The arrows that run up, each with the #include lines that make it do so."""
        if self.is_declared():
            up = {arrow: [line for line in lines if runs_up(line[0], line[2])] for arrow, lines in self.lines.items()}
            return {arrow: lines for arrow, lines in up.items() if lines}
        up = {}
        for circle in self.circles:
            order = fewest_back_arrows(circle, self.to)
            for a in circle:
                for b in self.to[a]:
                    if b in circle and order.index(b) > order.index(a):
                        up[(a, b)] = self.lines[(a, b)]
        return up

    def floors(self):
        """Floor of each room, from 0: one above the highest that it includes; a circle shares one, unless its up-arrows are known."""
        down = {a: [b for b in targets if (a, b) not in self.up] for a, targets in self.to.items()}
        floor = {}

        def height(room):
            if room not in floor:
                floor[room] = 0   # in a circle that LAYERS allows this stands; elsewhere no circle is left
                floor[room] = max((height(below) + 1 for below in down[room]), default=0)
            return floor[room]
        for room in self.rooms:
            height(room)
        return floor


def components(to):
    """Strongly connected components (Tarjan 1972)."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for target in to[node]:
            if target not in number:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], number[target])
        if low[node] == number[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]
    for node in to:
        if node not in number:
            visit(node)
    return found


def fewest_back_arrows(nodes, to):
    """The order of `nodes`, lowest first, against which the fewest arrows run. Exact up to 14 nodes, beyond by insertion."""
    def cost(placed, node):
        """Arrows of `node` to those that are not below it."""
        return sum(1 for target in to[node] if target in nodes and target not in placed and target != node)

    if len(nodes) > 14:
        order = []
        while len(order) < len(nodes):
            order.append(min((n for n in nodes if n not in order), key=lambda n: (cost(order, n), n)))
        return order
    best = {frozenset(): (0, ())}
    for _ in nodes:
        grown = {}
        for placed, (arrows, order) in best.items():
            for node in nodes:
                if node not in placed:
                    candidate = (arrows + cost(placed, node), order + (node,))
                    key = placed | {node}
                    if key not in grown or candidate < grown[key]:
                        grown[key] = candidate
        best = grown
    return list(best[frozenset(nodes)][1])


def folders_of(tree):
    """The folders with at least two rooms, the whole house first."""
    found = {""}
    for path in tree:
        parts = path.split("/")[:-1]
        found.update("/".join(parts[:i]) for i in range(1, len(parts) + 1))
    return [folder for folder in sorted(found) if len({room_of(p, folder) for p in tree} - {None}) > 1]


def print_graph(graph):
    floor = graph.floors()
    name = graph.folder or "the whole house"
    print(f"{len(graph.rooms):5} {max(floor.values()) + 1:6} {len(graph.lines):6} {len(graph.up):4} {len(graph.circles):7}  {name}")
    for (a, b), lines in sorted(graph.up.items()):
        path, line, target = lines[0]
        why = up_allowed(path, target) if graph.is_declared() else None
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        print(f"{'':34}up: {a} -> {b}  {path}:{line} -> {target}{more}" + (f" (allowed: {why})" if why else ""))
    for circle in graph.circles:
        print(f"{'':34}circle: {' '.join(circle)}")


def print_rooms(graph):
    """Floor by floor, highest first: each room and what it includes."""
    floor = graph.floors()
    for level in range(max(floor.values()), -1, -1):
        for room in sorted(room for room in graph.rooms if floor[room] == level):
            targets = [b + ("^" if (room, b) in graph.up else "") for b in graph.to[room]]
            print(f"{level + 1:3}  {room:24} -> {' '.join(targets)}" if targets else f"{level + 1:3}  {room}")


def print_dot(graph):
    print(f'digraph "{graph.folder or "house"}" {{\n\trankdir=BT; node [shape=box, fontname="sans"];')
    for room in graph.rooms:
        print(f'\t"{room}";')
    for (a, b), lines in sorted(graph.lines.items()):
        style = ", color=red, constraint=false" if (a, b) in graph.up else ""
        print(f'\t"{a}" -> "{b}" [label={len(lines)}{style}];')
    print("}")


def command_graph(arguments):
    tree = sources(arguments.root)
    every = set(tracked_files(arguments.root))
    includes = list(arrows_of(tree, every.__contains__))
    if arguments.uses:
        includes += uses_of(tree)
    folder = arguments.folder.strip("/") if arguments.folder is not None else None
    if folder is not None and folder not in folders_of(tree):
        sys.exit(f"house.py: there is no folder '{folder}' with two rooms or more; --folder '' is the whole house")
    if arguments.dot:
        print_dot(Graph(folder or "", tree, includes))
        return
    print("rooms floors arrows   up circles  folder")
    for name in folders_of(tree) if folder is None else [folder]:
        print_graph(Graph(name, tree, includes))
    if folder is not None:
        print_rooms(Graph(folder, tree, includes))

# ---- statistics ----


def width(line):
    return len(line.expandtabs(TAB))


def percent(part, whole):
    return 100 * part / whole if whole else 0.0


def print_statistics(name, tree):
    lines = sum(len(source.lines) for source in tree)
    functions = [(function, source) for source in tree for function in source.functions]
    lengths = sorted(function.length for function, _ in functions if function.length > 1)
    inside = blank = 0
    for function, source in functions:
        body = source.lines[function.first:function.last - 1]
        inside += len(body)
        blank += sum(not line.strip() for line in body)
    comments = sum(sum(source.comment_only) for source in tree)
    written = [source for source in tree if not source.path.endswith("_data.h")]   # the others are generated tables
    largest = max(written, key=lambda source: len(source.lines))
    at = lambda share: lengths[min(int(len(lengths) * share), len(lengths) - 1)]
    print(f"{name}")
    print(f"  files {len(tree)}, lines {lines}, largest {largest.path} with {len(largest.lines)}")
    print(f"  functions {len(functions)}, {len(functions) - len(lengths)} of them on one line; the others: median {at(0.5)}, p95 {at(0.95)},"
          f" max {lengths[-1]} lines, {sum(n > 60 for n in lengths)} over 60, {sum(n > 80 for n in lengths)} over 80")
    for what, texts in (("all lines", "lines"), ("without string literals", "narrow_lines")):
        widths = [width(line) for source in tree for line in getattr(source, texts)]
        over = ", ".join(f"{percent(sum(w > limit for w in widths), lines):.2f} % over {limit}" for limit in (100, 120, 150))
        print(f"  {what}: {over} columns")
    print(f"  blank lines in bodies {percent(blank, inside):.2f} %, lines of comment {percent(comments, lines):.1f} %")


def command_statistics(arguments):
    tree = sources(arguments.root)
    tests = [source for path, source in tree.items() if path.startswith("tests/")]
    print_statistics("code", [source for path, source in tree.items() if not path.startswith("tests/")])
    if tests:
        print_statistics("tests", tests)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    graph = commands.add_parser("graph", help="rooms, floors, arrows, arrows that run up, circles")
    graph.add_argument("--folder", help="only this folder, with its rooms floor by floor; '' is the whole house")
    graph.add_argument("--uses", action="store_true", help="an arrow also from a file that calls a function to the one that defines it")
    graph.add_argument("--dot", action="store_true", help="print the graph of the folder for Graphviz")
    statistics = commands.add_parser("statistics", help="functions, widths, blank and comment lines")
    for command in (graph, statistics):
        command.add_argument("--root", default=root, help="the checkout to read (default: this one)")
    arguments = parser.parse_args()
    {"graph": command_graph, "statistics": command_statistics}[arguments.command](arguments)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)
