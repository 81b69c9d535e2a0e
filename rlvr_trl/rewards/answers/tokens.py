r"""
LaTeX, and what models write in its place, as a list of tokens from a closed set.

Nothing later sees the raw text: commands are looked up in the tables below, the name of a symbol is a letter, a Greek
letter or a few letters and digits in its subscript, and everything else becomes a token of kind `"bad"`, which no
expression may hold. One pass over the text, and no more than `MAX_TOKENS` tokens nested `MAX_DEPTH` deep.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple


MAX_TOKENS = 2_000
MAX_DEPTH = 40


class Token(NamedTuple):
    r"""
    kind: `number`, `letters`, `symbol` (a name that is one), `name` (a function), `op`, `open`, `close`, `command`
    (takes arguments), `begin`, `end`, `big` (sums, integrals, limits), `bad`. `spaced`: `" "` after a space, `"thin"`
    after a thin one such as `\,`, else empty. `font`: `text`, `rm` or `bf` where a font command says so.
    """

    kind: str
    text: str
    spaced: str = ""
    font: str = ""


class Unreadable(ValueError):
    """A text that is no answer this package can read."""


GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar nabla partial aleph"
).split()
_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/"}
    | {"∙": r"\cdot ", "•": r"\cdot ", "∗": "*", "⁄": "/", "∕": "/", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt "}
    | {"°": r"^\circ ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx "}
    | {"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "ℝ": r"\mathbb{R}"}
    | {"ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "∖": r"\setminus "}
    | {"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"}
    | {
        "⅕": r"\frac{1}{5}",
        "⅛": r"\frac{1}{8}",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "〈": r"\langle ",
        "〉": r"\rangle ",
    }
    | {"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "′": "'", "’": "'", "‘": "'", "″": "''"}
    | {
        "“": " ",
        "”": " ",
        '"': " ",
        "`": " ",
        "、": ",",
        "。": ".",
        "，": ",",
        "【": "[",
        "】": "]",
        "∶": ":",
        "￥": "¥",
    }
    | {"…": r"\ldots ", "→": r"\to ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "✓": " ", "✔": " ", "✅": " "}
    | {"\u200b": "", "\u2060": "", "\ufeff": "", "\u2009": r"\,", "\u202f": r"\,", "\ufe0f": "", "\0": " "}
    | {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
    | dict(zip("αβγδεζηθικλμνξορστυφχψωµ", [rf"\{name} " for name in (*GREEK[:23], "mu")], strict=True))
    | dict(zip("ΓΔΘΛΞΠΣΥΦΨΩ", [rf"\{name} " for name in GREEK[23:34]], strict=True))
)
_RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED, _LOWERED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉]+")

FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch arcsinh arccosh "
    "arctanh log ln lg exp gcd lcm max min det Re Im arg"
)
# How functions are called in plain text, as in sqrt(2) and asin(x).
NAMES = {name: name for name in f"{FUNCTIONS} sqrt cbrt abs floor ceil".split()} | {
    other: name
    for name, others in {
        "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh arsinh", "arccosh": "acosh arcosh",
        "arctanh": "atanh artanh", "tan": "tg", "cot": "ctg", "csc": "cosec", "ceil": "ceiling", "log": "Log", "ln": "Ln",
    }.items()
    for other in others.split()
}  # fmt: skip

# What a command is. The parser of expressions reads the arguments of those of kind `command`.
_TABLE = {
    ("command", "frac"): "frac dfrac tfrac cfrac nicefrac sfrac",
    ("command", "binom"): "binom dbinom tbinom",
    ("command", "sqrt"): "sqrt",
    ("command", "pmod"): "pmod",
    ("symbol", "epsilon"): "varepsilon",
    ("symbol", "theta"): "vartheta",
    ("symbol", "phi"): "varphi",
    ("symbol", "rho"): "varrho",
    ("symbol", "sigma"): "varsigma",
    ("symbol", "pi"): "pi",
    ("symbol", "infty"): "infty infinity",
    ("symbol", "emptyset"): "emptyset varnothing",
    ("name", "tan"): "tg",
    ("name", "cot"): "ctg",
    ("name", "csc"): "cosec",
    ("op", "*"): "cdot times ast cdotp bullet star",
    ("op", "/"): "div slash",
    ("op", "±"): "pm",
    ("op", "∓"): "mp",
    ("op", "'"): "prime",
    ("op", "°"): "circ degree",
    ("op", "%"): "percent",
    ("op", ":"): "colon ratio",
    ("op", "<="): "le leq leqslant leqq",
    ("op", ">="): "ge geq geqslant geqq",
    ("op", "<"): "lt",
    ("op", ">"): "gt",
    ("op", "!="): "ne neq",
    ("op", "in"): "in",
    ("op", "≈"): "approx simeq thickapprox doteq",
    ("op", "≡"): "equiv cong",
    ("op", "cup"): "cup bigcup",
    ("op", "cap"): "cap",
    ("op", "setminus"): "setminus backslash smallsetminus",
    ("op", "..."): "ldots dots cdots dotsc dotsb",
    ("op", "to"): "to rightarrow Rightarrow implies iff Leftrightarrow mapsto therefore",
    ("op", "|"): "vert lvert rvert mid",
    ("op", "‖"): "Vert lVert rVert parallel",
    ("open", "\\{"): "lbrace",
    ("close", "\\}"): "rbrace",
    ("open", "["): "lbrack",
    ("close", "]"): "rbrack",
    ("open", "("): "lparen",
    ("close", ")"): "rparen",
    ("open", "<"): "langle",
    ("close", ">"): "rangle",
    ("open", "⌊"): "lfloor",
    ("close", "⌋"): "rfloor",
    ("open", "⌈"): "lceil",
    ("close", "⌉"): "rceil",
    ("currency", "$"): "dollar textdollar",
    ("currency", "£"): "pounds textsterling",
    ("currency", "€"): "euro texteuro",
    ("currency", "¥"): "yen",
}
_AS_THEY_ARE = {  # those that are called what they are
    "symbol": " ".join(GREEK) + " imath jmath odot triangle angle",
    "name": FUNCTIONS,
    "big": "sum prod int iint oint lim limsup liminf bigcap",
    "op": "forall exists land lor lnot neg perp because sim wedge vee subset subseteq otimes oplus propto bmod mod",
}
_COMMANDS = {name: (kind, name) for kind, names in _AS_THEY_ARE.items() for name in names.split()} | {
    name: token for token, names in _TABLE.items() for name in names.split()
}
# How commands that are no tokens act: left out, a space, a font, an accent on a name, or left out with their argument.
_ACTIONS = {
    "drop": "displaystyle textstyle scriptstyle limits nolimits Large LARGE large normalsize small huge Huge tiny "
    "footnotesize mathstrut strut checkmark qed square blacksquare hfill noindent nonumber bf rm it sf tt bfseries "
    "boldmath centering normalfont nobreak relax null left right middle big Big bigg Bigg bigl Bigl biggl Biggl bigr "
    "Bigr biggr Biggr bigm Bigm biggm Biggm",
    "space": "quad qquad enspace enskip thinspace medspace thickspace negthinspace newline par",
    "font text": "text textit textrm textnormal textsf texttt textup textbf textsc mbox hbox emph fbox framebox",
    "font rm": "mathrm operatorname mathsf mathtt",
    "font bf": "mathbf boldsymbol bm pmb",
    "font": "mathit mathnormal underline boxed ensuremath cancel",
    "accent bar": "bar overline",
    "accent vec": "vec overrightarrow",
    "accent hat": "hat widehat",
    "accent tilde": "tilde widetilde",
    "accent dot": "dot",
    "accent ddot": "ddot",
    "accent cal": "mathcal mathscr mathfrak",
    "accent mathbb": "mathbb Bbb",
    "argument": "color textcolor phantom hphantom vphantom hspace vspace label tag",
}
_ACTION_OF = {name: action for action, names in _ACTIONS.items() for name in names.split()}
_MATRICES = ("matrix", "pmatrix", "bmatrix", "vmatrix", "Bmatrix", "Vmatrix", "smallmatrix", "psmallmatrix", "array")
_ESCAPES = {
    "{": ("open", "\\{"), "}": ("close", "\\}"), "%": ("op", "%"), "$": ("currency", "$"), "|": ("op", "‖"),
    "_": ("op", "_"), "&": ("op", ","),
}  # fmt: skip
_OTHERS = (
    {c: ("op", c) for c in "+-*/^_=,;:!|%'&?@≡."}
    | {"<": ("op", "<"), ">": ("op", ">"), "(": ("open", "("), "[": ("open", "["), "{": ("open", "{")}
    | {")": ("close", ")"), "]": ("close", "]"), "}": ("close", "}")}
    | {c: ("currency", c) for c in "¥€£"}
)
_LEXEME = re.compile(
    r"(?P<space>[\s~]+)|(?P<number>(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)|(?P<letters>[A-Za-z]+)"
    r"|(?P<command>\\[A-Za-z]+\*?)|(?P<escape>\\.)|(?P<words>[^\W\d_]+)|(?P<other>.)",
    re.DOTALL | re.ASCII,
)


@lru_cache(maxsize=4_096)
def tokenize(text: str) -> tuple[Token, ...]:
    """
    Tokens of a text.

    Raises:
        `Unreadable`: The text is too long, nested too deep, or its braces are not balanced.
    """
    if not text.isascii():
        text = "".join(unicodedata.normalize("NFKC", c) if "\U0001d400" <= c <= "\U0001d7ff" else c for c in text)
        text = _RAISED.sub(lambda match: "^{" + match[0].translate(_RAISED_DIGITS) + "}", text)
        text = _LOWERED.sub(lambda match: "_{" + match[0].translate(_LOWERED_DIGITS) + "}", text)
        text = text.translate(_CHARACTERS)
    return tuple(_Tokenizer(_lexemes(text)).run())


def _lexemes(text: str) -> list[tuple[str, str]]:
    found = []
    for match in _LEXEME.finditer(text):
        kind = match.lastgroup
        lexeme = match[0]
        if kind == "other" and ord(lexeme) > 127 and lexeme.isalpha():
            kind = "words"
        found.append((kind, lexeme))
        if len(found) > MAX_TOKENS:
            raise Unreadable(f"an answer of more than {MAX_TOKENS} tokens")
    return found


class _Tokenizer:
    def __init__(self, lexemes: list[tuple[str, str]]):
        self.lexemes, self.i, self.depth, self.spaced = lexemes, 0, 0, ""
        self.tokens: list[Token] = []

    def run(self) -> list[Token]:
        while self.i < len(self.lexemes):
            self.read("")
        return self.tokens

    def add(self, kind: str, text: str, font: str = ""):
        self.tokens.append(Token(kind, text, self.spaced, font))
        self.spaced = ""

    def peek(self) -> tuple[str, str]:
        """The next lexeme that is no space; empty at the end."""
        while self.i < len(self.lexemes) and self.lexemes[self.i][0] == "space":
            self.i += 1
        return self.lexemes[self.i] if self.i < len(self.lexemes) else ("", "")

    def read(self, font: str):
        """One lexeme, and with a font or an accent what it is put on."""
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
        elif text in _OTHERS:
            self.add(*_OTHERS[text], font)
        else:
            self.add("bad", text)

    def brace(self, text: str):
        self.depth += 1 if text == "{" else -1
        if not 0 <= self.depth <= MAX_DEPTH:
            raise Unreadable(f"braces that are not balanced, or deeper than {MAX_DEPTH}")
        self.add(*_OTHERS[text])

    def dollar(self):
        """`$4` is money where nothing closes the mathematics; delimiters are left out."""
        first = not any(lexeme == ("other", "$") for lexeme in self.lexemes[: self.i - 1])
        later = sum(lexeme == ("other", "$") for lexeme in self.lexemes[self.i :])
        if first and later == 0 and self.peek()[0] == "number":
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
        elif character in _ESCAPES:
            self.add(*_ESCAPES[character], font)
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
        if kind == "letters" and not self.in_matrix() and (text in _COMMANDS or text in _ACTION_OF):
            self.i += 1
            self.command(text, "")
        else:
            self.add("op", "\\\\")

    def command(self, name: str, font: str):
        action, _, of = _ACTION_OF.get(name, "").partition(" ")
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
        elif name in _COMMANDS:
            self.add(*_COMMANDS[name])
        elif known := next((name[:n] for n in range(len(name) - 1, 1, -1) if name[:n] in _COMMANDS), ""):
            self.i -= 1  # `\pir` for `\pi r`
            self.lexemes[self.i] = ("letters", name[len(known) :])
            self.command(known, font)
        else:
            self.add("bad", "\\" + name)

    def argument(self, font: str):
        """What a font command is put on: a group, without its braces, or one lexeme."""
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
        """The text of the next group, which is left out; only plain text is ever used."""
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
        r"""`\bar{x}` as a symbol of its own. Only a plain name can carry an accent: nothing else becomes a name."""
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
        if accent == "bar" and inner.isascii() and inner.isdigit() and before and before.kind == "number":
            self.tokens[-1] = before._replace(text=f"{before.text}({inner})")  # 0.1\overline{6}
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
        if kind not in _MATRICES:
            self.add("bad", f"\\{name}")
            return
        if name == "begin" and kind == "array":
            self.raw_group()  # the columns
        self.add(name, kind)
