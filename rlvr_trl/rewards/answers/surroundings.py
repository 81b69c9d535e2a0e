"""What stands around and between answers and is no part of them, and numbers and signs that were written apart."""

import re

from .tokens import Token, Unreadable, contents


_LEAD_IN = frozenset(
    ["the", "final", "answer", "answers", "is", "are", "approximately", "approx", "about", "around", "roughly"]
    + ["nearly", "exactly", "therefore", "thus", "so", "hence", "we", "get", "have", "value", "result", "equals"]
    + ["equal", "to", "of", "it", "correct", "a", "an", "total"]
)
_CONDITIONS = frozenset(
    ["for", "if", "when", "where", "with", "since", "because", "as", "provided", "such", "whenever", "assuming"]
)
_GROUP = re.compile(r"\d{3}(?:\.\d*)?", re.ASCII)


def without_surroundings(tokens: list[Token]) -> list[Token]:
    while tokens:
        first, last = tokens[0], tokens[-1]
        if first.kind == "op" and first.text in ("*", ",", ";", ":", ".", "≈", "sim", "to", "implies", "\\\\", "="):
            tokens = tokens[1:]
        elif last.kind == "op" and last.text in (",", ";", ":", ".", "\\\\", "=", "?"):
            tokens = tokens[:-1]
        elif len(tokens) > 2 and last.text == "*" and tokens[-2].text == "*":  # bold
            tokens = tokens[:-2]
        elif first.text == "{" and closes_all(tokens):
            tokens = tokens[1:-1]
        elif last.kind == "number" and last.text.endswith("."):
            tokens = [*tokens[:-1], last._replace(text=last.text[:-1])]
        else:
            led = _without_lead_in(tokens)
            if len(led) == len(tokens):
                return tokens
            tokens = led
    return tokens


def closes_all(tokens: list[Token]) -> bool:
    try:
        return tokens[0].kind == "open" and contents(tokens, 0) == len(tokens) - 1
    except Unreadable:
        return False


def _without_lead_in(tokens: list[Token]) -> list[Token]:
    """`The answer is 42` or `approximately 42` without the words in front."""
    count = 0
    while count < len(tokens) and tokens[count].kind == "letters" and tokens[count].text.lower() in _LEAD_IN:
        count += 1
    words = [token.text.lower() for token in tokens[:count]]
    if not count or count == len(tokens) or tokens[count].text == "_":
        return tokens
    if count == 1 and (len(words[0]) < 3 or tokens[count].kind not in ("number", "command", "currency", "op")):
        return tokens
    if words in (["a"], ["an"], ["the"]) or tokens[count].text in ("=", "^", "'"):
        return tokens
    return tokens[count:]


