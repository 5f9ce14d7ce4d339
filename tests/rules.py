#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that a machine can check. Runs with the unit tests.

    tests/rules.py [--symbols LIBRARY=PATH ...]   check the tree; a line for each violation, FILE:LINE: what, why
    tests/rules.py --self-test                    check that each rule complains about a bad example, and not about a good one

Each rule is a function that yields (file, line, sentence). A rule that has an exception names it in a table here, with its reason.
"""
import argparse
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
sys.dont_write_bytecode = True
import house  # noqa: E402

DEFINES = (".c", ".cc", ".cu")   # where functions are defined
CODE_WIDTH, COMMENT_WIDTH, WIDE_LINES_MAX = 120, 100, 0.003
BLANK_LINES_MIN = 0.04
FUNCTION_LINES_MAX, FILE_LINES_MAX = 80, 800

# Pairs of folders of which the first may not include the second, though it stands above it (LAYERS in scripts/house.py).
NEVER = {
    ("orchestration/cli", "orchestration/placement"): "the command line and the service meet in proto/ alone",
    ("orchestration/cli", "expert-svc"): "the embedded form hands out what the command line needs of it",
}

# Header -> where it may be included, and why. Tests and benchmarks are free.
RESTRICTED = (
    (r"grpc/.*\.h|grpc\.h", ["common/rpc/"], "everybody else speaks to common/rpc"),
    (r"uc[pst]/.*", ["common/transport/ucx/"], "transport.h says nothing of UCX"),
    (r"uv\.h", ["common/process/", "common/rpc/", "common/cluster/member.c", "orchestration/placement/",
                "router-svc/main.c", "router-svc/frontend/", "expert-svc/main.c"],
     "event loops belong to programs and their control paths, not to the step, the transport or libraries"),
    (r"sqlite3\.h", ["orchestration/placement/state.c", "orchestration/placement/state_", "orchestration/placement/history.c"],
     "the database is what these files keep: each has its own tables there"),
    (r"microhttpd\.h", ["common/process/admin.c"], "the admin port is the one HTTP server"),
    (r"yaml\.h", ["common/process/options.c"], "options.c reads the configuration"),
    (r"pcre2\.h", ["common/tokenizer/regex.c"], "regex.c is the one door to PCRE2"),
    (r"zstd\.h", ["orchestration/planner/trace/own.c"], "only our own trace format is compressed"),
    (r"metis\.h", ["orchestration/planner/solve/start_metis.c"], "METIS may be missing, and start_metis.c says so"),
    (r"sodium\.h", ["common/process/bearer.c", "common/rpc/", "common/transport/", "common/cluster/proof.c"],
     "secrets are compared and signed where connections are made; bearer.c has the tokens"),
    (r"openssl/.*", ["common/process/tls_files.c", "common/process/certificate.c"],
     "gRPC does TLS; tls_files.c says what is wrong with its files, certificate.c what a caller's says"),
    (r".*intrin\.h", ["kernels/cpu/"], "what stands above kernels/cpu must build on any machine"),
    (r"cuda.*\.h|nccl\.h|cublas.*", ["kernels/cuda/"], "what stands above kernels/cuda must build on any machine"),
    (r".*\.pb-c\.h|protobuf-c/.*", ["common/rpc/", "common/cluster/", "router-svc/", "expert-svc/control.c", "expert-svc/report.c",
                                    "orchestration/placement/", "orchestration/cli/"],
     "messages end where the control path ends"),
)

# Folder -> the prefix of its names. A planner is a library of placement's, and shares its prefix. What the emulation includes for CUDA has CUDA's names.
PREFIXES = (
    ("common/", "cad"), ("kernels/cuda/emu/include/", None), ("kernels/cuda/emu/", "emu"), ("kernels/", "kn"), ("router-svc/", "rt"), ("expert-svc/", "ex"), ("orchestration/placement/", "pl"),
    ("orchestration/planner/", "pl"), ("orchestration/cli/", "cl"), ("embedded/", "em"), ("proto/", "cadre"),
)
LIBRARY_PREFIXES = {
    "cadre_common": "cad", "cadre_kernels": "kn", "cadre_router_svc": "rt", "cadre_expert_svc": "ex",
    "cadre_placement_svc": "pl", "cadre_planner": "pl", "cadre_cli": "cl", "cadre_embedded": "em",
}
# Names that other people chose.
FOREIGN_TAGS = re.compile(r"uv_|Cadre__V\d+__|Grpc__|Google__|Protobuf|grpc_|ucp_|MHD_|json_")
# Private headers whose types may have a prefix of their own: header -> (prefix, why).
PRIVATE_PREFIXES = {
    "common/tokenizer/internal.h": ("tok", "never leaves the folder, and its functions have cad_tok_"),
}

# Headers that speak for several files, and why. The functions of any other x.h are in x.c, in x_*.c or in the folder x/.
# Where the sections of a header name the files ("SECTIONS": /* ---- vectors (vector.c) ---- */), that will do.
SECTIONS = "sections"
SPEAKS_FOR = {
    "common/model/internal.h": SECTIONS,
    "common/tokenizer/internal.h": SECTIONS,
    "common/rpc/internal.h": SECTIONS,
    "common/transport/ucx/internal.h": SECTIONS,
    "orchestration/placement/internal.h": SECTIONS,
    "orchestration/placement/rollout_internal.h": SECTIONS,
    "orchestration/placement/service_internal.h": SECTIONS,
    "orchestration/placement/state_internal.h": SECTIONS,
    "orchestration/placement/rebalance_internal.h": SECTIONS,
    "common/transport/protocol.h": SECTIONS,
    "common/transport/transport.h": SECTIONS,
    "kernels/kernels.h": SECTIONS,
    "kernels/cpu/cpu.h": SECTIONS,
    "kernels/cuda/cuda.h": SECTIONS,
    "kernels/cuda/emu/launch.h": "the template behind KN_LAUNCH, which hands over to the runtime",
    "kernels/cuda/emu/include/cuda_runtime.h": "what CUDA has in its own header, of runtime.cc",
    "orchestration/cli/command.h": "the table of commands: one function of each file that is one",
}
ELSEWHERE = {   # functions of somebody else's library, or of another language
    "__tsan_acquire": "ThreadSanitizer's", "__tsan_release": "ThreadSanitizer's", "emu_fiber_switch": "fiber.cc's, in assembly",
}

LICENSE_LINE = "SPDX-License-Identifier: Apache-2.0"
TEXT = re.compile(r"(\.(c|h|S|cc|cu|py|sh|md|txt|cmake|proto|yml|yaml|json|toml)|(^|/)(cadre|run|CMakeLists\.txt))$")
DATA = re.compile(r"^(models/(?!train/.*\.(py|sh|md)$)|tests/golden/|tests/fuzz/corpus/|bench/results/)")


class Tree:
    """What rules see: the texts, and what nm says of the libraries."""

    def __init__(self, texts, symbols=()):
        self.texts = {path: house.Source(path, text) for path, text in texts.items()}
        self.sources = {path: source for path, source in self.texts.items() if path.endswith(house.SOURCES)}
        self.headers = {path: source for path, source in self.sources.items() if path.endswith(".h")}
        self.symbols = list(symbols)   # (library, symbol)

    def product(self, kind):
        """Those of self.sources or self.headers that are neither tests nor benchmarks."""
        return {path: source for path, source in kind.items() if not path.startswith(("tests/", "bench/"))}

# ---- who includes whom ----


def layers(tree):
    for path, line, target in house.arrows_of(tree.sources, tree.texts.__contains__):
        here, there = house.floor_of(path), house.floor_of(target)
        if here is None or there is None:
            yield path, line, f"the folder of '{path if here is None else target}' has no place in LAYERS of scripts/house.py"
        elif house.runs_up(path, target) and not house.up_allowed(path, target):
            yield path, line, f"{here[0]} may not include {there[0]}: it stands beside or above it (LAYERS in scripts/house.py)"
        elif (here[0], there[0]) in NEVER:
            yield path, line, f"{here[0]} may not include {there[0]}: {NEVER[here[0], there[0]]}"


def private_headers(tree):
    for path, line, target in house.arrows_of(tree.sources, tree.texts.__contains__):
        folder, name = os.path.split(target)
        if name == "internal.h" and not path.startswith((folder + "/", "tests/")):
            yield path, line, f"{target} is private to {folder}/"


def restricted_headers(tree):
    for path, source in tree.product(tree.sources).items():
        for line, name, _ in source.includes:
            for pattern, places, why in RESTRICTED:
                if re.fullmatch(pattern, name) and not path.startswith(tuple(places)):
                    yield path, line, f"{name} may be included in {', '.join(places)} only: {why}"


def include_paths(tree):
    for path, source in tree.product(tree.sources).items():
        for line, name, quoted in source.includes:
            if quoted and "/" not in name:
                yield path, line, f'"{name}" should be written as a path from the root of the checkout'

# ---- names ----


def prefix_of(path):
    """The prefix of a file's folder; None where there is none, in tests and benchmarks."""
    return next((prefix for folder, prefix in PREFIXES if path.startswith(folder)), None)


