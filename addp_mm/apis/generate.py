# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images and features from a pre-trained model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from addp_mm.apis.check_images import check_images
from addp_mm.generation import AlternatingSampler, Samples, token_mask


def generate(
    model: nn.Module,
    num_images: int,
    seed: int = 0,
    batch_size: int | None = None,
    keep_steps: bool = False,
    progress=None,
    **sampler,
) -> Samples:
    """Generate images without condition.

    Args:
        model: :class:`~addp_mm.models.selfsup.ADDP` in eval mode, from :func:`load_model` or
            :func:`load_published`.
        num_images: Number of images N.
        seed: The same seed gives the same images, whatever the batch size.
        batch_size: Images at a time; all at once by default.
        keep_steps: Whether to keep the states after each step.
        progress: Called after each step with the number of images it advanced.
        sampler: ``num_steps``, ``schedule``, ``temperature``, ``anneal`` and ``top_p`` of
            :class:`~addp_mm.generation.AlternatingSampler`.

    Returns:
        ``images`` (N, C, H, W) in [0, 1], ``ids`` (N, L) and ``steps``.

    Example:
        >>> model = load_model('configs/pretrain/….py', 'addp_mm://addp_nano-p8.safetensors')   # doctest: +SKIP
        >>> images = generate(model, num_images=4, seed=0, num_steps=12).images                 # doctest: +SKIP
    """
    generator = torch.Generator().manual_seed(seed)
    return AlternatingSampler(model, model.latent_size, **sampler).run(
        num_images, generator, batch_size, keep_steps, progress
    )


def inpaint(
    model: nn.Module,
    images: Tensor,
    mask: Tensor,
    seed: int = 0,
    paste: bool = True,
    batch_size: int | None = None,
    keep_steps: bool = False,
    progress=None,
    **sampler,
) -> Samples:
    """Generate a part of each image anew.

    Args:
        model: See :func:`generate`.
        images: (B, C, H, W), floating point in [0, 1], of the channels and the size that the model
            generates.
        mask: True = generate; over pixels (B, H, W), or over tokens (B, L). A token is generated
            where any of its pixels is.
        seed: See :func:`generate`.
        paste: Whether pixels of known tokens are those of ``images``, instead of the tokenizer's
            reconstruction.
        batch_size: See :func:`generate`.
        keep_steps: See :func:`generate`.
        progress: See :func:`generate`.
        sampler: See :func:`generate`.

    Returns:
        See :func:`generate`.

    Raises:
        ValueError: If there is no image, images or mask have another size, the images other
            channels, other values than in [0, 1] or another type than floating point, or the batch
            size is below 1.
    """
    stride = model.tokenizer.stride
    height, width = (side * stride for side in model.latent_size)
    images = check_images(images, model.in_channels, (height, width))
    if tuple(mask.shape[1:]) not in ((height, width), (math.prod(model.latent_size),)):
        raise ValueError(
            f'mask must be over pixels, (B, {height}, {width}), or over tokens, '
            f'(B, {math.prod(model.latent_size)}), for this model, got {tuple(mask.shape)}'
        )
    if len(mask) != len(images):
        raise ValueError(f'{len(images)} image(s) but {len(mask)} mask(s)')
    tokens = token_mask(mask.bool(), stride) if mask.dim() == 3 else mask.bool()
    samples = AlternatingSampler(model, model.latent_size, **sampler).inpaint(
        images, tokens, torch.Generator().manual_seed(seed), batch_size, keep_steps, progress
    )
    if not paste:
        return samples
    new = tokens.view(-1, 1, *model.latent_size).repeat_interleave(stride, 2).repeat_interleave(stride, 3)
    pasted = torch.where(new.to(samples.images.device), samples.images, images.to(samples.images))
    return Samples(pasted, samples.ids, samples.steps)


@torch.no_grad()
def extract_features(model: nn.Module, images: Tensor, out_type: str = 'avg_featmap') -> Tensor:
    """Features of the last block of a pre-trained backbone.

    Args:
        model: See :func:`generate`.
        images: (B, C, H, W), floating point in [0, 1], H and W multiples of the patch unless the
            backbone has ``pad_to_patch``; positions are resized to them. The model itself subtracts
            the mean and divides by the deviation.
        out_type: 'avg_featmap': mean of the patch tokens, (B, D). 'cls_token': (B, D). 'featmap':
            (B, D, h, w). 'raw': all tokens, class token and R register tokens first, (B, 1 + R +
            h·w, D).

    Raises:
        ValueError: If ``out_type`` is not known, or images have other channels, other values or
            another type.
    """
    kinds = ('avg_featmap', 'cls_token', 'featmap', 'raw')
    if out_type not in kinds:
        raise ValueError(f'out_type must be one of {kinds}, got {out_type!r}')
    images = check_images(images, model.in_channels)
    tokens = model.extract_feat(images.to(model.tokenizer.codebook.device))[-1]
    if out_type == 'cls_token':
        return tokens[:, 0]
    patches = tokens[:, model.backbone.num_prefix_tokens :]
    if out_type == 'avg_featmap':
        return patches.mean(1)
    if out_type == 'featmap':
        # a backbone with pad_to_patch fills the last patches up
        sides = [math.ceil(side / model.backbone.patch_size) for side in images.shape[2:]]
        return patches.transpose(1, 2).unflatten(2, sides)
    return tokens
