"""What is printed on a terminal: text that others wrote (a model, a server, whoever named a file), and tables."""

import unicodedata
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from rich.table import Table


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


def print_tables(*tables: "Table") -> None:
    """Prints tables. On a terminal that is too narrow for their numbers lines get longer than it: nothing is cut."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    unbounded = console.options.update(width=10_000)
    for table in tables:
        for column in table.columns:
            if column.no_wrap:  # rich itself would cut it
                lines = (line for cell in (column.header, *column.cells) for line in str(cell).splitlines())
                column.min_width = max(map(len, lines), default=0)
    console.width = max(console.width, *(Measurement.get(console, unbounded, table).minimum for table in tables))
    for table in tables:
        console.print(table)
