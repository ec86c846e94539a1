# Copyright (c) addp_mm contributors. Apache-2.0.
"""The results of ``addp benchmark-speed`` as one JSON object and one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from addp_mm.benchmark.times_report import EXPLANATION, about_lines
from addp_mm.report.markdown import markdown_table


def as_json(command: str, results: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]) -> dict[str, Any]:
    """Everything that was measured.

    Args:
        command: The command.
        results: What each tool wrote, by name of the measurement.
        failures: Causes of those that failed, by name.
    """
    return dict(command=command, measurements=dict(results), failures=dict(failures))


def as_markdown(command: str, results: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]) -> str:
    """The page; see :func:`as_json`."""
    parts = ['# Speed', f'```bash\n{command}\n```', EXPLANATION]
    for name, measured in results.items():
        parts.append(f'## {measured["title"]} ({name})')
        if measured.get('explanation', EXPLANATION) != EXPLANATION:  # this one is not timed
            parts.append(measured['explanation'])
        for group in measured['groups']:
            parts += [f'### {group["title"]}', '\n'.join(f'- {line}' for line in about_lines(group['about']))]
            for table in group['tables']:
                parts += [table['title']] if 'title' in table else []
                parts.append(markdown_table(table['header'], table['rows'], numbers=True).rstrip())
    if failures:
        parts += ['## Failed', '\n'.join(f'- {name}: {cause}' for name, cause in failures.items())]
    return '\n\n'.join(parts) + '\n'
