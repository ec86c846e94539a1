# Copyright (c) addp_mm contributors. Apache-2.0.
"""Finds out before training what would otherwise fail, or pass in silence, hours later."""

import math
import random
import re
import traceback
from collections import OrderedDict
from contextlib import contextmanager

import numpy as np
import torch
from mmengine import dist
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseTTAModel
from mmengine.optim import OptimWrapperDict
from torch import nn
from torch.utils.data import IterableDataset

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.engine.strategies.sharded import is_sharded
from addp_mm.engine.unwrap import bare_model
from addp_mm.errors import UserError, first_few
from addp_mm.registry import HOOKS

_MISMATCH = re.compile(
    r'size mismatch for (\S+): copying a param with shape (?:torch\.Size\()?([\[\]\d, ]*)\)? from '
    r'checkpoint, the shape in current model is (?:torch\.Size\()?([\[\]\d, ]*)\)?'
)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class PreflightError(UserError, RuntimeError):
    """What would fail during training fails already before it."""


@contextmanager
def _random_states_kept():
    """Leave the generators of Python, numpy and torch as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002


def _other_classes(model: nn.Module, key: str, saved: str, built: str) -> bool:
    """Whether a mismatch is the usual one of a classifier with another number of classes.

    A classifier is a linear layer or convolution whose outputs are a multiple of the
    ``num_classes`` of the head that it is in, or of one more where there is a background. Its number of outputs alone may differ.
    """
    saved_sizes, built_sizes = (list(map(int, re.findall(r'\d+', text))) for text in (saved, built))
    parts = key.split('.')[:-1]
    layer = model.get_submodule('.'.join(parts))
    if len(saved_sizes) != len(built_sizes) or saved_sizes[1:] != built_sizes[1:] or not isinstance(layer, _LAYERS):
        return False
    around = (model.get_submodule('.'.join(parts[:end])) for end in range(len(parts), 0, -1))
    counts = (getattr(module, 'num_classes', None) for module in around)
    classes = next((count for count in counts if isinstance(count, int) and count > 0), None)
    return classes is not None and (built_sizes[0] % classes == 0 or built_sizes[0] % (classes + 1) == 0)


def _picture_of(dataset) -> str:
    """What to call the first picture of a data set: its file where the data set knows it."""
    try:
        return dataset.get_data_info(0)['img_path']
    except Exception:  # of whatever kind the data set is: the name only adds to another error
        return 'the first picture of train_dataloader'


def _image_sizes(data) -> set[tuple[int, int]]:
    """Heights and widths of the images in a batch as a data preprocessor returns it."""
    inputs = data.get('inputs') if isinstance(data, dict) else None
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return {tuple(one.shape[-2:]) for one in inputs if isinstance(one, torch.Tensor) and one.ndim == 4}


@HOOKS.register_module()
class PreflightHook(Hook):
    """Checks that a checkpoint fits the model, and one picture of each kind, before the first training step.

    mmengine loads a checkpoint whose shapes differ with no more than a printed list, and meets an
    error of the validation pipeline only after the first epoch. This hook turns both into errors at
    the start. A picture of the training data is loaded and its size compared with what
    ``model.tokenizer`` and ``model.backbone`` can take (their ``check_image_size``), so that the error names a file. The random generators are left as they were.

    A training without a single batch, a head of fewer classes than the data, and a ``save_best``
    that no metric can answer are refused. A warning tells of checkpoints that would be saved
    between the passes of one step of the optimizer.

    - Testing and resuming: every parameter of the model must be in the checkpoint, in the same
      shape.
    - ``load_from`` at the start of a training: shapes must agree, except for the number of classes
      of a head's last layers, and at least one parameter must be found.

    Args:
        testing (bool): The model is tested, not trained. Default: False.

    Raises:
        CheckpointError: The checkpoint does not fit; names keys and both shapes.
        PreflightError: The first picture of the training or validation data cannot be read or
            processed, or one of the other things above would fail.
    """

    priority = 'VERY_LOW'

    def __init__(self, testing: bool = False) -> None:
        self.testing = testing

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare ``checkpoint`` with the model before mmengine loads it."""
        if not isinstance(runner.model, nn.Module):
            return  # DeepSpeed's engine has loaded its own files by now, and strictly
        source = runner._load_from
        resuming = runner._resume and not self.testing
        if resuming and not ({'meta', 'optimizer', 'message_hub'} <= set(checkpoint)):
            raise CheckpointError(
                f'{source} holds weights alone, without the state of a training, and cannot be '
                'resumed. To start from these weights, give --cfg-options load_from=PATH in place of '
                '--resume'
            )
        model = bare_model(runner)
        if isinstance(model, BaseTTAModel):
            model = model.module  # which mmengine fills
        weights = checkpoint.get('state_dict', checkpoint)
        weights = OrderedDict((re.sub(r'^module\.', '', key), value) for key, value in weights.items())
        # the shards of a sharded model fit together under their wrapper alone
        mismatched, missing = self._compare(runner.model if is_sharded(runner.model) else model, weights)
        if not (self.testing or resuming):
            heads = [m for m in mismatched if _other_classes(model, *m)]
            if heads:
                runner.logger.warning(
                    f'{source}: not loaded, another number of classes: {first_few(key for key, _, _ in heads)}'
                )
            mismatched = [m for m in mismatched if m not in heads]
        advice = 'Use the config that the checkpoint was trained with'
        if not (self.testing or resuming):
            advice += (
                ', or give a part of the model that fits, such as the backbone, an init_cfg=dict('
                "type='addp_mm.Pretrained', checkpoint=…, prefix='backbone.') in place of load_from"
            )
        if mismatched:
            shapes = [
                f'{key} is {saved} in the checkpoint and {built} in the model' for key, saved, built in mismatched
            ]
            raise CheckpointError(
                f'{source} is of another width or layout than the model of the config: {first_few(shapes)}. {advice}'
            )
        parameters = {strip_wrappers(name) for name, _ in model.named_parameters()}
        absent = [key for key in missing if key in parameters]
        if (self.testing or resuming) and absent or parameters and len(absent) == len(parameters):
            raise CheckpointError(
                f'{source} lacks {len(absent)} of the {len(parameters)} parameters of the model: '
                f'{first_few(absent)}. {advice}'
            )

    @staticmethod
    def _compare(model, weights) -> tuple[list[tuple[str, str, str]], list[str]]:
        try:
            missing = model.load_state_dict(weights, strict=False).missing_keys
            return [], [strip_wrappers(key) for key in missing]
        except RuntimeError as error:
            mismatched = [(strip_wrappers(key), *shapes) for key, *shapes in _MISMATCH.findall(str(error))]
            if not mismatched:
                raise
            names = {strip_wrappers(name) for name, _ in [*model.named_parameters(), *model.named_buffers()]}
            return mismatched, [key for key in sorted(names) if key not in weights]

    def before_train(self, runner) -> None:
        """Load the first picture of the training data, and send that of the validation data through the model."""
        self._check_number_of_batches(runner)
        self._check_classes(runner)
        self._check_save_best(runner)
        self._check_training_picture(runner)
        self._warn_of_split_steps(runner)
        if runner.val_loop is None:
            return
        model, loader = runner.model, runner.val_loop.dataloader
        was_training = model.training
        model.eval()
        try:
            with _random_states_kept(), torch.no_grad():
                model.val_step(loader.collate_fn([loader.dataset[0]]))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise PreflightError(
                'validation would fail after the first epoch; it fails on the first picture of '
                f'val_dataloader: {type(error).__name__}: {error} ({where.filename}, line '
                f'{where.lineno})'
            ) from error
        finally:
            model.train(was_training)

    @staticmethod
    def _check_number_of_batches(runner) -> None:
        loader = runner.train_loop.dataloader
        if isinstance(loader.dataset, IterableDataset) or isinstance(loader.sampler, InfiniteSampler):
            return
        if len(loader) == 0:
            raise PreflightError(
                f'train_dataloader has no batch: {len(loader.dataset)} pictures over {dist.get_world_size()} '
                f'process(es) are fewer than batch_size={loader.batch_size}, and drop_last=True leaves them out. Lower '
                'train_dataloader.batch_size, or set train_dataloader.drop_last=False'
            )

    @staticmethod
    def _check_classes(runner) -> None:
        """No head may have fewer classes than the labels of the data, which index them.

        Heads of one class (a region proposal's) leave classes apart, and panoptic data has heads
        for a part of them.
        """
        meta = getattr(runner.train_loop.dataloader.dataset, 'metainfo', None) or {}
        classes = meta.get('classes')
        if classes is None or 'thing_classes' in meta:
            return
        for name, module in bare_model(runner).named_modules():
            count = getattr(module, 'num_classes', None)
            if isinstance(count, int) and count > 1 and count < len(classes):
                raise PreflightError(
                    f'train_dataloader has {len(classes)} classes ({first_few(classes)}) and model.{name} only '
                    f'{count}: set model.{name}.num_classes={len(classes)}, or give the data set a metainfo=dict('
                    'classes=…) of fewer'
                )

    @staticmethod
    def _check_save_best(runner) -> None:
        wanted = next((hook.save_best for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if runner.val_loop is None or not wanted:
            return
        metrics = runner.val_loop.evaluator.metrics
        prefixes = [metric.prefix for metric in metrics]
        if not all(prefixes):
            return  # a metric without prefix may be called anything
        for key in [wanted] if isinstance(wanted, str) else wanted:
            if key != 'auto' and key.partition('/')[0] not in prefixes:
                names = ', '.join(f'{prefix}/…' for prefix in dict.fromkeys(prefixes))
                raise PreflightError(
                    f'default_hooks.checkpoint.save_best={key!r} is no metric of val_evaluator, whose '
                    f'metrics are called {names}; mmengine would say so after the first validation'
                )

    @staticmethod
    def _warn_of_split_steps(runner) -> None:
        """A checkpoint holds no gradients: what the passes of an unfinished step have summed up is lost by resuming."""
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        passes = max(getattr(one, '_accumulative_counts', 1) for one in wrappers)
        by_iteration = [one for one in runner.hooks if isinstance(one, CheckpointHook) and not one.by_epoch]
        for hook in by_iteration:
            if hook.interval < 1 or hook.interval % passes == 0:
                continue
            good = math.ceil(hook.interval / passes) * passes
            runner.logger.warning(
                f'checkpoints are saved every {hook.interval} iterations, a step of the optimizer takes {passes} '
                '(accumulative_counts): resuming from one saved within a step loses the gradients of its first passes. '
                f'Set default_hooks.checkpoint.interval={good}, or another multiple of {passes}'
            )

    @staticmethod
    def _check_training_picture(runner) -> None:
        loader, model = runner.train_loop.dataloader, bare_model(runner)
        if isinstance(loader.dataset, IterableDataset):
            return
        with _random_states_kept(), torch.no_grad():
            try:
                sample = loader.dataset[0]
            except Exception as error:
                raise PreflightError(
                    f'training would fail on {_picture_of(loader.dataset)}: {type(error).__name__}: {error}'
                ) from error
            sizes = _image_sizes(model.data_preprocessor(loader.collate_fn([sample]), True))
        for part in (getattr(model, 'tokenizer', None), getattr(model, 'backbone', None)):
            for height, width in sizes if hasattr(part, 'check_image_size') else ():
                try:
                    part.check_image_size(height, width)
                except UserError as error:
                    raise PreflightError(f'training would fail on {_picture_of(loader.dataset)}: {error}') from error
