# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate images and extract features with a pre-trained model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from addp_mm.apis.check_images import check_images
from addp_mm.generation import AlternatingSampler, Guidance, Samples, SamplingSchedule, TiledInpainter, image_generators

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
        ConfigError: An option is unknown or out of its range, or the model has no classes for the
            guidance.
        ClassLabelError: The model does not have these classes.

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
    overlap: int | None = None,
    **schedule,
) -> Samples:
    """Generate the masked part of each image.

    Images larger than the model's are generated in overlapping tiles, of which each sees the
    earlier ones; smaller ones are padded. See :class:`~addp_mm.generation.TiledInpainter`.

    Args:
        model: See :func:`generate`.
        images: (B, C, H, W), floating point in [0, 1], of any size, with the channels of the model.
        mask: True where to generate, over pixels (B, H, W) or over tokens (B, L), where the last
            tokens of a row or column may be cut. A token is generated if any of its pixels is
            masked.
        seed: See :func:`generate`. Defaults to 0.
        paste: Whether the pixels outside the mask are copied from ``images`` instead of decoded by
            the tokenizer. Defaults to True.
        batch_size: Tiles at a time. Defaults to None: one of each image.
        keep_steps: See :func:`generate`. For images of at most the model's size. Defaults to False.
        progress: Called after each step with the number of tiles in the batch. Defaults to None.
        labels: See :func:`generate`. Defaults to None.
        guidance: See :func:`generate`. Defaults to None.
        overlap: Tokens that neighbouring tiles share. Defaults to None: half a tile.
        **schedule: See :func:`generate`.

    Returns:
        See :func:`generate`. The ids of tokens that are in no tile are -1.

    Raises:
        ConfigError: See :func:`generate`; or the overlap is not smaller than a tile.
        ClassLabelError: The model does not have these classes.
        ValueError: The images are not as described, the mask has another size or is neither bool
            nor 0 and 1, the batch size is below 1, or steps are to be kept of larger images.
    """
    stride = cast('VQTokenizer', model.tokenizer).stride
    images = check_images(images, model.in_channels)
    if keep_steps and any(side > stride * own for side, own in zip(images.shape[2:], model.latent_size, strict=True)):
        raise ValueError(
            f'keep_steps is for images of at most {stride * model.latent_size[0]}x{stride * model.latent_size[1]}, '
            f'which are one tile; got {images.shape[2]}x{images.shape[3]}'
        )
    pixel_mask = _pixel_mask(mask, images, stride)
    sampler = AlternatingSampler(model, model.latent_size, SamplingSchedule.of(schedule), guidance)
    generators = image_generators(len(images), torch.Generator().manual_seed(seed))
    inpainter = TiledInpainter(sampler, stride, overlap)
    return inpainter.run(images, pixel_mask, generators, paste, labels, batch_size, keep_steps, progress)


def _pixel_mask(mask: Tensor, images: Tensor, stride: int) -> Tensor:
    """The mask (B, H, W) bool of a mask over pixels or tokens of images."""
    height, width = images.shape[2:]
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    if tuple(mask.shape[1:]) not in ((height, width), (rows * columns,)):
        raise ValueError(
            f'mask must be over pixels, (B, {height}, {width}), or over tokens, (B, {rows * columns}), for these '
            f'images, got {tuple(mask.shape)}'
        )
    if len(mask) != len(images):
        raise ValueError(f'{len(images)} image(s) but {len(mask)} mask(s)')
    if mask.is_floating_point() and not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f'mask must be bool, or 0 and 1, got {mask.dtype} with other values: give mask > 0.5, for example'
        )
    if mask.dim() == 3:
        return mask.bool()
    pixels = mask.bool().view(-1, rows, columns).repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    return pixels[:, :height, :width]


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