def allowed_prefixes(path):
    """What the types and constants of a header may begin with."""
    private = PRIVATE_PREFIXES.get(path)
    return (prefix_of(path) + "_", private[0] + "_") if private else (prefix_of(path) + "_",)


def symbol_prefixes(tree):
    for library, symbol in tree.symbols:
        prefix = LIBRARY_PREFIXES.get(library)
        if prefix and not symbol.startswith((prefix + "_", "__", "_")):
            yield definition_of(tree, symbol, prefix) + (f"the external name {symbol} of {library} should begin with {prefix}_",)


def definition_of(tree, symbol, prefix):
    """(file, line) of a symbol that is defined where names begin with `prefix`."""
    for path, source in tree.sources.items():
        if prefix_of(path) == prefix and path.endswith(DEFINES):
            for function in source.functions:
                if function.name == symbol:
                    return path, function.first
            for number, line in enumerate(source.code_lines, 1):
                if re.match(rf"\w.*\b{symbol}\b.*[=;]", line) and not line.startswith(("static", "extern")):
                    return path, number
    return "?", 0


def tag_prefixes(tree):
    for path, source in tree.product(tree.headers).items():
        prefix = prefix_of(path) if not path.endswith("_data.h") else None   # a generated table that one file includes
        for number, line in enumerate(source.code_lines, 1):
            match = re.match(r"(?:struct|enum|union)\s+(\w+)\s*[{;]", line) or re.match(r"typedef\b.*?(\w+)(?:\)\(.*\))?;", line)
            if match and prefix and not match.group(1).startswith(allowed_prefixes(path)) \
               and not FOREIGN_TAGS.match(match.group(1)) and not is_foreign_forward(line, match.group(1)):
                yield path, number, f"the type {match.group(1)} should begin with {prefix}_"


