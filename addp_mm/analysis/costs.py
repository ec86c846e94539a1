# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operations and parameters of a model by module, counted in one forward pass on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from addp_mm.analysis.batches import build_model, losses_of, scope_of, synthetic_batch, training_size


@dataclass
class ModuleCost:
    """Costs of a module in one forward pass, including its submodules.

    Attributes:
        name: Name in the model, '' for the model itself.
        kind: Name of its class.
        flops: Additions and multiplications of matrix products and convolutions. One multiplication
            with its addition (MAC) counts as two. Norms, activation functions, resizing and
            sampling are not counted.
        trained: Number of trained parameters.
        frozen: Number of frozen parameters.
        children: Costs of the direct submodules.
    """

    name: str
    kind: str
    flops: int = 0
    trained: int = 0
    frozen: int = 0
    children: list[ModuleCost] = field(default_factory=list)

    @property
    def macs(self) -> int:
        """Multiplications with their additions: half of :attr:`flops`."""
        return self.flops // 2


class _Root(nn.Module):
    """Runs a function in ``forward``, so that the counter names each module by its path."""

    def __init__(self, model: nn.Module, run: Callable[[], object]) -> None:
        super().__init__()
        self.model = model
        self.run = run

    def forward(self) -> object:
        return self.run()


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Torch's counter of operations; they are added up in what runs inside.

    Attention is computed by plain matrix products meanwhile, because torch has no formula for the
    fused attention of the CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def count_flops(model: nn.Module, run: Callable[[], object]) -> ModuleCost:
    """Count the operations of the modules of ``model`` during a call of ``run``.

    :func:`flop_counter` counts. Operations are added to every module whose ``forward`` is running.
    A submodule that another module calls, such as DINO's box branches in its decoder, is therefore
    added to both.

    Args:
        model: The model.
        run: Calls the model.

    Returns:
        Costs of the model, with those of its modules as a tree.
    """
    with torch.no_grad(), flop_counter() as counter:
        _Root(model, run)()
    flops = {
        name.removeprefix('_Root.model.'): sum(counts.values()) for name, counts in counter.get_flop_counts().items()
    }
    cost = _tree('', model, flops)
    cost.flops = counter.get_total_flops()
    return cost


def _tree(name: str, module: nn.Module, flops: Mapping[str, int]) -> ModuleCost:
    children = [_tree(f'{name}.{key}'.lstrip('.'), child, flops) for key, child in module.named_children()]
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return ModuleCost(
        name,
        type(module).__name__,
        # If `loss` of a head is called instead of `forward`, its costs are those of its submodules.
        flops=max(flops.get(name, 0), sum(child.flops for child in children)),
        trained=sum(size for size, trained in sizes if trained),
        frozen=sum(size for size, trained in sizes if not trained),
        children=children,
    )


def forward_costs(cfg: Config, batch_size: int = 1, img_size: tuple[int, int] | None = None) -> ModuleCost:
    """Operations and parameters of the model of a config, with random weights.

    A self-supervised pre-training runs as in training, including its frozen components. Every other
    model runs from images to logits. A two-stage detector gets as many proposals as its test
    settings allow.

    Args:
        cfg: Config of one of the four kinds (``configs/pretrain``, ``cls``, ``det``, ``seg``).
        batch_size: Number of images. Defaults to 1.
        img_size: Height and width in pixels. Defaults to None: as in training.
    """
    from mmpretrain.models.selfsup import BaseSelfSupervisor

    cfg = copy.deepcopy(cfg)
    test_cfg: Any = cfg.get('model', {}).get('test_cfg') or {}
    if 'rpn' in test_cfg:
        # No proposal is suppressed, so that their number does not depend on the random weights.
        test_cfg.rpn.nms.iou_threshold = 1.0
    model = build_model(cfg).eval()
    with scope_of(cfg):
        data = model.data_preprocessor(synthetic_batch(cfg, batch_size, img_size or training_size(cfg)), training=False)
        if cfg.get('default_scope') == 'mmseg':
            return count_flops(model, lambda: _segment(model, **data))
        if isinstance(model, BaseSelfSupervisor):
            return count_flops(model, lambda: losses_of(model, data))
        return count_flops(model, lambda: model(**data, mode='tensor'))


def _segment(model: BaseModel, inputs: Tensor, data_samples: list) -> object:
    """Call backbone, neck and head. ``mode='tensor'`` would give Mask2Former's head no samples."""
    from mmseg.models.decode_heads import Mask2FormerHead

    features, head = model.extract_feat(inputs), model.decode_head
    return head(features, data_samples) if isinstance(head, Mask2FormerHead) else head(features)
