# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare the optimizer and schedules of a checkpoint with those of a config, and replace them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from addp_mm.errors import ConfigError

# What a schedule has reached; all other attributes are its settings.
_PROGRESS = {
    'last_step',
    '_global_step',
    '_last_value',
    'base_values',
    'verbose',
    'optimizer',
    'best',
    'num_bad_epochs',
    'cooldown_counter',
    'rule_worse',
}


# Keys of a parameter group that are no settings: names, and the kernels of the machine.
_NOT_COMPARED = {'param_names', 'param_name', 'foreach', 'fused'}


class Steps(NamedTuple):
    """How far a training is.

    Attributes:
        iterations: Iterations done.
        epochs: Epochs done; 0 in a training by iterations.
        epoch_length: Iterations of an epoch.
    """

    iterations: int
    epochs: int
    epoch_length: int


class Part:
    """An optimizer as a config builds it, with its schedules, before a checkpoint is loaded.

    Args:
        name: Its name in an optimizer wrapper of several; '' if there is only one.
        wrapper: The optimizer wrapper.
        schedulers: Its schedulers.
    """

    def __init__(self, name: str, wrapper: OptimWrapper, schedulers: Sequence[Any]) -> None:
        self.name, self.wrapper = name, wrapper
        self._schedulers = [(type(one), copy.deepcopy(one.state_dict())) for one in schedulers]
        self._groups = [copy.deepcopy(_settings(group)) for group in wrapper.param_groups]

    @property
    def groups(self) -> list[dict]:
        """Settings of the parameter groups before any schedule has changed them."""
        scheduled = {state['param_name'] for _, state in self._schedulers}
        return [_unscheduled(group, scheduled) for group in self._groups]

    def differences(self, optimizer: Mapping | None, schedulers: Sequence[Mapping] | None) -> Iterator[str]:
        """Yield a line for each setting in which a checkpoint differs.

        Args:
            optimizer: The optimizer's state in the checkpoint; None if it has none.
            schedulers: States of its schedulers; None if it has none.
        """
        prefix = f'{self.name}.' if self.name else ''
        scheduled = {state['param_name'] for state in schedulers or ()}
        if optimizer is not None:
            groups = [_unscheduled(_settings(group), scheduled) for group in optimizer['param_groups']]
            yield from _group_differences(f'optim_wrapper.{prefix}optimizer', groups, self.groups)
        states = [state for _, state in self._schedulers]
        path = f'param_scheduler.{prefix}'
        saved = schedulers or []
        if optimizer is not None and len(saved) != len(states):
            start = '; the new ones start at step 0' if len(saved) < len(states) else ''
            yield f'{path.rstrip(".")}: {len(saved)} in the checkpoint, {len(states)} in the config{start}'
        for index, (old, new) in enumerate(zip(saved, states, strict=False)):
            for key in sorted((old.keys() | new.keys()) - _PROGRESS):
                if not (callable(old.get(key)) or _same(old.get(key), new.get(key))):
                    yield _line(f'{path}{index}.{key}', old.get(key), new.get(key))

    def members(self, saved: Sequence[Mapping]) -> list[list]:
        """Parameters of each group, as the groups of a checkpoint number them.

        Raises:
            ConfigError: The checkpoint groups its parameters in another way and has no names.
        """
        built = self.wrapper.optimizer.param_groups
        found = _members(saved, built)
        if found is None:
            raise ConfigError(
                f'the optimizer has {len(built)} parameter groups in the config and {len(saved)} other ones in the '
                'checkpoint, which has no names of their parameters. Set optim_wrapper.paramwise_cfg and '
                'optimizer.weight_decay as in the training of the checkpoint, or start a new training from its '
                'weights: --cfg-options load_from=PATH'
            )
        return found

    def check_groups(self, optimizer: Mapping | None) -> None:
        """Refuse a checkpoint whose moments would be given to other parameters.

        Raises:
            ConfigError: It has other groups of parameters.
        """
        saved = optimizer['param_groups'] if optimizer is not None else []
        if optimizer is not None and self.members(saved) != [list(group['params']) for group in saved]:
            raise ConfigError(
                f'the optimizer has {len(self.wrapper.optimizer.param_groups)} parameter groups in the config and '
                f'{len(saved)} other ones in the checkpoint: add --override-schedule, or set '
                'optim_wrapper.paramwise_cfg and optimizer.weight_decay as in the training of the checkpoint'
            )

    def at(self, steps: Steps) -> tuple[list[dict], list[dict]]:
        """The parameter groups and the states of the schedulers after a number of steps.

        Raises:
            ConfigError: A scheduler depends on the metrics of earlier validations.
        """
        groups = _Groups(copy.deepcopy(self._groups))
        twins = [_twin(kind, state, groups) for kind, state in self._schedulers]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # "scheduler.step() before optimizer.step()"
            _advance(twins, steps)
        return groups.param_groups, [one.state_dict() for one in twins]


def parts_of(runner: Runner) -> list[Part]:
    """The optimizers of a runner whose training has not started."""
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers
    if not isinstance(wrapper, OptimWrapperDict):
        return [Part('', wrapper, schedulers or [])]
    if not isinstance(schedulers, dict):
        schedulers = dict.fromkeys(wrapper.keys(), schedulers or [])
    return [Part(name, one, schedulers.get(name, [])) for name, one in wrapper.items()]