def is_foreign_forward(line, tag):
    """A forward declaration of a lower layer's type."""
    return line.rstrip().endswith(";") and "{" not in line and any(tag.startswith(prefix + "_") for _, prefix in PREFIXES)


def constant_prefixes(tree):
    """Macros and enum constants of headers."""
    for path, source in tree.product(tree.headers).items():
        prefix = prefix_of(path)
        if not prefix:
            continue
        good = re.compile("|".join(allowed_prefixes(path)) + "|cadre_", re.I)
        undefined = set(re.findall(r"^\s*#\s*undef\s+(\w+)", source.code, re.M))
        for match in re.finditer(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", source.code, re.M):
            if not good.match(match.group(1)) and match.group(1) not in undefined:
                yield path, line_at(source.code, match.start()), f"the macro {match.group(1)} should begin with {prefix.upper()}_"
        for body in re.finditer(r"\benum\b[^;{}()]*\{([^{}]*)\}", source.code):
            constants = re.sub(r"^[ \t]*#.*$", lambda line: house.blanked(line.group(0)), body.group(1), flags=re.M)
            for match in re.finditer(r"(?:^|,)\s*(\w+)", constants):
                name = match.group(1)
                if not good.match(name):
                    yield path, line_at(source.code, body.start(1) + match.start(1)), f"the constant {name} should begin with {prefix.upper()}_"


def line_at(text, offset):
    return text.count("\n", 0, offset) + 1


def include_guards(tree):
    for path, source in tree.headers.items():
        guard = "CADRE_" + re.sub(r"[^A-Z0-9]", "_", path.upper())
        if path.endswith("_data.h") and "#ifndef" not in source.text:
            continue   # a generated table that one file includes
        match = re.search(r"^#ifndef (\w+)\n#define (\w+)$", source.text, re.M)
        if not match:
            yield path, 1, f"no include guard: {guard}"
        elif match.groups() != (guard, guard):
            yield path, line_at(source.text, match.start()), f"the include guard should follow the path: {guard}"


def own_declarations(tree):
    """Who opens x.c for x.h should not be disappointed."""
    home = {}
    for path, source in tree.sources.items():
        for function in source.functions if path.endswith(DEFINES) else []:
            home.setdefault(function.name, []).append(path)
    for path, source in tree.headers.items():
        if SPEAKS_FOR.get(path, SECTIONS) != SECTIONS:
            continue
        stem = path[:-2]
        for line, name in source.declarations:
            places = home.get(name, [])
            if SPEAKS_FOR.get(path) == SECTIONS:
                section = section_above(source, line)
                good = any(os.path.dirname(place) == os.path.dirname(path) and os.path.basename(place) in section for place in places)
                wanted = "in a file that the section above it names"
            else:
                good = any(os.path.splitext(place)[0] == stem or place.startswith((stem + "_", stem + "/")) for place in places)
                wanted = f"in {stem}.c, {stem}_*.c or {stem}/"
            if not good and name not in ELSEWHERE:
                yield path, line, f"{name} is defined in {', '.join(places) or 'no file'}: it should be {wanted} (SPEAKS_FOR in tests/rules.py)"


def section_above(source, line):
    for number in range(line - 1, 0, -1):
        match = re.match(r"/\* ---- (.*)", source.lines[number - 1])
        if match:
            return re.findall(r"\w+\.c[cu]?", match.group(1))
    return []

# ---- the look of the text ----


def line_width(tree):
    """Code 120 columns without what stands in string literals, lines of comment 100; few lines may be wider, for they may need it."""
    wide = []
    total = 0
    for path, source in tree.sources.items():
        total += len(source.lines)
        for number, (line, is_comment) in enumerate(zip(source.narrow_lines, source.comment_only), 1):
            limit = COMMENT_WIDTH if is_comment else CODE_WIDTH
            if house.width(line) > limit:
                wide.append((path, number, f"{house.width(line)} columns: {'lines of comment have' if is_comment else 'code has'} at most {limit}"))
    if len(wide) > total * WIDE_LINES_MAX:
        yield from wide


def paragraphs(tree):
    """Blank lines between the acts of a function: at least 4 of 100 lines of all bodies."""
    for what, members in (("code", tree.product(tree.sources)), ("tests", {p: s for p, s in tree.sources.items() if p.startswith("tests/")})):
        share = {}   # file -> (blank lines, lines) inside bodies
        for path, source in members.items():
            bodies = [line for function in source.functions for line in source.lines[function.first:function.last - 1]]
            share[path] = (sum(not line.strip() for line in bodies), len(bodies))
        blank, lines = (sum(column) for column in zip(*share.values())) if share else (0, 0)
        if blank < lines * BLANK_LINES_MIN:
            worst = max(share, key=lambda path: share[path][1] * BLANK_LINES_MIN - share[path][0])
            yield worst, 1, f"{100 * blank / lines:.1f} % of the lines in bodies of the {what} are blank, {100 * BLANK_LINES_MIN:.0f} % should be;" \
                            f" this file has {share[worst][0]} in {share[worst][1]}"


def lengths(tree):
    for path, source in tree.sources.items():
        for function in source.functions:
            if function.length > FUNCTION_LINES_MAX:
                yield path, function.first, f"{function.name} has {function.length} lines; {FUNCTION_LINES_MAX} are enough"
        if len(source.lines) > FILE_LINES_MAX and not path.endswith("_data.h"):
            yield path, FILE_LINES_MAX + 1, f"the file has {len(source.lines)} lines; {FILE_LINES_MAX} are enough"


def trailing_blanks(tree):
    for path, source in tree.texts.items():
        for number, line in enumerate(source.lines, 1):
            if line != line.rstrip():
                yield path, number, "blanks at the end of the line"
        if source.text and not source.text.endswith("\n"):
            yield path, len(source.lines), "no line end at the end of the file"
        if source.text.endswith("\n\n"):
            yield path, len(source.lines), "blank lines at the end of the file"


def indentation(tree):
    for path, source in tree.sources.items():
        for number, (line, code) in enumerate(zip(source.lines, source.code_lines), 1):
            blank = re.match(r"\s*", line).group(0)
            if " \t" in blank:
                yield path, number, "a blank before a tab at the start of the line"
            elif code.strip() and re.match(r" ", line):
                yield path, number, "code is indented with tabs"


def open_ends(tree):
    """No work is left in comments without the place where it is followed up."""
    word = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    for path, source in tree.texts.items():
        for number, line in enumerate(source.lines, 1):
            match = word.search(line)
            if match and "http" not in line:
                yield path, number, f"{match.group(1)} without a link"


def banners(tree):
    for path, source in tree.sources.items():
        for number, line in enumerate(source.lines, 1):
            if re.match(r"\s*(/\*|//)\s*([-=*#])\2+(\s|$)", line) and not re.fullmatch(r"/\* ---- \S.*\S ---- \*/", line):
                yield path, number, "banners of sections are written /* ---- name ---- */"


def licence(tree):
    for path, source in tree.texts.items():
        if re.search(r"\.(c|h|S|cc|cu|py|sh|proto|cmake)$|(^|/)CMakeLists\.txt$|^cadre$", path):
            if not any(LICENSE_LINE in line for line in source.lines[:3]):
                yield path, 1, f"one of the first three lines should be: {LICENSE_LINE}"

# ---- the pages ----

# Paths that pages name and that are made by a build or a run.
MADE = ("build/", "build-", "run/", ".venv/", "bin/", "share/", "lib/", "gen/", "etc/", "WORK/")
NAMED_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:c|h|S|cc|cu|py|sh|md|proto|cmake|csv|json|yaml|in|supp))`")


def page_lines(source):
    """Lines of a page outside of blocks of code."""
    block = False
    for number, line in enumerate(source.lines, 1):
        if line.lstrip().startswith("```"):
            block = not block
        elif not block:
            yield number, line


