# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tables in Markdown."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """A table in Markdown, with a newline at its end.

    Args:
        header: Titles of the columns.
        rows: As many cells in each.
        numbers: Whether all columns but the first are numbers, aligned on the right. Defaults to
            False.
    """
    rule = ['---', *['---:' if numbers else '---'] * (len(header) - 1)]
    lines = (' | '.join(cell.replace('|', r'\|') for cell in line) for line in (header, rule, *rows))
    return ''.join(f'| {line} |\n' for line in lines)
