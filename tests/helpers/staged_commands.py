# Copyright (c) addp_mm contributors. Apache-2.0.
"""Commands of a pipeline as forks of the tool server."""

from __future__ import annotations

from importlib.util import find_spec


def execution(run_tool, at_start=lambda command: None):
    """A function that runs a command as a fork of the tool server, with its output in the log."""

    def execute(command, log, progress):
        at_start(command)
        arguments = command[1:]
        if arguments[0] == '-m':
            arguments = [find_spec(arguments[1]).origin, *arguments[2:]]
        finished = run_tool(*arguments)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a') as stream:
            stream.write(finished.output)
        progress()
        return finished.status

    return execute