def is_there(tree, path, *folders):
    """Whether one of the folders of the tree has the path."""
    full = [os.path.normpath(os.path.join(folder, path)) for folder in folders]
    return any(name in tree.texts or os.path.exists(os.path.join(ROOT, name)) for name in full)


def anchors_of(tree, path):
    headings = (line.lstrip("#") for line in tree.texts[path].lines if line.startswith("#"))
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def links(tree):
    """What a page links to, or names by its path, is there."""
    for path, source in tree.texts.items():
        if not path.endswith(".md"):
            continue
        folder = os.path.dirname(path)
        for number, line in page_lines(source):
            for target, anchor in re.findall(r"\]\(([^)#:\s]*)(#[^)\s]*)?\)", line):
                there = os.path.normpath(os.path.join(folder, target)) if target else path
                if target and not is_there(tree, target, folder):
                    yield path, number, f"the link to {target} leads nowhere"
                elif anchor and there in tree.texts and there.endswith(".md") and anchor[1:] not in anchors_of(tree, there):
                    yield path, number, f"{there} has no heading for {anchor}"
            for name in NAMED_PATH.findall(line):
                # NAME, FOO and the like stand for any name
                if not name.startswith(MADE) and not re.search(r"\b[A-Z]{3,}\b|_[A-Z]+\b", os.path.splitext(name)[0]) and not is_there(tree, name, "", folder):
                    yield path, number, f"there is no file {name}"

