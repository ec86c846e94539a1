# Copyright (c) addp_mm contributors. Apache-2.0.
"""Steps: run once, run again after a change, and quoted if they fail."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.step_runner import StepError, StepRunner


def echo(name: str, folder: Path, text: str = 'x', **fields) -> Step:
    """A step that writes ``text`` at the end of a file and prints it."""
    code = f'print({text!r}); open({str(folder / name)!r}, "a").write({text!r})'
    return Step(name, f'Write {name}', ('-c', code), (folder / name,), **fields)


@pytest.mark.parametrize('name', ['input', 'input.py'])  # source code is not a config
def test_steps_run_once_until_command_or_input_changes(tmp_path, capsys, name):
    (tmp_path / name).write_text('1')
    first = echo('first', tmp_path, inputs=(tmp_path / name,))
    second = echo('second', tmp_path, after=(first,))
    runner = StepRunner(tmp_path)
    assert not any(done.skipped for done in runner.run([first, second]).values())
    assert first.shown.startswith('python -c')
    assert f'$ {first.shown}' in capsys.readouterr().out
    assert (tmp_path / 'logs/first.log').read_text() == 'x\n'
    assert all(done.skipped and done.peak_mib > 1 for done in runner.run([first, second]).values())
    (tmp_path / name).write_text('2')
    assert not any(done.skipped for done in runner.run([first, second]).values())
    changed = echo('second', tmp_path, 'y', after=(first,))
    done = runner.run([first, changed])
    assert done['first'].skipped
    assert not done['second'].skipped
    (tmp_path / 'first').unlink()
    assert not runner.run([first])['first'].skipped


def test_a_step_is_not_repeated_if_its_inputs_are_the_same(tmp_path):
    """The benchmark reuses runs of the demo, where the scenes come from a step."""
    (tmp_path / 'input').write_text('1')
    code = f'open({str(tmp_path / "first")!r}, "w").write("same")'
    first = Step('first', 'Write', ('-c', code), (tmp_path / 'first',), (tmp_path / 'input',))
    second = echo('second', tmp_path, after=(first,))
    StepRunner(tmp_path).run([first, second])
    (tmp_path / 'input').write_text('2')
    done = StepRunner(tmp_path).run([first, second])
    assert not done['first'].skipped
    assert done['second'].skipped
    alone = echo('second', tmp_path, inputs=(tmp_path / 'first',))
    assert StepRunner(tmp_path).run([alone])['second'].skipped


def test_a_step_waits_for_others_and_empties_its_folder(tmp_path):
    own = tmp_path / 'own'
    own.mkdir()
    (own / 'left').write_text('from before')
    code = f'import os, time; time.sleep(.3); os.makedirs({str(own)!r}); open({str(own / "a")!r}, "w")'
    slow = Step('slow', 'Slow', ('-c', code), (own / 'a',), folder=own)
    code = f'open({str(own / "a")!r}); open({str(tmp_path / "b")!r}, "w")'
    then = Step('then', 'Then', ('-c', code), (tmp_path / 'b',), after=(slow,))
    StepRunner(tmp_path, jobs=2).run([slow, then])
    assert not (own / 'left').exists()


def test_the_results_so_far_are_reported_while_other_steps_go_on(tmp_path):
    wait = f'while not pathlib.Path({str(tmp_path / "seen")!r}).exists() and time.time() < end: time.sleep(0.01)'
    code = f'import pathlib, time\nend = time.time() + 60\n{wait}\nassert time.time() < end'
    first, slow = echo('first', tmp_path), Step('slow', 'Wait', ('-c', code), ())
    seen = []

    def watch(done):
        seen.append(sorted(done))
        (tmp_path / 'seen').touch()

    StepRunner(tmp_path, jobs=2).run([first, slow], watch)
    assert seen == [['first'], ['first', 'slow']]


def test_a_failed_step_quotes_its_log_and_keeps_other_steps(tmp_path):
    first = echo('first', tmp_path)
    failing = Step('failing', 'Fail', ('-c', 'print("why"); raise SystemExit(3)'), (), after=(first,))
    after = echo('after', tmp_path, after=(failing,))
    with pytest.raises(StepError) as error:
        StepRunner(tmp_path).run([first, failing, after])
    message = str(error.value)
    assert 'exit status 3' in message
    assert '| why' in message
    assert failing.shown in message
    assert not (tmp_path / 'after').exists()
    assert StepRunner(tmp_path).run([first])['first'].skipped
    empty = Step('empty', 'Empty', ('-c', 'pass'), (tmp_path / 'never',))
    with pytest.raises(StepError, match='did not write .*never'):
        StepRunner(tmp_path).run([empty])


def test_other_steps_go_on_after_a_failure(tmp_path):
    code = 'import sys; print("error: it is too small\\nBye"); sys.exit(1)'
    failing = Step('failing', 'Fail', ('-c', code), ())
    after, other = echo('after', tmp_path, after=(failing,)), echo('other', tmp_path)
    killed = Step('killed', 'Kill', ('-c', 'import os; os.kill(os.getpid(), 9)'), ())
    done = StepRunner(tmp_path).run_all([failing, after, killed, other])
    assert done['failing'].cause == done['after'].cause == 'it is too small'
    assert done['killed'].cause == 'the process was ended by SIGKILL, probably because the memory was used up'
    assert not done['other'].skipped
    assert not (tmp_path / 'after').exists()


def test_an_interruption_ends_the_running_command(tmp_path, capsys):
    """The signal reaches this process only, as that of ``kill``."""
    code = f'import time; open({str(tmp_path / "begun")!r}, "w"); time.sleep(600); print("end")'
    slow = Step('slow', 'Slow', ('-c', code), ())

    def interrupt():
        while not (tmp_path / 'begun').exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            StepRunner(tmp_path).run_all([slow, echo('after', tmp_path)])
    finally:
        signal.signal(signal.SIGINT, previous)
    thread.join()
    assert not (tmp_path / 'after').exists()
    assert 'failed' not in capsys.readouterr().out


@pytest.mark.parametrize('resume', [('--resume',), ()])
def test_an_interrupted_step_continues_in_its_folder_unless_it_changed(tmp_path, resume):
    """The command ends at its second start, which it tells by its folder and by the option."""
    own = tmp_path / 'own'
    code = (
        f'import os, sys; old = os.path.isdir({str(own)!r}); os.makedirs({str(own)!r}, exist_ok=True); '
        f'open({str(tmp_path / "starts")!r}, "a").write(f"{{old}} {{sys.argv[1:]}},"); '
        f'open({str(tmp_path / "done")!r}, "w") if old else sys.exit(3)'
    )

    def step(fact):
        return Step('s', 'S', ('-c', code), (tmp_path / 'done',), folder=own, facts=(fact,), resume=resume)

    runner = StepRunner(tmp_path)
    with pytest.raises(StepError, match='exit status 3'):
        runner.run([step('a')])
    assert not runner.run([step('a')])['s'].skipped
    assert (tmp_path / 'starts').read_text() == f'False [],True {list(resume)},'
    with pytest.raises(StepError):
        runner.run([step('b')])
    assert (tmp_path / 'starts').read_text().endswith('False [],')


def test_a_training_that_has_saved_interrupts_the_run(tmp_path):
    stopped = Step('stopped', 'Stop', ('-c', 'raise SystemExit(75)'), (tmp_path / 'missing',))
    for run in (StepRunner(tmp_path).run, StepRunner(tmp_path).run_all):
        with pytest.raises(KeyboardInterrupt):
            run([stopped, echo('next', tmp_path, after=(stopped,))])
    assert not (tmp_path / 'next').exists()
