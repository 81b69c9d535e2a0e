"""How docstrings of the Hugging Face style reach mkdocstrings, which reads those of Google's. An extension of griffe.

name (`Tensor` of shape `(T,)`, *optional*):     ->  name (Tensor): Of shape `(T,)`.     default: the signature's
`Tensor` of shape `(T,)`: text                   ->  Tensor: Of shape `(T,)`. text       what is returned
`ValueError`: two lines                          ->  ValueError: two lines
of one error                                             of one error
[`PassAtK`], [`~rlvr_trl.advantages.PassAtK`]    ->  a link, if a page of docs/reference has it; else `PassAtK`
"""

import re
from pathlib import Path

import griffe


REFERENCE = Path(__file__).parent / "reference"
_SECTION = re.compile(r"(\w+):$")
_ARGUMENT = re.compile(r"(\s+\*{0,2}\w+(?:, \*{0,2}\w+)*) \((?=[`\[]|[a-z ]+`)(.+)\):(.*)$")
_NAMES = re.compile(r"    \w+(?:, \w+)+(?= \()")
_RETURNED = re.compile(r"    (?=[`\[])(.+?):( .*)$")
_SHAPE = re.compile(r"of shape (`[^`]+`)")
_QUALIFIERS = re.compile(r",? \*optional\*|, defaults to .*|`")
_ERROR = re.compile(r"    `?(\w+Error)`?:(.*)$")
_REFERENCE = re.compile(r"\[`~?([\w.]+)`\](?![\[(])")


def documented() -> dict[str, str]:
    """Where each object of the reference pages is, by the last part of its name."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    return {path.rpartition(".")[2]: path for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}


def to_google_style(text: str) -> str:
    """A docstring of the Hugging Face style as griffe reads it."""
    lines, section = [], None
    for line in text.splitlines():
        found = _SECTION.match(line)
        if found:
            section = found[1]
        elif line and not line[0].isspace():
            section = None
        elif section in ("Args", "Parameters", "Attributes"):
            line = _ARGUMENT.sub(_argument, line)
            if section == "Attributes":  # griffe ends a name there at the first space
                line = _NAMES.sub(lambda found: found[0].replace(", ", ",\u00a0"), line)
        elif section == "Returns" and lines[-1] == "Returns:":
            line = _RETURNED.sub(lambda found: f"    {_kind(found[1])}{found[2]}", line)
        elif section == "Raises" and _ERROR.match(line):
            line = _ERROR.sub(r"    \1:\2", line)
        elif section == "Raises" and line:
            line = f"        {line.strip()}"
        lines.append(line)
    return "\n".join(lines)


def _argument(found: re.Match) -> str:
    name, described, text = found.groups()
    kind, _, shape = _kind(described).partition(":")
    return f"{name} ({kind}):{shape}{text}"


def _kind(described: str) -> str:
    """A type as plain text, and after a colon its shape."""
    shape = _SHAPE.search(described)
    kind = _REFERENCE.sub(lambda found: found[1].rpartition(".")[2], _SHAPE.sub("", described))
    kind = _QUALIFIERS.sub("", kind).strip()
    return f"{kind}:{f' Of shape {shape[1]}.' if shape else ''}"


def link(text: str, places: dict[str, str]) -> str:
    """`text` whose references are links to `places`, and code where they lead nowhere."""

    def linked(found: re.Match) -> str:
        owner, _, name = found[1].rpartition(".")
        owner = owner.rpartition(".")[2]
        if name in places:
            return f"[`{name}`][{places[name]}]"
        if owner in places:  # a member
            return f"[`{owner}.{name}`][{places[owner]}.{name}]"
        return f"`{name}`"

    return _REFERENCE.sub(linked, text)


class HuggingFaceDocstrings(griffe.Extension):
    """Rewrites every docstring before griffe parses it."""

    def __init__(self):
        self.places = documented()

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = link(to_google_style(obj.docstring.value), self.places)
