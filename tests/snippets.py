"""The programs that texts show: fenced blocks of the pages and docstrings, and commands in any other text.

Nothing is registered: a new page, block or message is found by its shape.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
CODE = [path for folder in ("rlvr_trl", "examples", "benchmarks") for path in sorted(ROOT.glob(f"{folder}/**/*.py"))]
COMMENTED = [  # files whose comments show commands
    path
    for pattern in ("examples/recipes/*/*.yaml", "accelerate_configs/*.yaml", "examples/slurm/*.sh", "Makefile")
    for path in sorted(ROOT.glob(pattern))
]

PROGRAMS = r"(?:accelerate launch|hf|make|pip|python|rlvr-trl|sbatch|torchrun|trl)"
ELLIPSIS = ("…", "...")  # what a command leaves out
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Snippet(NamedTuple):
    """
    A program in a text.

    Args:
        path (`Path`): the file.
        line (`int`): the line of its first character, from 1.
        kind (`str`): the language of a block; `command` for a command in running text.
        text (`str`): the program.
    """

    path: Path
    line: int
    kind: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def page_blocks(path: Path) -> list[Snippet]:
    """The fenced blocks of a page, in order."""
    return _fenced(path, path.read_text(encoding="utf-8"), 1)


def _fenced(path: Path, text: str, line: int) -> list[Snippet]:
    found = []
    for block in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        indent, kind, program = block.groups()
        program = re.sub(f"^{indent}", "", program, flags=re.MULTILINE)
        found.append(Snippet(path, line + text.count("\n", 0, block.start(3)), kind or "text", program))
    return found


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and value of every string in a Python file, docstrings included; what is filled in is `…`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield node.lineno, "".join(values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def docstring_blocks(path: Path) -> list[Snippet]:
    """The fenced blocks in the docstrings of a Python file."""
    text = path.read_text(encoding="utf-8")
    if "```" not in text:
        return []
    nodes = (node.body[0] for node in ast.walk(ast.parse(text)) if isinstance(node, _WITH_DOCSTRING) and node.body)
    values = (node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    found = [(node.lineno, node.value) for node in values if isinstance(node.value, str)]
    return [block for line, docstring in found for block in _fenced(path, docstring, line)]


def commands_in_blocks(blocks: list[Snippet]) -> list[Snippet]:
    """The commands of shell blocks, one a line; a `\\` at its end joins the next."""
    return [
        block._replace(line=block.line + block.text.count("\n", 0, line.start()), text=line[0].replace("\\\n", " "))
        for block in blocks
        for line in re.finditer(r"^(?:.*\\\n)*.+$", block.text, re.MULTILINE)
        if not line[0].lstrip().startswith("#")
    ]


def commands_in_text(path: Path) -> list[Snippet]:
    """
    Commands outside of blocks: on a line of their own in docstrings, messages and comments, in backticks, or after
    "pip install" anywhere.
    """
    if path.suffix == ".py":
        texts = list(strings(path))
    elif path.suffix == ".md":
        texts = [(1, re.sub(r"^ *```.*?^ *```$", _blank, path.read_text(encoding="utf-8"), flags=re.DOTALL | re.M))]
    else:
        comments = re.findall(r"^(?:# ?(.*)|.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        texts = [(1, "\n".join(comments))]
    return [snippet for line, text in texts for snippet in _commands(path, line, text)]


def _blank(block: re.Match) -> str:
    return "\n" * block[0].count("\n")


def _commands(path: Path, line: int, text: str) -> Iterator[Snippet]:
    ways = [
        r"(?<!`)`(PROGRAM [^`]+)`(?!`)",
        r"\b(pip install (?:'[^']+'|[\w.-]*[\w-]|…))",
    ]
    if path.suffix != ".md":  # on a line of its own, up to what is said beside it
        ways.append(r"^ +(PROGRAM (?:.*\\\n)* *.*?)(?: {2,}.*)?$")
    if path.suffix == ".py":  # at the end of a sentence
        ways.append(r": ((?:accelerate launch|python|rlvr-trl) [^`\n]+)$")
    wanted = "|".join(ways).replace("PROGRAM", PROGRAMS)
    for found in re.finditer(wanted, text, re.MULTILINE):
        command = next(group for group in found.groups() if group)
        yield Snippet(
            path,
            line + text.count("\n", 0, found.start()),
            "command",
            " ".join(command.replace("\\\n", " ").split()),
        )


def parts_of(command: str) -> list[list[str]]:
    """The words of each program of a shell line, without variables set for it and without comments."""
    programs: list[list[str]] = [[]]
    for word in shlex.split(command, comments=True):
        if word == "&&":
            programs.append([])
        elif programs[-1] or not re.match(r"[A-Z_]+=", word):
            programs[-1].append(word)
    return [words for words in programs if words]
