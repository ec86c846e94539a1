# Copyright (c) addp_mm contributors. Apache-2.0.
"""The table of docs/compat.md: detectors and segmentors in half precision, compared with float32.

``PYTHONPATH=tests python -m helpers.precision_table`` prints it, in some minutes on the CPU.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from helpers.hand_swaps import (
    DETECTORS,
    PANOPTIC,
    SEGMENTORS,
    STUFF,
    WITH_MASKS,
    build,
    read_detector,
    read_segmentor,
    segmentation_batch,
    set_everywhere,
)
from helpers.tiny_detection import detection_batch

ALL = 100000  # of proposals and samples
POSITIONS = 85  # of an image of 64 x 64 pixels at strides of 8 to 64: as many queries as DINO can choose
BEST = 20
HEAD = """\
| Config | losses | gradients | gradients of rounded weights | predictions | predictions, float16 |
|---|---|---|---|---|---|"""
TOLERANCES = dict(losses=0.01, gradients=0.1, bfloat16=0.05, float16=0.02)
# Their gradients depend on the last digits, see docs/compat.md.
UNSTABLE = ('deformable-detr', 'upernet', 'pspnet', 'deeplabv3plus')


@dataclass(frozen=True)
class Prediction:
    """What a model predicts: ``scores`` of the best boxes, or ``logits`` of pixels."""

    kind: str
    values: Tensor

    def difference(self, other: Prediction) -> float:
        """Largest difference of a score as a share of the best, or of logits over their deviation.

        The logits' difference is the mean of all pixels.
        """
        if self.kind == 'scores':
            assert min(len(self.values), len(other.values)) >= BEST
            return float((self.values[:BEST] - other.values[:BEST]).abs().max() / self.values[0])
        return float((self.values - other.values).abs().mean() / self.values.std())


def cases() -> dict[str, tuple[str, str]]:
    """Package and short name of each stock config with another backbone, by ``package::path``."""
    packages = {'mmdet': DETECTORS, 'mmseg': SEGMENTORS}
    return {
        f'{package}::{base}': (package, name)
        for package, swaps in packages.items()
        for name, (base, _) in swaps.items()
    }


def read(package: str, name: str, folder: Path) -> tuple[Config, dict]:
    """Return the config of a tiny model and its batch.

    All proposals, samples and boxes are used. An untrained network selects proposals by scores that
    are almost equal, and NMS drops boxes by overlaps near its threshold: float32 and bfloat16 would
    be compared on different boxes.
    """
    if package == 'mmseg':
        return read_segmentor(folder, name), segmentation_batch((64, 64))
    cfg = read_detector(folder, name)
    set_everywhere(cfg.model, 'num', ALL)
    proposals = (cfg.model.get('train_cfg') or {}).get('rpn_proposal')
    if proposals:
        proposals.update(nms_pre=ALL, max_per_img=ALL)
    set_everywhere(cfg.model, 'nms', dict(type='nms', iou_threshold=1.0))
    if name == 'dino':
        set_everywhere(cfg.model, 'num_queries', POSITIONS)
    panoptic = name in PANOPTIC
    if not panoptic:
        set_everywhere(cfg.model, 'score_thr', 0.0)
    masks = panoptic or name in WITH_MASKS
    return cfg, detection_batch(((64, 64),), masks, STUFF if panoptic else None)


def build_untrained(cfg: Config) -> nn.Module:
    """Return the model of a config of :func:`read`, with the same random weights at each call.

    DINO gives its learned queries to positions in the order of their scores. All get one value,
    because the order of scores that are almost equal differs between precisions.
    """
    torch.manual_seed(0)
    model = build(cfg)
    if cfg.model.type == 'DINO':
        with torch.no_grad():
            model.query_embedding.weight.copy_(model.query_embedding.weight[:1].expand(POSITIONS, -1))
    return model


def step(cfg: Config, model: nn.Module, batch: dict, dtype: str) -> tuple[dict[str, float], Tensor]:
    """Train one step with the config's optimizer; return the losses and all gradients in a row."""
    settings = copy.deepcopy(cfg.optim_wrapper)
    if dtype != 'float32':
        settings.update(type='AmpOptimWrapper', dtype=dtype)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        gradients = {
            parameter: torch.zeros_like(parameter) for parameter in model.parameters() if parameter.requires_grad
        }
        hooks = [one.register_hook(lambda grad, total=total: total.add_(grad)) for one, total in gradients.items()]
        torch.manual_seed(0)
        logged = model.train().train_step(copy.deepcopy(batch), build_optim_wrapper(model, settings))
    for hook in hooks:
        hook.remove()
    losses = {name: float(value.detach()) for name, value in logged.items() if 'loss' in name}
    return losses, torch.cat([total.detach().flatten() for total in gradients.values()])


def predict(cfg: Config, model: nn.Module, batch: dict, dtype: str) -> Prediction:
    """Predict with autocast to ``dtype``."""
    outputs: list = []
    head = next((getattr(model, name) for name in ('semantic_head', 'panoptic_head') if hasattr(model, name)), None)
    if head is not None:
        forward = head.forward
        head.forward = lambda *args, **kwargs: outputs.append(forward(*args, **kwargs)) or outputs[-1]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        with torch.no_grad(), torch.autocast('cpu', getattr(torch, dtype), enabled=dtype != 'float32'):
            samples = model.eval().test_step(copy.deepcopy(batch))
    if head is not None:
        del head.forward
        maps = outputs[-1]['seg_preds'] if isinstance(outputs[-1], dict) else outputs[-1][-1][-1]
        return Prediction('logits', maps.float())
    if 'seg_logits' in samples[0]:
        return Prediction('logits', torch.stack([sample.seg_logits.data.float() for sample in samples]))
    return Prediction('scores', samples[0].pred_instances.scores.float())


def differences(package: str, name: str, folder: Path) -> dict[str, float]:
    """Train one step and predict in each precision; return the differences from float32.

    Returns:
        ``losses``: the largest difference of a loss, as a share of the whole loss; ``gradients``:
        the norm of the difference of all gradients, as a share of their norm; ``rounded``: the same
        of float32 with weights that are rounded to bfloat16, which shows how far the gradients of
        this network depend on the last digits; ``bfloat16`` and ``float16``: predictions with the
        same weights, see :class:`Prediction`.
    """
    cfg, batch = read(package, name, folder)
    model = build_untrained(cfg)
    half, rounded = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    losses, gradients = step(cfg, model, batch, 'float32')
    half_losses, half_gradients = step(cfg, half, batch, 'bfloat16')
    _, rounded_gradients = step(cfg, rounded, batch, 'float32')
    assert losses.keys() == half_losses.keys()
    exact = predict(cfg, model, batch, 'float32')
    return {
        'losses': max(abs(half_losses[key] - loss) for key, loss in losses.items()) / losses['loss'],
        'gradients': float((half_gradients - gradients).norm() / gradients.norm()),
        'rounded': float((rounded_gradients - gradients).norm() / gradients.norm()),
        **{dtype: exact.difference(predict(cfg, model, batch, dtype)) for dtype in ('bfloat16', 'float16')},
    }


def row(address: str, found: dict[str, float]) -> str:
    """Return the line of one config."""
    return f'| `{address}` | ' + ' | '.join(f'{100 * value:.2f} %' for value in found.values()) + ' |'


if __name__ == '__main__':
    import logging
    import tempfile

    logging.disable(logging.WARNING)
    print(HEAD, flush=True)
    for address, case in cases().items():
        with tempfile.TemporaryDirectory() as made:
            print(row(address, differences(*case, Path(made))), flush=True)
