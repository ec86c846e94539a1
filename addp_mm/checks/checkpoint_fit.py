# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that a checkpoint fits the model before mmengine loads it."""

from collections import OrderedDict
from collections.abc import Mapping
from logging import Logger

from torch import Tensor, nn

from addp_mm.checkpoints.comparison import Shape, compare_weights
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.finite import refuse_non_finite
from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.errors import first_few

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_SAME_CONFIG = 'Use the config that the checkpoint was trained with'
_OR_PART_OF_IT = (
    ', or load one component that fits, such as the backbone, with '
    "init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…, prefix='backbone.') instead of load_from"
)
_OTHER_CHANNELS = (
    "To start from it with images of other channels, set model.init_cfg=dict(type='addp_mm.Pretrained', "
    'checkpoint=…, adapt_in_channels=True) instead of load_from'
)


def check_training_state(checkpoint: Mapping, source: str) -> None:
    """Check that a checkpoint contains the state of a training, so that it can be resumed.

    Args:
        checkpoint: Content of the file.
        source: Path or address of the checkpoint, for the message.

    Raises:
        CheckpointError: The checkpoint contains weights only.
    """
    if not {'meta', 'message_hub'} <= set(checkpoint):
        raise CheckpointError(
            f'{source} contains weights only, without the state of a training, and cannot be resumed. '
            'To start from these weights, give --cfg-options load_from=PATH instead of --resume'
        )


def check_checkpoint_fit(checkpoint: Mapping, model: nn.Module, source: str, logger: Logger, complete: bool) -> None:
    """Check that the weights of a checkpoint fit a model.

    Args:
        checkpoint: Content of the file: the weights, or a dict with them under ``state_dict``.
        model: The model, with or without wrappers. The weights that fit are loaded into it, and
            mmengine loads them again afterwards.
        source: Path or address of the checkpoint, for messages.
        logger: Warns about classifiers that are not loaded.
        complete: Whether the checkpoint must contain every parameter of the model. If not, it must
            contain at least one, and classifiers may have another number of classes.

    Raises:
        CheckpointError: The checkpoint does not fit, or weights that would be loaded are NaN or
            Inf. The message names keys, and both shapes or the number of values.
    """
    modules = {strip_wrappers(name): module for name, module in model.named_modules()}
    parameters = {strip_wrappers(name): parameter for name, parameter in model.named_parameters()}
    buffers = {strip_wrappers(name): buffer for name, buffer in model.named_buffers()}
    weights = _as_loaded(checkpoint.get('state_dict', checkpoint), modules)
    found = compare_weights(weights, {**parameters, **buffers})
    if not complete:
        classifiers = [name for name, shapes in found.mismatched.items() if _is_classifier(name, *shapes, modules)]
        if classifiers:
            logger.warning(f'{source}: not loaded, another number of classes: {first_few(classifiers)}')
        for name in classifiers:
            del found.mismatched[name]
    advice = _SAME_CONFIG if complete else _SAME_CONFIG + _OR_PART_OF_IT
    if found.mismatched:
        if found.input_convolution and not complete:
            advice = _OTHER_CHANNELS
        raise CheckpointError(
            f'{source} has another width or layout than the model of the config: {first_few(found.shapes())}. {advice}'
        )
    missing = [name for name in found.missing if name in parameters]
    if missing and (complete or len(missing) == len(parameters)):
        raise CheckpointError(
            f'{source} lacks {len(missing)} of the {len(parameters)} parameters of the model: '
            f'{first_few(missing)}. {advice}'
        )
    refuse_non_finite({name: weights[name] for name in found.matching}, model, source)


def _as_loaded(weights: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Weights with the names and shapes that they have after each module has adapted them.

    Some modules rename keys of old checkpoints, or resize position embeddings, when they load.
    """
    adapted = OrderedDict((strip_wrappers(name), weight) for name, weight in weights.items())
    versions = getattr(weights, '_metadata', {})
    for name, module in modules.items():
        prefix = f'{name}.' if name else ''
        # torch calls this method for each module, and modules adapt the weights in it
        module._load_from_state_dict(adapted, prefix, versions.get(name, {}), False, [], [], [])  # noqa: SLF001
    return adapted


def _is_classifier(name: str, saved: Shape, built: Shape, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a weight belongs to a classifier, and only the number of outputs differs.

    A classifier is a linear layer or a convolution. Its number of outputs is a multiple of the
    ``num_classes`` of the head around it, or of one more if there is a background class.
    """
    layer = name.rpartition('.')[0]
    if len(saved) != len(built) or saved[1:] != built[1:] or not isinstance(modules.get(layer), _LAYERS):
        return False
    parts = layer.split('.')
    around = ('.'.join(parts[:end]) for end in range(len(parts), 0, -1))
    counts = (getattr(modules.get(path), 'num_classes', None) for path in around)
    classes = next((count for count in counts if isinstance(count, int) and count > 0), None)
    return classes is not None and (built[0] % classes == 0 or built[0] % (classes + 1) == 0)
