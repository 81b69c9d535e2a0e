"""What MkDocs does besides: formulas become MathML, which needs no script, and links out of docs/ become paths."""

import html
import posixpath
import re

from latex2mathml.converter import convert


_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_CODE = r"```.*?^```|`[^`\n]+`"
_LINK = re.compile(rf"{_CODE}|(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s#]+)(?:#[^)\s]*)?\)", re.DOTALL | re.MULTILINE)


def on_page_content(content: str, **kwargs) -> str:
    """The formulas that arithmatex has marked, as MathML."""

    def formula(found: re.Match) -> str:
        return convert(html.unescape(found[2]).strip(), display="inline" if found[1] == "span" else "block")

    return _FORMULA.sub(formula, content)


def on_page_markdown(markdown: str, page, **kwargs) -> str:
    """A link to a file of the repository that is no page becomes its text and the path of that file."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def outside(found: re.Match) -> str:
        if found[2] is None:  # code
            return found[0]
        path = posixpath.normpath(posixpath.join(folder, found[2]))
        return found[0] if path.startswith("docs/") else f"{found[1]} (`{path}`)"

    return _LINK.sub(outside, markdown)
