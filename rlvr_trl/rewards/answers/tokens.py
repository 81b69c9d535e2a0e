r"""
The tokenizer: LaTeX, and what models write in its place, becomes tokens from a closed set.

No later step sees the raw text. Commands are looked up in tables, the name of a symbol is a letter or a Greek letter
with at most a few letters and digits in its subscript, and everything else becomes a token of kind `"bad"`, which no
expression may contain. There is one pass over the text, and at most `MAX_TOKENS` tokens, nested at most `MAX_DEPTH`
deep.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from .commands import ACTION_OF, COMMANDS, ESCAPES, GREEK, MATRICES, OTHERS


MAX_TOKENS = 2_000
MAX_DEPTH = 40
_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/"}
    | {"∙": r"\cdot ", "•": r"\cdot ", "∗": "*", "⁄": "/", "∕": "/", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt "}
    | {"°": r"^\circ ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx "}
    | {"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "ℝ": r"\mathbb{R}"}
    | {"ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "∖": r"\setminus "}
    | {"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"}
    | {"⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}"}
    | dict.fromkeys("⟨〈", r"\langle ")
    | dict.fromkeys("⟩〉", r"\rangle ")
    | {"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "′": "'", "’": "'", "‘": "'", "″": "''"}
    | dict.fromkeys('“”"`', " ")
    | {"、": ",", "，": ",", "。": ".", "【": "[", "】": "]", "∶": ":", "￥": "¥"}
    | {"…": r"\ldots ", "→": r"\to ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "✓": " ", "✔": " ", "✅": " "}
    | {"\u200b": "", "\u2060": "", "\ufeff": "", "\u2009": r"\,", "\u202f": r"\,", "\ufe0f": "", "\0": " "}
    | {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
    | dict(zip("αβγδεζηθικλμνξορστυφχψωµ", [rf"\{name} " for name in (*GREEK[:23], "mu")], strict=True))
    | dict(zip("ΓΔΘΛΞΠΣΥΦΨΩ", [rf"\{name} " for name in GREEK[23:34]], strict=True))
)
_RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED, _LOWERED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_LEXEME = re.compile(
    r"(?P<space>[\s~]+)|(?P<number>(?:[0-9]+(?:\.(?!\.)[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![0-9.]))?)"
    r"|(?P<letters>[A-Za-z]+)|(?P<command>\\[A-Za-z]+\*?)|(?P<escape>\\.)|(?P<words>[^\W\d_]+)|(?P<other>.)",
    re.DOTALL,
)


class Token(NamedTuple):
    r"""
    `kind` is `number`, `letters`, `symbol` (a name such as `\alpha`), `name` (a function), `op`, `open`, `close`,
    `command` (takes arguments), `begin`, `end`, `big` (sums, integrals, limits) or `bad`. `spaced` is the space before
    the token: `" "`, `"thin"` or `"negative"` for one such as `\,` or `\!`, or empty. `font` is `text`, `rm` or `bf`
    if a font command sets it.
    """

    kind: str
    text: str
    spaced: str = ""
    font: str = ""


class Unreadable(ValueError):
    """The text is not an answer that this package can read."""


@lru_cache(maxsize=4_096)
def tokenize(text: str) -> tuple[Token, ...]:
    """
    The tokens of a text.

    Raises:
        `Unreadable`: The text is too long or nested too deep, or its braces are not balanced.
    """
    if not text.isascii():
        text = "".join(unicodedata.normalize("NFKC", c) if "\U0001d400" <= c <= "\U0001d7ff" else c for c in text)
        text = _RAISED.sub(lambda match: "^{" + match[0].translate(_RAISED_DIGITS) + "}", text)
        text = _LOWERED.sub(lambda match: "_{" + match[0].translate(_LOWERED_DIGITS) + "}", text)
        text = text.translate(_CHARACTERS)
    tokens = tuple(_Tokenizer(_lexemes(text)).run())
    depth = 0
    for token in tokens:
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        if depth > MAX_DEPTH:
            raise Unreadable(f"brackets deeper than {MAX_DEPTH}")
    return tokens


def contents(tokens, start: int) -> int:
    """Index of the token that closes the bracket at `start`. Any bracket closes any other, as in [1, 2)."""
    depth = 0
    for i in range(start, len(tokens)):
        depth += (tokens[i].kind in ("open", "begin")) - (tokens[i].kind in ("close", "end"))
        if depth == 0:
            return i
    raise Unreadable("brackets that are not balanced")


def split(tokens, separators) -> list[list[Token]]:
    """The tokens between separators outside brackets; `separators` tells whether a token is one."""
    parts, depth = [[]], 0
    for token in tokens:
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        if depth == 0 and separators(token):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _lexemes(text: str) -> list[tuple[str, str]]:
    found = []
    for match in _LEXEME.finditer(text):
        found.append((match.lastgroup or "", match[0]))
        if len(found) > MAX_TOKENS:
            raise Unreadable(f"an answer of more than {MAX_TOKENS} tokens")
    return found


class _Tokenizer:
    def __init__(self, lexemes: list[tuple[str, str]]):
        self.lexemes, self.i, self.depth, self.spaced = lexemes, 0, 0, ""
        self.tokens: list[Token] = []
        self.dollars = sum(lexeme == ("other", "$") for lexeme in lexemes)

    def run(self) -> list[Token]:
        while self.i < len(self.lexemes):
            self.read("")
        return self.tokens

    def add(self, kind: str, text: str, font: str = ""):
        self.tokens.append(Token(kind, text, self.spaced, font))
        self.spaced = ""

    def peek(self) -> tuple[str, str]:
        """The next lexeme other than a space; empty at the end."""
        while self.i < len(self.lexemes) and self.lexemes[self.i][0] == "space":
            self.i += 1
        return self.lexemes[self.i] if self.i < len(self.lexemes) else ("", "")

    def read(self, font: str):
        """Read one lexeme. A font or an accent also reads what it is put on."""
        kind, text = self.lexemes[self.i]
        self.i += 1
        if kind == "space":
            self.spaced = self.spaced or " "
        elif kind == "number":
            self.add("number", text, font)
        elif kind in ("letters", "words"):
            self.add("letters", text, font or ("text" if kind == "words" else ""))
        elif kind == "command":
            self.command(text[1:].rstrip("*"), font)
        elif kind == "escape":
            self.escape(text[1], font)
        elif text in ("{", "}"):
            self.brace(text)
        elif text == "$":
            self.dollar()
        elif text in OTHERS:
            self.add(*OTHERS[text], font)
        else:
            self.add("bad", text)

    def brace(self, text: str):
        self.depth += 1 if text == "{" else -1
        if not 0 <= self.depth <= MAX_DEPTH:
            raise Unreadable(f"braces that are not balanced, or deeper than {MAX_DEPTH}")
        self.add(*OTHERS[text])

    def dollar(self):
        """`$4` is money if no other `$` closes the mathematics. Delimiters are left out."""
        if self.dollars == 1 and self.peek()[0] == "number":
            self.add("currency", "$")
        else:
            self.spaced = self.spaced or " "

    def escape(self, character: str, font: str):
        if character in ",:;>! ":
            self.spaced = "thin" if character in ",:;>!" else self.spaced or " "
            if character == "!":
                self.spaced = "negative"
        elif character in "()[]":
            self.spaced = self.spaced or " "
        elif character == "\\":
            self.double_backslash()
        elif character in ESCAPES:
            self.add(*ESCAPES[character], font)
        elif character == "-" or (character.isascii() and character.isdigit()):
            if self.in_matrix():  # a row that ends in one backslash, as in the answers of MATH
                self.add("op", "\\\\")
            self.i -= 1  # what follows the backslash is read again
            self.lexemes[self.i : self.i + 2] = _lexemes(
                character + "".join(t for _, t in self.lexemes[self.i + 1 : self.i + 2])
            )
        else:
            self.add("bad", "\\" + character)

    def in_matrix(self) -> bool:
        return next(
            (token.kind == "begin" for token in reversed(self.tokens) if token.kind in ("begin", "end")), False
        )

    def double_backslash(self):
        """The end of a row, or a command whose backslash was doubled, as in JSON."""
        kind, text = self.lexemes[self.i] if self.i < len(self.lexemes) else ("", "")
        if kind == "letters" and not self.in_matrix() and (text in COMMANDS or text in ACTION_OF):
            self.i += 1
            self.command(text, "")
        else:
            self.add("op", "\\\\")

    def command(self, name: str, font: str):
        action, _, of = ACTION_OF.get(name, "").partition(" ")
        if action == "drop":
            if name in ("left", "right") and self.peek()[1] == ".":
                self.i += 1
        elif action == "space":
            self.spaced = self.spaced or " "
        elif action == "font":
            self.argument(of or font)
        elif action == "accent":
            self.accent(of)
        elif action == "argument":
            self.raw_group()
        elif name in ("begin", "end"):
            self.environment(name)
        elif name == "AA":
            self.add("letters", "Å", "text")
        elif name in COMMANDS:
            self.add(*COMMANDS[name])
        elif known := next((name[:n] for n in range(len(name) - 1, 1, -1) if name[:n] in COMMANDS), ""):
            self.i -= 1  # `\pir` for `\pi r`
            self.lexemes[self.i] = ("letters", name[len(known) :])
            self.command(known, font)
        else:
            self.add("bad", "\\" + name)

    def argument(self, font: str):
        """Read what a font command is put on: a group, whose braces are left out, or one lexeme."""
        kind, text = self.peek()
        if text != "{":
            if kind:
                if kind in ("letters", "number") and len(text) > 1:  # `\mathbf ij` is a bold i
                    self.lexemes[self.i : self.i + 1] = [(kind, text[0]), (kind, text[1:])]
                self.read(font)
            return
        self.i += 1
        depth, spaced = self.depth, self.spaced
        self.depth += 1
        start = len(self.tokens)
        while self.i < len(self.lexemes):
            if self.depth == depth + 1 and self.lexemes[self.i] == ("other", "}"):
                break
            self.read(font)
        else:
            raise Unreadable("a group that is not closed")
        self.i, self.depth = self.i + 1, depth
        if len(self.tokens) > start and spaced:
            self.tokens[start] = self.tokens[start]._replace(spaced=self.tokens[start].spaced or spaced)

    def raw_group(self) -> str:
        """Skip the next group and return its text, of which only plain text is ever used."""
        kind, text = self.peek()
        if text != "{":
            return ""
        depth, parts = 0, []
        for i in range(self.i, len(self.lexemes)):
            text = self.lexemes[i][1]
            depth += (text == "{") - (text == "}")
            parts.append(text)
            if depth == 0:
                self.i = i + 1
                return "".join(parts[1:-1])
        raise Unreadable("a group that is not closed")

    def accent(self, accent: str):
        r"""Read `\bar{x}` as a symbol of its own. Only plain names can have accents: nothing else becomes a name."""
        kind, text = self.peek()
        if text == "{":
            inner = self.raw_group().strip()
        elif kind in ("letters", "number") and len(text) > 1:
            inner = text[0]
            self.lexemes[self.i] = (kind, text[1:])
        else:
            inner = text
            self.i += 1
        before = self.tokens[-1] if self.tokens else None
        if inner.startswith("\\"):
            inner = inner[1:]
            plain = inner in GREEK or inner in ("imath", "jmath")
        else:
            plain = re.fullmatch(r"[A-Za-z]{1,3}[0-9']?", inner) is not None
        if accent in ("bar", "dot") and inner.isascii() and inner.isdigit() and before and before.kind == "number":
            digits = f"{before.text[:-1]}{inner})" if before.text.endswith(")") else f"{before.text}({inner})"
            self.tokens[-1] = before._replace(text=digits)  # 0.1\overline{6}, and 0.\dot{7}\dot{2}
        elif not plain:
            self.add("bad", f"\\{accent}")
        elif accent == "mathbb":
            self.add("symbol", f"mathbb_{inner}")
        elif accent == "bar" and len(inner) > 1 and inner.isalpha() and inner.isupper():
            self.add("letters", inner)  # a segment
        elif accent == "vec" or (accent == "hat" and inner in ("i", "j", "k", "imath", "jmath")):
            self.add("letters", inner[0] if inner in ("imath", "jmath") else inner, "bf")
        else:
            self.add("symbol", f"{accent}_{inner}")

    def environment(self, name: str):
        kind = self.raw_group().strip().rstrip("*")
        if kind not in MATRICES:
            self.add("bad", f"\\{name}")
            return
        if name == "begin" and kind == "array":
            self.raw_group()  # the columns
        self.add(name, kind)
