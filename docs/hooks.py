"""What MkDocs does besides.

Formulas become MathML, which needs no script. Links out of docs/ become paths. Code and intervals break where a reader
would break them.
"""

import html
import posixpath
import re

from latex2mathml.converter import convert


WHOLE = 30  # characters of code that stay in one line

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_TALL = re.compile(r'<mo (?:stretchy="true" fence="true" (form="\w+")|minsize="([\d.]+)em" maxsize="\S+")>(.*?)</mo>')
_CODE = r"```.*?^```|`[^`\n]+`"
_LINK = re.compile(rf"{_CODE}|(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s#]+)(?:#[^)\s]*)?\)", re.DOTALL | re.MULTILINE)
_BREAKABLE = re.compile(
    r"<pre.*?</pre>|<code>(?P<code>[^<]*)</code>|(?P<low>\[[+-]?[\d.,]+,) (?P<high>[+-]?[\d.,]+\])"
    r"|(?<=<t[dh]>)(?P<label>[^<]*\w-\w[^<]*)",
    re.DOTALL,
)
_HYPHENATED = re.compile(r"\w+(?:-\w+)+")
_PLACES = (r"::", r"[/=(,]|\.(?!py\b)", r"_")  # where a name that is too long breaks: the first that make it short


def on_page_content(content: str, **kwargs) -> str:
    """The formulas that arithmatex has marked, as MathML; and where lines may end."""

    def formula(found: re.Match) -> str:
        display = "inline" if found[1] == "span" else "block"
        return tall_brackets(convert(html.unescape(found[2]).strip(), display=display), display)

    return _BREAKABLE.sub(_with_breaks, _FORMULA.sub(formula, content))


def tall_brackets(mathml: str, display: str) -> str:
    """
    Brackets around fractions in a size of their own, centred by hand.

    A browser stretches them only with a font for mathematics, which many machines lack.
    """

    def tall(found: re.Match) -> str:
        form, minsize, bracket = found.groups()
        size = 1.5 if display == "inline" else float(minsize or 2.4)
        shift = -0.26 * (size - 1)  # a bracket reaches from -0.2 to 0.75 of its size, the axis is at 0.25
        operator = f'<mo stretchy="false" {form or ""} mathsize="{size}em">{bracket}</mo>'
        return f'<mpadded voffset="{shift:.2f}em">{operator}</mpadded>'

    return _TALL.sub(tall, mathml)


def _with_breaks(found: re.Match) -> str:
    """Short code, labels with a hyphen and intervals stay whole; names that are too long get places to break at."""
    if found["low"]:
        return f"{found['low']}&nbsp;{found['high']}"
    if found["label"]:
        return _HYPHENATED.sub(r'<span class="whole">\g<0></span>', found["label"])
    if found["code"] is None:  # a block
        return found[0]
    if len(html.unescape(found["code"])) <= WHOLE:
        return f'<code class="whole">{found["code"]}</code>'
    code = re.sub(r"\S+", lambda word: _with_places(word[0], _PLACES), found["code"])
    return f"<code>{code}</code>"


def _with_places(name: str, places: tuple[str, ...]) -> str:
    if len(name) <= WHOLE or not places:
        return f'<span class="whole">{name}</span>' if "-" in name else name  # else --name breaks after its first -
    return "<wbr>".join(_with_places(part, places[1:]) for part in re.split(f"(?<={places[0]})(?=.)", name))


def on_page_markdown(markdown: str, page, **kwargs) -> str:
    """A link to a file of the repository that is no page becomes its text and the path of that file."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def outside(found: re.Match) -> str:
        if found[2] is None:  # code
            return found[0]
        path = posixpath.normpath(posixpath.join(folder, found[2]))
        if path.startswith("docs/"):
            return found[0]
        return f"`{path}`" if path.endswith(found[1].strip("`")) else f"{found[1]} (`{path}`)"

    return _LINK.sub(outside, markdown)
