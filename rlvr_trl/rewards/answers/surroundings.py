"""What stands around an answer and is no part of it, and digits and signs that are written apart."""

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
    """`The answer is 42` and `approximately 42` as 42."""
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
    r"""Where the words begin after which a condition or a reason follows, as in `x+1 \text{ for } x>0`."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        if depth == 0 and i and token.kind == "letters" and token.text.lower() in _CONDITIONS and is_word(token):
            before = tokens[:i]
            return i if any(t.kind in ("number", "command", "symbol", "name", "close") for t in before) else None
    return None


def is_word(token: Token) -> bool:
    return token.kind == "letters" and (token.font in ("text", "rm") or bool(token.spaced)) and len(token.text) > 1


def with_joined_digits(tokens: list[Token]) -> list[Token]:
    r"""Digits parted by thin spaces or by `{,}` and `,\!` as one number, `6.02x10^23` and `x**2` as they are meant."""
    found: list[Token] = []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        previous = found[-1] if found else None
        number = previous is not None and previous.kind == "number" and previous.text.isdigit()
        texts = [t.text for t in tokens[i : i + 4]]
        if number and texts[:3] == ["{", ",", "}"] and _is_group(texts[3:]):
            found[-1] = previous._replace(text=previous.text + texts[3])
            i += 4
            continue
        if (
            number
            and texts[:1] == [","]
            and _is_group(texts[1:2])
            and "negative" in (token.spaced, tokens[i + 1].spaced)
        ):
            found[-1] = previous._replace(text=previous.text + texts[1])
            i += 2
            continue
        if texts[:3] == ["{", ",", "}"]:
            found.append(tokens[i + 1])
            i += 3
            continue
        if texts[:2] == ["{", "}"] or (texts[1:2] == ["."] and texts[0] in ("np", "numpy", "math", "sympy", "sp")):
            i += 2  # nothing, or where Python has the function from
            continue
        if texts[:1] == ["{"] and texts[1:2] in (["or"], ["and"]) and texts[2:3] == ["}"]:
            found.append(Token("op", ","))
            i += 3
            continue
        if number and token.kind == "number" and token.spaced == "thin" and _is_group([token.text]):
            found[-1] = previous._replace(text=previous.text + token.text)
            i += 1
            continue
        if previous is not None and previous[:2] == ("command", "pmod") and texts[:1] == ["{"] and texts[2:3] == ["}"]:
            found.append(tokens[i + 1])
            i += 3
            continue
        if texts[:2] == ["not", "="]:
            found.append(Token("op", "!="))
            i += 2
            continue
        if _is_derivative(tokens[i : i + 3]):
            found += [Token("command", "frac"), *_braced(tokens[i]), *_braced(tokens[i + 2])]
            i += 3
            continue
        if texts[:2] == ["*", "*"] and found and len(texts) > 2:
            found.append(Token("op", "^"))
            i += 2
            continue
        after_number = previous is not None and previous.kind == "number"
        if after_number and token.text in ("x", "X") and texts[1:3] == ["10", "^"] and token.kind == "letters":
            token = Token("op", "*")
        if token.text == "‖" and token.kind == "op" and not found:
            token = token._replace(text="|")
        found.append(token)
        i += 1
    return found


def _is_derivative(tokens: list[Token]) -> bool:
    """dy/dx, where the second d and x belong together."""
    texts = [token.text for token in tokens]
    return len(texts) == 3 and texts[1] == "/" and all(len(t) == 2 and t[0] == "d" and t.isalpha() for t in texts[::2])


def _braced(token: Token) -> list[Token]:
    return [Token("open", "{"), token, Token("close", "}")]


def _is_group(texts: list[str]) -> bool:
    return len(texts) > 0 and _GROUP.fullmatch(texts[0]) is not None


def with_thousands(tokens: list[Token]) -> list[Token]:
    r"""`12,345` as one number, where no bracket but braces is around it, as in `\frac{1}{12,345}`."""
    found, depth, i = [], 0, 0
    while i < len(tokens):
        token = tokens[i]
        if token.text not in ("{", "}"):
            depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        first = token.kind == "number" and token.text.isdigit() and len(token.text) <= 3 and token.text[0] != "0"
        if depth == 0 and first and not (found and found[-1].text in (",", "_", ".") and not token.spaced):
            j = i + 1
            text = token.text
            while j + 1 < len(tokens) and tokens[j].text == "," and not tokens[j].spaced and not tokens[j + 1].spaced:
                if tokens[j + 1].kind != "number" or not _is_group([tokens[j + 1].text]):
                    break
                text += tokens[j + 1].text
                j += 2
                if not text.isdigit():
                    break
            if j < len(tokens) and tokens[j].text == "," and not tokens[j].spaced and j + 1 < len(tokens):
                following = tokens[j + 1]
                if following.kind == "number" and not following.spaced:  # 1,234,5 is a list
                    text, j = token.text, i + 1
            found.append(token._replace(text=text))
            i = j
            continue
        found.append(token)
        i += 1
    return found