def condition_start(tokens: list[Token]) -> int | None:
    r"""Where a word such as "for" or "because" leads to a condition or a reason, as in `x+1 \text{ for } x>0`."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        if depth == 0 and i and token.kind == "letters" and token.text.lower() in _CONDITIONS and is_word(token):
            before = tokens[:i]
            return i if any(t.kind in ("number", "command", "symbol", "name", "close") for t in before) else None
    return None


def is_word(token: Token) -> bool:
    return token.kind == "letters" and (token.font in ("text", "rm") or bool(token.spaced)) and len(token.text) > 1


def is_separator(token: Token) -> bool:
    if token.kind == "op":
        return token.text in (",", ";", "lor", "land")
    return token.kind == "letters" and token.text.lower() in ("and", "or")


def with_joined_digits(tokens: list[Token]) -> list[Token]:
    r"""Join digits separated by thin spaces, `{,}` or `,\!` into one number, and replace tokens as [`_meant`] says."""
    found: list[Token] = []
    i = 0
    while i < len(tokens):
        window, previous = tokens[i : i + 4], found[-1] if found else None
        group, taken = _group_ahead(window) if _is_integer(previous) else ("", 0)
        if previous is not None and taken:
            found[-1] = previous._replace(text=previous.text + group)
        else:
            kept, taken = _meant(window, previous)
            found += kept
        i += taken
    return found


def _is_integer(token: Token | None) -> bool:
    return token is not None and token.kind == "number" and token.text.isdigit()


def _group_ahead(window: list[Token]) -> tuple[str, int]:
    """Three digits that belong to the number before them, and how many tokens they take; 0 if there are none."""
    texts = [token.text for token in window]
    if texts[:3] == ["{", ",", "}"] and _is_group(texts[3:]):
        return texts[3], 4
    if texts[:1] == [","] and _is_group(texts[1:]) and "negative" in (window[0].spaced, window[1].spaced):
        return texts[1], 2
    if window[0].kind == "number" and window[0].spaced == "thin" and _is_group(texts):
        return texts[0], 1
    return "", 0


def _meant(window: list[Token], previous: Token | None) -> tuple[list[Token], int]:
    """What the first tokens mean, and how many they are, as in `6.02x10^23`, `x**2`, dy/dx and `{or}`."""
    texts = [token.text for token in window]
    if texts[:3] == ["{", ",", "}"]:
        return [window[1]], 3
    if texts[:2] == ["{", "}"] or (texts[1:2] == ["."] and texts[0] in ("np", "numpy", "math", "sympy", "sp")):
        return [], 2  # nothing, or the module of a function of Python
    if texts[:1] + texts[2:3] == ["{", "}"]:
        if texts[1] in ("or", "and"):
            return [Token("op", ",")], 3
        if previous is not None and previous[:2] == ("command", "pmod"):
            return [window[1]], 3
    if texts[:2] == ["not", "="]:
        return [Token("op", "!=")], 2
    if _is_derivative(window[:3]):
        return [Token("command", "frac"), *_braced(window[0]), *_braced(window[2])], 3
    if texts[:2] == ["*", "*"] and previous is not None and len(texts) > 2:
        return [Token("op", "^")], 2
    times = previous is not None and previous.kind == "number" and window[0].kind == "letters"
    if times and texts[0] in ("x", "X") and texts[1:3] == ["10", "^"]:
        return [Token("op", "*")], 1
    if texts[0] == "‖" and window[0].kind == "op":
        return [window[0]._replace(text="|")], 1
    return [window[0]], 1


def _is_derivative(tokens: list[Token]) -> bool:
    """Whether this is like dy/dx, whose second d and x belong together."""
    texts = [token.text for token in tokens]
    return len(texts) == 3 and texts[1] == "/" and all(len(t) == 2 and t[0] == "d" and t.isalpha() for t in texts[::2])


def _braced(token: Token) -> list[Token]:
    return [Token("open", "{"), token, Token("close", "}")]


def _is_group(texts: list[str]) -> bool:
    return len(texts) > 0 and _GROUP.fullmatch(texts[0]) is not None


def with_thousands(tokens: list[Token]) -> list[Token]:
    r"""Join `12,345` into one number unless it is inside brackets; braces, as in `\frac{1}{12,345}`, do not count."""
    found, depth, i = [], 0, 0
    while i < len(tokens):
        token, taken = tokens[i], 1
        if token.text not in ("{", "}"):
            depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        behind = found and found[-1].text in (",", "_", ".") and not token.spaced
        if depth == 0 and _is_integer(token) and len(token.text) <= 3 and token.text[0] != "0" and not behind:
            text, taken = _with_groups(tokens[i:])
            token = token._replace(text=text)
        found.append(token)
        i += taken
    return found


def _with_groups(tokens: list[Token]) -> tuple[str, int]:
    """The first number with the groups of three digits after it, and how many tokens these take."""
    text, end = tokens[0].text, 1
    while text.isdigit() and _follows(tokens, end) and _is_group([tokens[end + 1].text]):
        text += tokens[end + 1].text
        end += 2
    return (tokens[0].text, 1) if _follows(tokens, end) else (text, end)  # 1,234,5 is a list


def _follows(tokens: list[Token], at: int) -> bool:
    """Whether a comma and a number follow without a space."""
    near = tokens[at : at + 2]
    return len(near) == 2 and near[0].text == "," and near[1].kind == "number" and not any(t.spaced for t in near)