def replace_schedule(checkpoint: dict, parts: Sequence[Part], steps: Steps) -> None:
    """Write the settings and schedules of a config into a checkpoint, at its iteration.

    The moments of the optimizer stay.

    Args:
        checkpoint: Changed in place.
        parts: The optimizers of the run, as the config builds them.
        steps: How far the checkpoint is.
    """
    schedulers: dict[str, list[dict]] = {}
    for part in parts:
        groups, schedulers[part.name] = part.at(steps)
        saved = checkpoint['optimizer'][part.name] if part.name else checkpoint['optimizer']
        own = part.wrapper.optimizer.param_groups
        members = part.members(saved['param_groups'])
        saved['param_groups'] = [
            dict(settings, params=params) for settings, params in zip(groups[: len(own)], members, strict=True)
        ]
        if len(groups) > len(own):  # mmengine's record of the settings without any multiplier
            base = part.wrapper.base_param_settings
            saved['base_param_settings'] = dict(groups[-1], params=base['params'])
        else:
            saved.pop('base_param_settings', None)
    checkpoint['param_schedulers'] = schedulers.get('', schedulers)


class _Groups:
    """What a scheduler needs of an optimizer: its parameter groups."""

    def __init__(self, param_groups: list[dict]) -> None:
        self.param_groups = param_groups

    def step(self) -> None:
        """Do nothing."""


def _advance(schedulers: Sequence[Any], steps: Steps) -> None:
    """Step schedulers in the order of mmengine's loops."""
    length = min(steps.epoch_length, steps.iterations // steps.epochs) if steps.epochs else 0
    for epoch in range(steps.epochs + 1):
        last = epoch == steps.epochs
        for _ in range(steps.iterations - length * epoch if last else length):
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers if not last else ():
            if scheduler.by_epoch:
                scheduler.step()


def _twin(kind: Any, state: dict, groups: _Groups) -> Any:
    """A scheduler with the state of another, for other parameter groups."""
    if getattr(kind, 'need_val_args', False):
        raise ConfigError(
            f'--override-schedule: {kind.__name__} depends on the metrics of the validations before the checkpoint; '
            'resume without the option'
        )
    twin = kind.__new__(kind)
    twin.optimizer = groups
    twin.load_state_dict(copy.deepcopy(state))
    return twin


def _settings(group: Mapping) -> dict:
    return {key: value for key, value in group.items() if key != 'params'}


def _unscheduled(group: Mapping, scheduled: set[str]) -> dict:
    """Settings of a group, with the values from which its schedules start."""
    values = {key: value for key, value in group.items() if not key.startswith('initial_')}
    if 'momentum' in scheduled and 'betas' in values:  # of Adam: its first beta is the momentum
        values['betas'] = (group.get('initial_momentum', values['betas'][0]), values['betas'][1])
    return {key: group.get(f'initial_{key}', value) if key in scheduled else value for key, value in values.items()}


def _group_differences(path: str, saved: list[dict], built: list[dict]) -> Iterator[str]:
    built = built[: len(saved)] if len(built) == len(saved) + 1 else built
    if len(saved) != len(built):
        yield f'{path}: {len(saved)} parameter groups in the checkpoint, {len(built)} in the config'
        return
    for key in sorted({key for group in [*saved, *built] for key in group} - _NOT_COMPARED):
        # another version of torch may have other keys
        both = [(old, new) for old, new in zip(saved, built, strict=True) if key in old and key in new]
        pairs = [(old[key], new[key]) for old, new in both]
        different = [pair for pair in pairs if not _same(*pair)]
        if different:
            # the groups of a layer decay differ: the one with the highest value stands for them
            old, new = max(different, key=lambda pair: pair[1] if isinstance(pair[1], int | float) else 0)
            more = f' (in {len(different)} of {len(pairs)} groups)' if len(pairs) > 1 else ''
            yield _line(f'{path}.{key}', old, new) + more


def _same(first: Any, second: Any) -> bool:
    """Equal, where a tuple equals a list."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return list(first) == list(second)
    return bool(first == second)


def _line(key: str, old: Any, new: Any) -> str:
    return f'{key}: {_text(old)} in the checkpoint, {_text(new)} in the config'


def _text(value: Any) -> str:
    return 'none' if value is None else f'{value:g}' if isinstance(value, float) else str(value)


def _members(saved: Sequence[Mapping], built: Sequence[Mapping]) -> list[list] | None:
    """Parameters of each group of the run, as the checkpoint numbers them; None if not known."""
    numbers = {
        name: number for group in saved for name, number in zip(_names(group) or (), group['params'], strict=False)
    }
    names = [_names(group) for group in built]
    if numbers and all(one and numbers.keys() >= set(one) for one in names):
        return [[numbers[name] for name in one or ()] for one in names]
    if [len(group['params']) for group in saved] == [len(group['params']) for group in built]:
        return [list(group['params']) for group in saved]
    return None


def _names(group: Mapping) -> list[str] | None:
    """Names of the parameters of a group, if its constructor has noted them."""
    return [group['param_name']] if 'param_name' in group else group.get('param_names')
