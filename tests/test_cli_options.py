# Copyright (c) addp_mm contributors. Apache-2.0.
import argparse

import pytest

from addp_mm.cli_options import add_renamed


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(prog='tool')
    parser.add_argument('folder')
    parser.add_argument('--num-workers', type=int, default=1)
    add_renamed(parser, old='--workers', new='--num-workers')
    return parser


@pytest.mark.parametrize(
    'arguments',
    [['--workers'], ['--workers', '4'], ['--workers=4'], ['folder', '--workers', '4'], ['--workers', '4', 'folder']],
)
def test_an_old_option_is_refused_in_one_line_that_names_the_new_one(parser, capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(arguments)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == 'tool: error: --workers was renamed: use --num-workers\n'


def test_other_options_and_the_help_are_unchanged(parser):
    assert vars(parser.parse_args(['folder', '--num-workers', '2'])) == {'folder': 'folder', 'num_workers': 2}
    assert '--workers' not in parser.format_help().replace('--num-workers', '')