# ---- running ----


class Rule:
    """A rule with an example that it must complain about and one that it must not: texts by path, and symbols."""

    def __init__(self, check, bad, good, symbols_bad=(), symbols_good=()):
        self.check, self.name = check, check.__name__
        self.bad, self.good = Tree(bad, symbols_bad), Tree(good, symbols_good)


def body(lines):
    return "void cad_f(void)\n{\n" + "\n".join(lines) + "\n}\n"


RULES = (
    Rule(layers, {"common/base/a.c": '#include "kernels/k.h"\n', "kernels/k.h": ""},
         {"kernels/k.c": '#include "common/base/a.h"\n', "common/base/a.h": ""}),
    Rule(layers, {"router-svc/a.c": '#include "expert-svc/e.h"\n', "expert-svc/e.h": ""},
         {"router-svc/main.c": '#include "embedded/e.h"\n', "embedded/e.h": ""}),
    Rule(layers, {"orchestration/planner/a.c": '#include "orchestration/placement/e.h"\n', "orchestration/placement/e.h": ""},
         {"orchestration/placement/a.c": '#include "orchestration/planner/e.h"\n', "orchestration/planner/e.h": ""}),
    Rule(layers, {"orchestration/cli/a.c": '#include "expert-svc/e.h"\n', "expert-svc/e.h": ""}, {"tests/unit/a.c": '#include "expert-svc/e.h"\n'}),
    Rule(private_headers, {"kernels/a.c": '#include "common/base/internal.h"\n', "common/base/internal.h": ""},
         {"common/base/a.c": '#include "common/base/internal.h"\n', "common/base/internal.h": ""}),
    Rule(restricted_headers, {"router-svc/step.c": "#include <grpc/grpc.h>\n"}, {"common/rpc/call.c": "#include <grpc/grpc.h>\n"}),
    Rule(restricted_headers, {"common/transport/call.c": "#include <ucp/api/ucp.h>\n"},
         {"common/transport/ucx/link.c": "#include <ucp/api/ucp.h>\n", "tests/unit/test_ucx.c": "#include <ucp/api/ucp.h>\n"}),
    Rule(restricted_headers, {"kernels/sample.c": "#include <immintrin.h>\n"}, {"kernels/sample.c": "#include <math.h>\n"}),
    Rule(include_paths, {"common/base/a.c": '#include "a.h"\n'}, {"common/base/a.c": '#include "common/base/a.h"\n#include <math.h>\n'}),
    Rule(symbol_prefixes, {"common/base/a.c": body(["\treturn;"])}, {}, [("cadre_common", "call_finish")],
         [("cadre_common", "cad_call_finish"), ("cadre_common", "__odr_asan.x"), ("cadre_proto", "google__x")]),
    Rule(tag_prefixes, {"router-svc/a.h": "struct sequence {\n\tint a;\n};\n"}, {"router-svc/a.h": "struct cad_map;\nstruct rt_sequence {\n\tint a;\n};\n"}),
    Rule(constant_prefixes, {"kernels/a.h": "#define PANEL 64\n"}, {"kernels/a.h": '#define KN_PANEL 64\n#define X(a) a\n#undef X\n'}),
    Rule(constant_prefixes, {"kernels/a.h": "enum kn_a { KN_A, OTHER = 2 };\n"}, {"kernels/a.h": "enum kn_a { KN_A, KN_OTHER = KN_A };\n"}),
    Rule(include_guards, {"common/base/status.h": "#ifndef CADRE_STATUS_H\n#define CADRE_STATUS_H\n#endif\n"},
         {"router-svc/batch/a.h": "#ifndef CADRE_ROUTER_SVC_BATCH_A_H\n#define CADRE_ROUTER_SVC_BATCH_A_H\n#endif\n"}),
    Rule(include_guards, {"common/base/status.h": "int a;\n"}, {}),
    Rule(own_declarations, {"kernels/a.h": "void kn_f(void);\n", "kernels/b.c": "void kn_f(void)\n{\n}\n"},
         {"kernels/a.h": "void kn_f(void);\nvoid kn_g(int (*f)(void));\nvoid kn_h(void);\n", "kernels/a.c": "void kn_f(void)\n{\n}\n",
          "kernels/a_more.c": "void kn_g(int (*f)(void)) { f(); }\n", "kernels/a/b.c": "void kn_h(void)\n{\n}\n"}),
    Rule(own_declarations, {"kernels/cpu/cpu.h": "/* ---- rows (b.c) ---- */\nvoid kn_f(void);\n", "kernels/cpu/a.c": "void kn_f(void)\n{\n}\n"},
         {"kernels/cpu/cpu.h": "/* ---- rows (a.c) ---- */\nvoid kn_f(void);\n", "kernels/cpu/a.c": "void kn_f(void)\n{\n}\n"}),
    Rule(line_width, {"kernels/a.c": "int a" + "a" * 120 + ";\n"}, {"kernels/a.c": '\tsay("' + "a" * 150 + '");\n' + "/* " + "a" * 90 + " */\n"}),
    Rule(line_width, {"kernels/a.c": "/* " + "a" * 100 + " */\n"}, {"kernels/a.c": "\tint a" + "a" * 90 + ";   /* why */\n"}),
    Rule(paragraphs, {"common/base/a.c": body(["\ta();"] * 30)}, {"common/base/a.c": body((["\ta();"] * 9 + [""]) * 3)}),
    Rule(lengths, {"common/base/a.c": body(["\ta();"] * 79)}, {"common/base/a.c": body(["\ta();"] * 78)}),
    Rule(lengths, {"common/base/a.c": "int cad_a;\n" * 801}, {"common/base/a.c": "int cad_a;\n" * 800}),
    Rule(trailing_blanks, {"README.md": "a \n"}, {"README.md": "a\n"}),
    Rule(trailing_blanks, {"README.md": "a"}, {"README.md": "a\n\nb\n"}),
    Rule(indentation, {"common/base/a.c": "\tif (a)\n  \tb();\n"}, {"common/base/a.c": "\tif (a)\n\t\tb();\n/*\n * why\n */\n"}),
    Rule(indentation, {"common/base/a.c": "        if (a)\n"}, {"common/base/a.c": "\tint a;   /* one\n\t            two */\n"}),
    Rule(open_ends, {"common/base/a.c": "/* TO" + "DO: more */\n"}, {"common/base/a.c": "/* TO" + "DO: https://example.org/1 */\n"}),
    Rule(banners, {"common/base/a.c": "/* --- life --- */\n"}, {"common/base/a.c": "/* ---- life ---- */\n/* --help was asked for */\n"}),
    Rule(banners, {"common/base/a.c": "/*** life ***/\n"}, {"common/base/a.c": "/** what Doxygen reads */\n/*\n * life\n */\n"}),
    Rule(licence, {"common/base/a.c": "int cad_a;\n"}, {"common/base/a.c": "// " + LICENSE_LINE + "\n", "cadre": "#!/bin/sh\n# " + LICENSE_LINE + "\n"}),
    Rule(links, {"docs/A.md": "[b](B.md)\n"}, {"docs/A.md": "[b](B.md#the-heading-2) [c](https://b/c)\n", "docs/B.md": "# The heading, 2\n"}),
    Rule(links, {"A.md": "see `common/base/gone.c`\n"}, {"A.md": "`common/base/a.c`, `tests/op_NAME.c`, `build/a.json`\n", "common/base/a.c": ""}),
    Rule(links, {"A.md": "[a](#other)\n"}, {"A.md": "# One\n[a](#one)\n```\n[x](nowhere)\n```\n"}),
)


