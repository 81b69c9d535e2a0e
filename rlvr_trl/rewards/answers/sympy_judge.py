"""The last resort: math-verify, which gets LaTeX that is written anew from tokens of a closed set."""

import re
from functools import lru_cache

from .commands import FUNCTIONS, GREEK
from .tokens import Token, Unreadable, contents


_SIGNS = {sign: sign for sign in "+-*/^_=,|!:<>&()[]{}"} | {
    "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "to": r"\to ", "cup": r"\cup ",
    "cap": r"\cap ", "setminus": r"\setminus ", "in": r"\in ", "\\\\": r"\\", "%": r"\%", "°": r"\circ ",
    "×": r"\times ", "\\{": r"\{", "\\}": r"\}", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
}  # fmt: skip
_SYMBOLS = frozenset([*GREEK, "pi", "infty", "emptyset"])
_LARGE_OPERATORS = frozenset(["sum", "prod", "int", "lim"])
MAX_LETTERS = 12  # in a run of letters
_PLAIN_NAME = re.compile(r"[A-Za-z0-9]{1,20}(?:_\{?[A-Za-z0-9]{1,20}\}?)?", re.ASCII)
MAX_LATEX_TOKENS = 300  # some longer texts take the parser of math-verify minutes
# Judging these pairs imports all that any pair needs: sets, matrices, sums, integrals, limits, relations, series.
WARM_UP = (
    (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}+\sum_{k=1}^{0} k"),
    (r"\sum_{k=0}^{\infty}\frac{1}{2^k}", r"\prod_{k=1}^{2} k"),
    (r"\int_0^1 x^2 dx", r"\int \sin x dx"),
    (r"\lim_{x\to 0}\frac{\sin x}{x}", r"\int_0^{\infty} e^{-x^2} dx"),
    (r"\begin{vmatrix}1&2\\3&x\end{vmatrix}", "x-6"),
    (r"1,2,\ldots", r"\{1,2,\ldots\}"),
    (r"\sqrt{x!!}+1", r"\log_{x!!} \pi \mod 3"),
    (r"\sum_{k=1}^{3} \binom{3}{k} x^k<1", r"\sum_{k=1}^{3} x^k \ge |y|"),
    (r"\sum_{n=0}^{\infty}\frac{x^n}{n!}", r"e^x+\sum"),
    (r"\sum_{n=1}^{\infty}\frac{1}{n^2}", r"\frac{\pi^2}{6}"),
    (r"\frac{)x", r"\int(x+*"),
)


def latex(tokens: tuple[Token, ...]) -> str | None:
    """
    The tokens as LaTeX in which all names are letters, Greek letters or functions; `None` if that is not possible. A
    subscript, whose text SymPy would take for a name, has only digits and letters.
    """
    if len(tokens) > MAX_LATEX_TOKENS:
        return None
    parts = []
    for i, token in enumerate(tokens):
        if (token.text == "^" and _has_exponent(tokens, i)) or (token.text == "!" and i and tokens[i - 1].text == "!"):
            part = None
        elif token.kind == "number":
            beside = i and tokens[i - 1].kind == "number"  # 3 4 is not 34
            part = None if "(" in token.text or beside else token.text
        elif token.kind == "letters":
            plain = len(token.text) <= MAX_LETTERS and token.text.isascii() and not token.font
            part = None if not plain else rf"\{token.text} " if token.text in FUNCTIONS.split() else token.text
        elif token.kind == "symbol":
            part = rf"\{token.text} " if token.text in _SYMBOLS else None
        elif token.kind in ("name", "command"):
            part = rf"\{token.text} " if token.text not in ("pmod", "arg") else None
        elif token.kind == "big":
            part = rf"\{token.text}" if token.text in _LARGE_OPERATORS else None
        elif token.kind in ("begin", "end"):
            part = rf"\{token.kind}{{{token.text}}}" if token.text != "array" else None
        else:
            part = _SIGNS.get(token.text) if token.text != "_" or _plain_subscript(tokens, i) else None
        if part is None:
            return None
        parts.append(part)
    return "".join(parts)


def _has_exponent(tokens: tuple[Token, ...], at: int) -> bool:
    """Whether the base of an exponent has one already: x^x^x is not LaTeX and could become the text of a name."""
    at -= 1
    while at >= 0:
        if tokens[at].kind == "close" and tokens[at].text == "}":
            depth = 0
            while at >= 0:
                depth += (tokens[at].text == "}") - (tokens[at].text == "{")
                if depth == 0:
                    break
                at -= 1
        if at <= 0 or tokens[at - 1].text not in ("^", "_"):
            return False
        if tokens[at - 1].text == "^":
            return True
        at -= 2
    return False


def _plain_subscript(tokens: tuple[Token, ...], at: int) -> bool:
    before, after = tokens[at - 1] if at else None, tokens[at + 1 : at + 2]
    if before is not None and (before.kind == "big" or before.text == "log"):  # bounds, and a base
        return bool(after)
    if not after or after[0].text != "{":
        return bool(after) and after[0].kind in ("number", "letters")
    try:
        inside = tokens[at + 2 : contents(tokens, at + 1)]
    except Unreadable:
        return False
    return bool(inside) and all(token.kind in ("number", "letters") for token in inside)


def verify(reference: str, answer: str) -> bool:
    """Whether math-verify finds two texts of LaTeX equal, without taking letters for units."""
    from math_verify import verify

    references, answers = _parse_latex(reference), _parse_latex(answer)
    return bool(references and answers) and verify(list(references), list(answers), timeout_seconds=None)


@lru_cache(maxsize=1_000)
def _parse_latex(text: str) -> tuple:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    rules = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=False, nits=False, boxed="none", equations=False
    )
    config = LatexExtractionConfig(normalization_config=rules)
    # pyrefly: ignore[bad-argument-type]  # no time limit, which its annotation leaves out
    found = parse(f"${text}$", extraction_config=[config], fallback_mode="no_fallback", parsing_timeout=None)
    return tuple(found) if all(map(_names_are_plain, found)) else ()


def _names_are_plain(parsed) -> bool:
    """Whether all names that SymPy has made are plain: its printers would write anything else into source code."""
    from sympy import Basic, Function, Symbol
    from sympy.core.function import UndefinedFunction

    if isinstance(parsed, str):
        return False
    nodes = parsed.atoms(Symbol, Function) if isinstance(parsed, Basic) or hasattr(parsed, "atoms") else ()
    names = [node.name for node in nodes if isinstance(node, Symbol)]
    names += [node.func.__name__ for node in nodes if isinstance(type(node), UndefinedFunction)]
    return all(_PLAIN_NAME.fullmatch(name) for name in names)
