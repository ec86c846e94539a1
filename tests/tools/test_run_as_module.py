# Copyright (c) addp_mm contributors. Apache-2.0.
import subprocess
import sys


def run(*args, cwd):
    return subprocess.run([sys.executable, '-m', 'addp_mm', *map(str, args)], capture_output=True, text=True, cwd=cwd)


def test_runs_a_script_as_the_interpreter_does(tmp_path):
    (tmp_path / 'neighbour.py').write_text('word = "beside"')
    script = tmp_path / 'script.py'
    script.write_text('import sys, neighbour\nprint(__name__, sys.argv[1:], neighbour.word, "addp_mm" in sys.modules)')
    done = run(script, 'a', '--b', cwd=tmp_path)
    assert done.stdout.strip() == "__main__ ['a', '--b'] beside True", done.stderr


def test_says_what_it_takes(tmp_path):
    assert 'python -m addp_mm SCRIPT' in run(cwd=tmp_path).stderr
    done = run('missing.py', cwd=tmp_path)
    assert done.returncode == 1
    assert 'no script at missing.py' in done.stderr