def self_test():
    bad = 0
    for rule in RULES:
        if not list(rule.check(rule.bad)):
            print(f"{rule.name}: no complaint about {list(rule.bad.texts)}")
            bad += 1
        for path, line, sentence in rule.check(rule.good):
            print(f"{rule.name}: complains about its good example, {path}:{line}: {sentence}")
            bad += 1
    print(f"{len(RULES)} examples of {len({rule.name for rule in RULES})} rules, {bad} wrong")
    return 1 if bad else 0


def symbols_of(arguments):
    """(library, symbol) of each external name that the libraries define."""
    found = []
    for argument in arguments:
        library, _, path = argument.partition("=")
        output = subprocess.run(["nm", "-g", "--defined-only", "-A", path], check=True, capture_output=True, text=True).stdout
        found += [(library, line.split()[-1]) for line in output.splitlines() if len(line.split()) >= 3]
    return found


def check(symbols):
    texts = {}
    for path in house.tracked_files(ROOT):
        if TEXT.search(path) and not DATA.match(path):
            texts[path] = house.read(ROOT, path).text
    tree = Tree(texts, symbols_of(symbols))
    bad = 0
    for rule in dict.fromkeys(rule.check for rule in RULES):
        for path, line, sentence in rule(tree):
            print(f"{path}:{line}: {sentence} [{rule.__name__}]")
            bad += 1
    print(f"{len(texts)} files, {len(tree.symbols)} external names: {bad} violations of the house's rules")
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--symbols", nargs="*", default=[], metavar="LIBRARY=PATH", help="static libraries whose names are checked")
    parser.add_argument("--self-test", action="store_true", help="check the rules instead of the tree")
    arguments = parser.parse_args()
    return self_test() if arguments.self_test else check(arguments.symbols)


if __name__ == "__main__":
    sys.exit(main())
