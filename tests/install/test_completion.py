#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: test_completion.py bash|zsh TEXTS

Completion as somebody at a terminal has it: an interactive shell on a pseudo-terminal loads the scripts that the programs
printed (TEXTS/bash, TEXTS/zsh), is sent lines with tabs in them, and must call the program with the words that are expected.
"""
import os
import pty
import re
import select
import shutil
import sys
import tempfile
import time

# What is typed, and the arguments that the program must get. Names of files are in the folder where the shell runs.
CASES = (
    ("cadre-router --log-lev\t deb\t\n", "--log-level debug"),
    ("cadre-router --log-level=deb\t\n", "--log-level=debug"),
    ("cadre-router --local-experts=fa\t\n", "--local-experts=false"),
    ("cadre-router --local-exp\t --isa av\t2\n", "--local-experts --isa avx2"),
    ("cadre-router --model chec\t\n", "--model checkpoint"),
    ("cadre-router --model=chec\t\n", "--model=checkpoint"),
    ("cadre-placement --secret-file chec\t2\t\n", "--secret-file check2.txt"),
    ("cadre-expert --memory-n\t 3\n", "--memory-nodes 3"),
    ("cadre-expert --id chec\tx\n", "--id checx"),     # not a file: nothing is offered
    ("cadre-expert --versi\t\n", "--version"),
    ("cadrectl gen\t --max-tok\t 5 --routi\t\n", "generate --max-tokens 5 --routing"),
    ("cadrectl mod\tins\t chec\t\n", "model inspect checkpoint"),
    ("cadrectl trace sh\t chec\t2\t\n", "trace show check2.txt"),
    ("cadrectl plan expl\t --tra\t check2\t\n", "plan explain --trace check2.txt"),
    ("cadrectl plan --tra\t check2\t\n", "plan --trace check2.txt"),
    ("cadrectl wait --rou\t 2 --form\t js\t\n", "wait --routers 2 --format json"),
    ("cadrectl status -o js\t\n", "status -o json"),
    ("cadrectl model inspect -o ta\t chec\t\n", "model inspect -o table checkpoint"),
    ("cadrectl verify it\\'s\\ a\t\n", "verify it's an answer.json"),
)
START = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
}
SETUP = {
    "bash": "PS1=; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; for f in '{texts}'/bash/*; do . \"$f\"; done",
    "zsh": "PS1=; unsetopt beep zle_bracketed_paste; unset zle_bracketed_paste; fpath=('{texts}/zsh' $fpath); autoload -U compinit; compinit -u -D",
}


class Shell:
    def __init__(self, name, texts, folder):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            environment = {"PATH": os.environ["PATH"], "HOME": folder, "TERM": "dumb", "LC_ALL": "C.UTF-8", "COLUMNS": "400", "LINES": "50"}
            os.execvpe(START[name][0], START[name], environment)
        # A program is a function that shows its arguments. The mark is split, so that its echo is not taken for it.
        self.send(SETUP[name].format(texts=texts) + "\n")
        for program in ("cadre-placement", "cadre-router", "cadre-expert", "cadrectl"):
            self.send(program + "() { printf '<%s>' \"$*\"; printf '[do''ne]\\n'; }\n")
        self.send("cadrectl started\n")
        self.read_arguments()

    def send(self, text):
        os.write(self.terminal, text.encode())

    def read_arguments(self):
        """What the next call of a program shows."""
        shown, until = "", time.monotonic() + 20
        while "[done]" not in shown:
            if not select.select([self.terminal], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(shown)
            shown += os.read(self.terminal, 4096).decode(errors="replace")
        return re.findall(r"<([^<>]*)>\[done\]", shown.replace("\r", ""))[-1]

    def close(self):
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


def main():
    name, texts = sys.argv[1], os.path.abspath(sys.argv[2])
    if not shutil.which(name):
        print(f"skipped: there is no {name}")
        return 0
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "checkpoint"))
        for file in ("check2.txt", "it's an answer.json"):
            open(os.path.join(folder, file), "w").close()
        shell = Shell(name, texts, folder)
        for typed, expected in CASES:
            shell.send(typed)
            try:
                found = shell.read_arguments().strip().rstrip("/")   # zsh takes the slash away again
            except TimeoutError as error:
                found = f"nothing: {error}"
            if found != expected:
                print(f"FAIL: {typed!r} became {found!r}, not {expected!r}")
                failures += 1
        shell.close()
    if failures == 0:
        print(f"{len(CASES)} lines were completed by {name}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
