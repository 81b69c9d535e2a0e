"""Makes text that others wrote (a model, a server, whoever named a file) safe to print on a terminal."""

import unicodedata


def printable(text: str) -> str:
    r"""
    The text with control and format characters as escapes, except line breaks and tabs. A terminal would obey them:
    `\x1b]0;…` sets its title, `\x1b[2J` clears it, `\u202e` reverses the direction of writing.
    """
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char)[0] == "C" and char not in "\n\t" else char for char in text
    )


def literal(text: str) -> str:
    """The text escaped for rich, which would take `[red]` for a style and fail at `[/x]`."""
    from rich.markup import escape  # imported here: errors of the command line need no rich

    return escape(printable(text))
