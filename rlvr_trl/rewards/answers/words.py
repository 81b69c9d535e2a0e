"""Answers in words: what is a word rather than a product of letters, and in which form words are compared."""

from .commands import NAMES
from .expressions import Expr
from .kinds import RELATIONS, Answer, Named, Text, Unread, Value
from .parser import function_prefix
from .quantities import has_vowel, unit_start
from .surroundings import is_separator
from .tokens import Token


_NO_SOLUTION = frozenset(
    ["nosolution", "nosolutions", "nosolutionexists", "therearenosolutions", "emptyset", "theemptyset"]
    + ["norealsolution", "norealsolutions", "thereisnosolution", "theemptyset", "nosuchnumber"]
)  # fmt: skip
_ALL_REALS = frozenset(["allrealnumbers", "allreals", "allreal", "anyrealnumber", "therealnumbers", "allrealx"])
_SHORT_WORDS = frozenset(
    ["no", "yes", "odd", "one", "two", "six", "ten", "red", "may", "up", "all", "sun", "mon", "tue"]
)
_PUNCTUATION = (".", ",", ";", ":", "?", "'")


def text_of(tokens: list[Token]) -> Answer:
    """Words with the numbers and signs among them, without spaces, punctuation and an article at the beginning."""
    while len(tokens) > 1 and tokens[0].text.lower() in ("a", "an", "the") and tokens[1].spaced:
        tokens = tokens[1:]
    pieces = []
    for i, token in enumerate(tokens):
        around = {tokens[i - 1].kind, tokens[i + 1].kind} if 0 < i < len(tokens) - 1 else set()
        hyphen = token.text == "-" and around == {"letters"}
        mark = token.kind == "op" and ((token.text in _PUNCTUATION and around != {"number"}) or hyphen)
        if not mark and token.text not in ("{", "}"):
            pieces.append(" " * (token.kind == "number" == tokens[i - 1].kind and i > 0) + token.text)
    words = "".join(pieces).casefold()
    if not any(c.isalnum() for c in words):
        return unread(tokens)
    if words in _NO_SOLUTION:
        return Named("empty")
    if words in _ALL_REALS:
        return Named("R")
    original = "".join((" " if token.spaced and i else "") + token.text for i, token in enumerate(tokens))
    if 1 < len(original) <= 3 and original.isupper() and words not in _SHORT_WORDS:
        return Text(original, original)  # AB is not another way to write ab
    return Text(words, original)


def unread(tokens: list[Token]) -> Unread:
    """Tokens that no kind fits. They are compared without spaces, except those between numbers."""
    apart = [a.kind == b.kind == "number" for a, b in zip(tokens, tokens[1:], strict=False)]
    text = "".join((" " if space else "") + token.text for space, token in zip([False, *apart], tokens, strict=True))
    return Unread(text, tuple(tokens))


def is_wordy(tokens: list[Token]) -> bool:
    """Whether tokens that no kind fits are words: several words, or one of at least four letters."""
    words = [token.text for token in tokens if token.kind == "letters"]
    longest = max(map(len, words), default=0)
    return longest > 3 or (len(words) > 1 and longest > 2)


def read_words(tokens: list[Token]) -> Answer | None:
    """Words and nothing else. Single letters, and short runs of letters that may be products, are not words."""
    if _is_phrase(tokens):
        return text_of(tokens)
    words = [token for token in tokens if token.kind == "letters"]
    marks = [token.text for token in tokens if token.kind == "op"]
    if len(words) + len(marks) != len(tokens) or not words or not set(marks) <= set("-.'!?"):
        return None
    if any(token.text.lower() in ("and", "or") and token.spaced for token in words[1:-1]):
        return None  # a list
    if len(words[0].text) == 1 and words[0].font == "" and unit_start(tokens) == 1:
        return None  # x cm
    if [token.text.lower() for token in tokens] == ["-", "infinity"]:
        return Value(Expr("neg", (Expr("sym", name="infty"),)))
    if len(tokens) == 1:
        return _single_word(tokens)
    if ("-" in marks and all(len(token.text) < 3 for token in words)) or ("'" in marks and len(words) == 1):
        return None  # a - b, or f'
    single = [len(token.text) == 1 for token in words]
    if all(one and token.font != "text" for one, token in zip(single, words, strict=True)):
        return None
    if any(single) and any(token.font in ("rm", "bf") for token in words):
        return None
    short = all(len(token.text) < 3 and token.font != "text" for token in words)
    return None if short else text_of(tokens)


def _is_phrase(tokens: list[Token]) -> bool:
    """Whether this is like "October 30", or several words with other tokens among them, as in "it may be 11"."""
    first = tokens[0].text if tokens[0].kind == "letters" else ""
    if (
        (len(first) > 3 or (len(first) == 3 and first.istitle()))
        and function_prefix(first.lower()) is None
        and {t.kind for t in tokens} == {"letters", "number"}
    ):
        return True
    apart = [
        token.text for i, token in enumerate(tokens) if token.kind == "letters" and (token.spaced == " " or not i)
    ]
    if sum(len(word) > 1 and word not in NAMES and has_vowel(word) for word in apart) < 2:
        return False
    mathematics = any(token.kind == "op" and token.text in (*RELATIONS, "^") for token in tokens)
    plain = not mathematics and not any(is_separator(token) for token in tokens)
    return plain and unit_start(tokens) is None and not any(token.kind == "open" for token in tokens)


def _single_word(tokens: list[Token]) -> Answer | None:
    word, font = tokens[0].text, tokens[0].font
    if word.lower() in ("infinity", "inf", "infty"):
        return Value(Expr("sym", name="infty"))
    if len(word) == 1:
        return None if font == "bf" or word.islower() else Text(word, word)
    return None if word in (*NAMES, "pi", "theta") else text_of(tokens)
