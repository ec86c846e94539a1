# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate images and extract features with a pre-trained model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from addp_mm.apis.check_images import check_images
from addp_mm.generation import AlternatingSampler, Guidance, Samples, SamplingSchedule, token_mask

if TYPE_CHECKING:
    from addp_mm.models.selfsup import ADDP
    from addp_mm.models.tokenizers import VQTokenizer

FEATURE_TYPES = ('avg_featmap', 'cls_token', 'featmap', 'raw')


def generate(
    model: ADDP,
    num_images: int,
    seed: int = 0,
    batch_size: int | None = None,
    keep_steps: bool = False,
    progress: Callable[[int], None] | None = None,
    labels: Tensor | Sequence[int] | None = None,
    guidance: Guidance | None = None,
    **schedule,
) -> Samples:
    """Generate images.

    Args:
        model: Model in eval mode, from :func:`load_model` or :func:`load_published`.
        num_images: Number of images N.
        seed: The same seed gives the same images for every batch size. Defaults to 0.
        batch_size: Images at a time. Defaults to None: all.
        keep_steps: Whether to keep the state after each step. Defaults to False.
        progress: Called after each step with the number of images in the batch. Defaults to None.
        labels: Class of each image, for a model that was trained with classes; -1 is "no class".
            Defaults to None: no class for all.
        guidance: Classifier-free guidance towards the classes. Defaults to None: no guidance.
        **schedule: Options of :class:`~addp_mm.generation.SamplingSchedule`, such as ``num_steps``.

    Returns:
        ``images`` (N, C, H, W) in [0, 1], ``ids`` (N, L) and ``steps``.

    Raises:
        ConfigError: An option is unknown or out of its range, the model has no such class, or it
            has no classes for the guidance.

    Example:
        >>> model = load_model(
        ...     'configs/pretrain/….py', 'addp_mm://addp_nano-p8.safetensors'
        ... )  # doctest: +SKIP
        >>> samples = generate(model, num_images=4, seed=0, num_steps=12)  # doctest: +SKIP
        >>> samples.to_pil()[0].save('first.png')  # doctest: +SKIP
    """
    generator = torch.Generator().manual_seed(seed)
    sampler = AlternatingSampler(model, model.latent_size, SamplingSchedule.of(schedule), guidance)
    return sampler.run(num_images, generator, batch_size, keep_steps, progress, labels)


def inpaint(
    model: ADDP,
    images: Tensor,
    mask: Tensor,
    seed: int = 0,
    paste: bool = True,
    batch_size: int | None = None,
    keep_steps: bool = False,
    progress: Callable[[int], None] | None = None,
    labels: Tensor | Sequence[int] | None = None,
    guidance: Guidance | None = None,
    **schedule,
) -> Samples:
    """Generate the masked part of each image.

    Args:
        model: See :func:`generate`.
        images: (B, C, H, W), floating point in [0, 1], with the channels and the size that the
            model generates.
        mask: True where to generate, over pixels (B, H, W) or over tokens (B, L). A token is
            generated if any of its pixels is masked.
        seed: See :func:`generate`. Defaults to 0.
        paste: Whether the pixels of known tokens are copied from ``images`` instead of decoded by
            the tokenizer. Defaults to True.
        batch_size: See :func:`generate`. Defaults to None.
        keep_steps: See :func:`generate`. Defaults to False.
        progress: See :func:`generate`. Defaults to None.
        labels: See :func:`generate`. Defaults to None.
        guidance: See :func:`generate`. Defaults to None.
        **schedule: See :func:`generate`.

    Returns:
        See :func:`generate`.

    Raises:
        ConfigError: See :func:`generate`.
        ValueError: The images are not as described, the mask has another size, or the batch size is
            below 1.
    """
    stride = cast('VQTokenizer', model.tokenizer).stride
    height, width = (side * stride for side in model.latent_size)
    images = check_images(images, model.in_channels, (height, width))
    num_tokens = math.prod(model.latent_size)
    if tuple(mask.shape[1:]) not in ((height, width), (num_tokens,)):
        raise ValueError(
            f'mask must be over pixels, (B, {height}, {width}), or over tokens, (B, {num_tokens}), for this model, '
            f'got {tuple(mask.shape)}'
        )
    if len(mask) != len(images):
        raise ValueError(f'{len(images)} image(s) but {len(mask)} mask(s)')
    tokens = token_mask(mask.bool(), stride) if mask.dim() == 3 else mask.bool()
    sampler = AlternatingSampler(model, model.latent_size, SamplingSchedule.of(schedule), guidance)
    generator = torch.Generator().manual_seed(seed)
    samples = sampler.inpaint(images, tokens, generator, batch_size, keep_steps, progress, labels)
    if not paste:
        return samples
    new = tokens.view(-1, 1, *model.latent_size).repeat_interleave(stride, 2).repeat_interleave(stride, 3)
    pasted = torch.where(new.to(samples.images.device), samples.images, images.to(samples.images))
    return Samples(pasted, samples.ids, samples.steps)


@torch.no_grad()
def extract_features(model: ADDP, images: Tensor, out_type: str = 'avg_featmap') -> Tensor:
    """Features of the last block of a pre-trained backbone.

    Args:
        model: See :func:`generate`.
        images: (B, C, H, W), floating point in [0, 1]. H and W are multiples of the patch, unless
            the backbone has ``pad_to_patch``; position embeddings are resized. The model subtracts
            the mean and divides by the deviation.
        out_type: 'avg_featmap': mean of the patch tokens, (B, D). 'cls_token': (B, D). 'featmap':
            (B, D, h, w). 'raw': all tokens, class token and R register tokens first, (B, 1 + R +
            h·w, D). Defaults to 'avg_featmap'.

    Raises:
        ValueError: ``out_type`` is unknown, or the images are not as described.
    """
    if out_type not in FEATURE_TYPES:
        raise ValueError(f'out_type must be one of {FEATURE_TYPES}, got {out_type!r}')
    images = check_images(images, model.in_channels)
    tokens = model.extract_feat(images.to(model.pixel_mean.device))[-1]
    patches = tokens[:, model.backbone.num_prefix_tokens :]
    if out_type == 'cls_token':
        return tokens[:, 0]
    if out_type == 'avg_featmap':
        return patches.mean(1)
    if out_type == 'raw':
        return tokens
    # a backbone with pad_to_patch pads the last patches
    height, width = (math.ceil(side / model.backbone.patch_size) for side in images.shape[2:])
    return patches.transpose(1, 2).unflatten(2, (height, width))
