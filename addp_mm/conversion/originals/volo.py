# Copyright (c) addp_mm contributors. Apache-2.0.
"""Forward pass of VOLO in timm, and what timm needs to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from addp_mm.checkpoints.comparison import load_exactly
from addp_mm.conversion.agreement import compared
from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD


def timm_volo(weights: Mapping[str, Tensor], args: Mapping[str, Any]) -> torch.nn.Module:
    """Timm's VOLO with published weights, in eval mode.

    Args:
        weights: In the published layout, with both heads.
        args: Arguments of :class:`addp_mm.VOLO` for them.

    Raises:
        CheckpointError: The weights do not fit the architecture.
    """
    import timm

    from addp_mm.models.backbones.volo_archs import build_volo

    num_classes = len(weights['head.weight'])
    model: Any
    if isinstance(args['arch'], str):
        options = dict(img_size=args['img_size'], in_chans=args['in_channels'], num_classes=num_classes)
        model = timm.create_model(architecture_of(args['arch']), **options)
    else:
        model = build_volo(args['arch'], _pair(args['img_size']), args['in_channels'], drop_path_rate=0.0)
        model.reset_classifier(num_classes)
    load_exactly(weights, model, 'the checkpoint, with the sizes inferred from it,')
    return model.eval()


def volo_agrees(classifier: torch.nn.Module, original: torch.nn.Module, args: Mapping[str, Any]) -> str:
    """Run both implementations on random images; return a description of the comparison.

    Args:
        classifier: Classifier with addp_mm.VOLO and addp_mm.VOLOHead, in eval mode.
        original: timm's VOLO.
        args: Arguments of :class:`addp_mm.VOLO`.

    Raises:
        ValueError: The logits differ.
    """
    images = torch.rand(2, args['in_channels'], *_pair(args['img_size']))
    with torch.no_grad():
        return compared(logits=(classifier(images, mode='tensor'), original(images)))


def architecture_of(arch: str) -> str:
    """Name of an architecture in timm's registry; the image size is an argument."""
    return f'volo_{arch}_224'


def timm_config(args: Mapping[str, Any], num_classes: int) -> dict:
    """Content of ``config.json``, which timm and the Hub read next to ``model.safetensors``.

    Args:
        args: Arguments of :class:`addp_mm.VOLO`, with a named architecture.
        num_classes: Number of classes.
    """
    import timm

    size = list(_pair(args['img_size']))
    published = timm.models.volo.default_cfgs[architecture_of(args['arch'])].default.to_dict()
    kept = ('interpolation', 'crop_pct', 'crop_mode', 'first_conv', 'classifier', 'fixed_input_size')
    return dict(
        architecture=architecture_of(args['arch']),
        num_classes=num_classes,
        model_args=dict(img_size=size, in_chans=args['in_channels']),
        pretrained_cfg=dict(
            {name: published[name] for name in kept if name in published},
            custom_load=False,
            input_size=[args['in_channels'], *size],
            mean=list(IMAGENET_MEAN),
            std=list(IMAGENET_STD),
            num_classes=num_classes,
            pool_size=None,
        ),
    )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
