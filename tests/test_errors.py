# Copyright (c) addp_mm contributors. Apache-2.0.
import signal
from pathlib import Path

import pytest

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checks.launch import LauncherError
from addp_mm.checks.preflight_error import PreflightError
from addp_mm.compat.ops.missing import MissingOpError
from addp_mm.config.config_file import ConfigError
from addp_mm.datasets import DatasetError
from addp_mm.engine.hooks import TrainingCollapsedError
from addp_mm.errors import exit_on_interrupt, exit_on_user_error, first_few


@pytest.mark.parametrize(
    'kind, built_in',
    [
        (CheckpointError, RuntimeError),
        (LauncherError, RuntimeError),
        (MissingOpError, NotImplementedError),
        (DatasetError, ValueError),
        (ConfigError, ValueError),
        (TrainingCollapsedError, RuntimeError),
        (PreflightError, RuntimeError),
    ],
)
def test_user_errors_are_printed_in_one_line(kind, built_in):
    assert issubclass(kind, built_in)
    with pytest.raises(SystemExit, match='^error: do this$'), exit_on_user_error():
        raise kind('do this')


def test_other_errors_keep_their_traceback_unless_named():
    with pytest.raises(OSError, match='disk'), exit_on_user_error():
        raise OSError('disk')
    with pytest.raises(SystemExit, match='^error: disk$'), exit_on_user_error(OSError):
        raise OSError('disk')
    with pytest.raises(RuntimeError, match='a bug'), exit_on_user_error(OSError):
        raise RuntimeError('a bug')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_line_and_the_status_of_the_signal(number, capsys):
    before = signal.getsignal(signal.SIGTERM)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        with pytest.raises(SystemExit, match=f'^{128 + number}$'), exit_on_interrupt('a part is left'):
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert capsys.readouterr().err == 'interrupted: a part is left\n'
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_test_leaves_sigterm_to_its_launcher():
    before = signal.getsignal(signal.SIGTERM)
    with exit_on_interrupt('', with_sigterm=False):
        assert signal.getsignal(signal.SIGTERM) is before


ROOT = Path(__file__).parents[1]
TOOLS = sorted([*(ROOT / 'tools').rglob('*.py'), *ROOT.glob('examples/*/run.py')])


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.stem)
def test_every_tool_ends_cleanly_when_it_is_interrupted(tool):
    text = tool.read_text()
    assert any(word in text for word in ('exit_on_interrupt(', 'exit_on_stop(', 'except KeyboardInterrupt'))


@pytest.mark.parametrize(
    'things, options, words',
    [
        ([], {}, 'none'),
        (['a'], {}, 'a'),
        (range(6), {}, '0, 1, 2, 3, 4, 5'),
        (iter('abcdefgh'), {}, 'a, b, c, d, e, f and 2 more'),
        (['a', 'b', 'c'], dict(count=2, separator='; '), 'a; b and 1 more'),
    ],
)
def test_first_few(things, options, words):
    assert first_few(things, **options) == words
