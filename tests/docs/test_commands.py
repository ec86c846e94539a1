# Copyright (c) addp_mm contributors. Apache-2.0.
"""Every command of a tool in the docs is one that the tool's parser takes."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from addp_mm.__main__ import CONVERTERS, TOOLS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md')), *sorted((ROOT / 'examples').rglob('*.md'))]
BLOCK = re.compile(r'^ *```bash\n(.*?)^ *```', re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r'([A-Z_]+)=(\S*)$')
SCRIPT = re.compile(r'(tools|\.dev|examples)/.*\.py$')
SEPARATORS = ('&&', '||', ';', '|', '>', '>>', '&')


def commands(page: Path) -> list[tuple[str, ...]]:
    """Words of each command in the bash blocks of a page, with its variables replaced.

    A capital letter stands for a number that the page names.
    """
    found, variables = [], {}
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace('\\\n', ' ').splitlines():
            words, command = shlex.split(line, comments=True), []
            while words and (assigned := ASSIGNMENT.match(words[0])):
                variables[assigned[1]] = assigned[2]
                words = words[1:]
            for word in [*words, ';']:
                if word in SEPARATORS:
                    found += [tuple(command)] if command else []
                    command = []
                else:
                    word = re.sub(r'\$(\w+)', lambda name: variables.get(name[1], name[0]), word)
                    command.append(re.sub(r'^[A-Z]$', '1', word))
    return found


def tool_of(command: tuple[str, ...]) -> tuple[Path, list[str]] | None:
    """Script and arguments of a command; None if it runs no tool of ours, or has a gap."""
    if '…' in command:
        return None
    words = list(command)
    if '-m' in words and 'addp_mm' in words[words.index('-m') + 1 :]:
        words = ['addp', *words[words.index('addp_mm', words.index('-m')) + 1 :]]
    if words[0] == 'addp' and words[1:2] == ['convert'] and words[2] in CONVERTERS:
        return ROOT / 'tools' / CONVERTERS[words[2]][0], words[3:]
    if words[0] == 'addp' and words[1] in TOOLS:
        return ROOT / 'tools' / TOOLS[words[1]][0], words[2:]
    if Path(words[0]).name.startswith('python') and len(words) > 1 and SCRIPT.match(words[1]):
        return ROOT / words[1], words[2:]
    return None


def parse(script: Path, arguments: list[str]) -> None:
    spec = importlib.util.spec_from_file_location(f'documented_{script.stem}', script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if hasattr(module, 'parse_args') or 'tools' in script.parts:
        module.parse_args(arguments)


def documented() -> list:
    cases = []
    for page in PAGES:
        for command in commands(page):
            tool = tool_of(command)
            if tool is not None and '--help' not in command:
                cases.append(pytest.param(*tool, id=f'{page.relative_to(ROOT)}: {shlex.join(command)}'))
    return cases


@pytest.mark.parametrize('script, arguments', documented())
def test_the_parser_of_a_tool_takes_what_the_docs_say(script, arguments, capsys):
    try:
        parse(script, arguments)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def test_many_commands_are_found_and_a_wrong_one_is_noticed():
    assert len(documented()) > 120
    with pytest.raises(SystemExit):
        parse(ROOT / 'tools/benchmarks/data_pipeline.py', ['--num-workers', '0', '1', 'CONFIG'])
