# Copyright (c) addp_mm contributors. Apache-2.0.
"""The pages: quoted messages are those of the code, links exist, prose has at most 100 columns."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob('docs/**/*.md'), *ROOT.glob('examples/**/*.md'), *ROOT.glob('*.md')]
PAGES = sorted([*PAGES, ROOT / 'addp_mm/assets/README.md'])
PAGES = [page for page in PAGES if page.name != 'tools_reference.md']
MESSAGES = (ROOT / 'docs/messages.md').read_text()
STARTS_WITH_COMMAND = (
    'options',
    'app',
    'swap',
    'timm_backbones',
    'own_data',
    'installation',
    'mmcv_without_a_compiler',
    'cluster',
    'checkpoints',
    'schedules',
    'metrics',
    'generation',
    'fashion_scenes',
    'check_data',
    'volo_training',
    'volo',
    'benchmark_backbones',
    'measure_speed',
)


@cache
def messages_of_the_code() -> str:
    """Every string of the package and its tools. NUL replaces a value inside a string."""
    found = []
    for path in sorted([*(ROOT / 'addp_mm').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else '\0' for part in node.values)
                found.append(''.join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return '\n'.join(found)


def rows(section: str) -> list[str]:
    """The messages of the first column of the table under a heading of docs/messages.md."""
    text = MESSAGES.partition(f'## {section}\n')[2].partition('\n## ')[0]
    return re.findall(r'^\| `([^`]+)`', text, re.M)


def missing_parts(message: str) -> list[str]:
    """Parts of a quoted message, between its ellipses, that are in no string of the code."""
    parts = [part.strip() for part in message.split('…')]
    return [part for part in parts if part and part not in messages_of_the_code()]


def our_sections() -> list[str]:
    return [title for title in re.findall(r'^## (.+)$', MESSAGES, re.M) if title != 'Messages of other packages']


@pytest.mark.parametrize('message', [message for title in our_sections() for message in rows(title)])
def test_a_quoted_message_is_in_the_code(message):
    assert not missing_parts(message), f'docs/messages.md quotes `{message}`; but the code has another message now'


def test_a_changed_message_is_noticed():
    assert missing_parts('holds no weights. … of another world') == ['of another world']
    assert len(our_sections()) >= 5
    assert all(rows(title) for title in our_sections())


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_wrapped_and_link_targets_exist(page):
    long, broken, in_code = [], [], False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith('```'):
            in_code = not in_code
        if in_code:
            continue
        is_prose = not line.startswith(('|', '![')) and 'http' not in line
        if is_prose and len(line) > 100 and ' ' in line.strip()[:100]:
            long.append(number)
        targets = re.findall(r'\]\(([^)#\s]+)', line)
        broken += [one for one in targets if '://' not in one and not (page.parent / one).exists()]
    assert not broken
    assert not long, 'lines over 100 columns'


@pytest.mark.parametrize('name', STARTS_WITH_COMMAND)
def test_a_guide_starts_with_a_command(name):
    lines = (ROOT / f'docs/{name}.md').read_text().splitlines()
    assert lines[0].startswith('# ')
    assert lines[2].startswith('```')


def test_the_table_of_patches_is_complete():
    from addp_mm import compat

    rows = '\n'.join(f'| `{patch.name}` | `{patch.module}` | {patch.fault} |' for patch in compat.PATCHES)
    assert rows in (ROOT / 'docs/compat.md').read_text(), f'put these rows into docs/compat.md:\n{rows}'
