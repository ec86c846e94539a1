# Copyright (c) addp_mm contributors. Apache-2.0.
"""Results of the published implementation, and ours for the same components."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from addp_mm.apis import load_published
from addp_mm.diffusion import NoiseSchedule
from addp_mm.generation import alternating_steps
from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.layouts.published import convert_published, published_settings
from addp_mm.models.backbones import ADDPViT
from helpers.trim_reference import DIGESTED, INTEGERS, UNUSED, WHOLE, digest

PATH = Path(__file__).parents[1] / 'data' / 'published_reference.npz'
HEADS = dict(num_heads=3, decoder_num_heads=4, predictor_num_heads=4)
TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3


@dataclass
class Reference:
    state_dict: dict[str, Tensor]
    config: dict
    grad_norms: dict[str, float]
    image: Tensor
    integers: dict[str, Tensor]
    results: dict[str, Tensor]

    def mask(self, name: str) -> Tensor:
        return self.integers[name].bool()


def read_reference() -> Reference:
    with np.load(PATH, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays['header'].tobytes())
    halves = torch.from_numpy(np.ascontiguousarray(arrays['weights'].T).view(np.float16).reshape(-1).copy())
    sizes = [math.prod(shape) for shape in header['shapes'].values()]
    assert sum(sizes) == len(halves)
    weights = {
        key: part.view(shape) for (key, shape), part in zip(header['shapes'].items(), halves.split(sizes), strict=True)
    }
    planes = np.concatenate([arrays['image'], np.zeros_like(arrays['image'][:1])])
    image = np.ascontiguousarray(planes.T).view(np.int32).reshape(header['image_shape']) / 2**24
    results = {name: torch.from_numpy(arrays[name]) for name in WHOLE}
    for name in DIGESTED:
        parts = ('pixels', 'patches') if f'{name}.pixels' in arrays else ('scores', 'logsumexp')
        results.update({f'{name}.{part}': torch.from_numpy(arrays[f'{name}.{part}']) for part in parts})
    # The published code clamps pixels when the next step reads them, ours when they are decoded:
    # compare the clamped pixels.
    results['sampling.x1.pixels'].clamp_(0, 1)
    return Reference(
        weights,
        header['config'],
        header['grad_norms'],
        torch.from_numpy(image).float(),
        {name: torch.from_numpy(arrays[name]).long() for name in INTEGERS},
        results,
    )


def published_checkpoint(reference: Reference) -> dict[str, Tensor]:
    """All keys of a published checkpoint, with unused parameters and a second tokenizer."""
    unused = {key: torch.zeros(1) for key in UNUSED}
    again = {f'token_predictor.{key}': value for key, value in reference.state_dict.items() if key.startswith('vqgan.')}
    return {**reference.state_dict, **unused, **again}


def load(reference: Reference):
    return load_published(reference.state_dict, **HEADS)


@torch.no_grad()
def tokenize(model, reference: Reference) -> dict[str, Tensor]:
    ids, latents = model.tokenize(reference.image)
    return dict(token_indices=ids, z0=latents, reconstruction=model.decode(latents))


@torch.no_grad()
def add_noise(model, reference: Reference, latents: Tensor) -> dict[str, Tensor]:
    ids, mask, mask_next = (reference.integers[name] for name in ('token_indices', 'mask_t', 'mask_next'))
    noisy, _ = model.add_noise(ids, latents, mask.bool(), mask_next.bool())
    target = model.predictor(ids, mask.bool())
    return dict(z_t_pred=model.expected_latents(ids, mask_next.bool()), target_prob=target, x_t=noisy)


def predict(model, reference: Reference, noisy: Tensor, target: Tensor) -> dict[str, Tensor]:
    ids, mask = reference.integers['token_indices'], reference.mask('mask_t')
    features = model.extract_feat(noisy)[-1]
    words = model.neck.word_embed.weight
    states = model.neck(features, ids, mask)
    return dict(
        encoder_out=features,
        logits=model.head(model.neck.decode(features, ids, mask), words),
        **model.head.loss(states, words, target[mask], mask),
    )


@torch.no_grad()
def sample(model, reference: Reference) -> dict[str, Tensor]:
    """The first step of :class:`AlternatingSampler`, with the published draws instead of its own.

    All positions are masked, so the pixels at the start do not matter.
    """
    ids, mask = reference.integers['sampling.ids'], reference.mask('sampling.mask1')
    sampler = AlternatingSampler(model, model.latent_size)
    start = sampler.start(*sampler.blank(len(ids)))
    with mock.patch.multiple(
        alternating_steps, sample_ids=lambda *_, **__: (ids, torch.zeros(ids.shape)), remask=lambda *_, **__: mask
    ):
        state = sampler.step(start, [torch.Generator()] * len(ids))
    return {
        'sampling.step0_logits': model.predict_tokens(start.images, start.ids, start.mask),
        'sampling.x1': state.images,
        'sampling.step1_logits': model.predict_tokens(state.images, state.ids, state.mask),
    }


@torch.no_grad()
def features(model, reference: Reference) -> dict[str, Tensor]:
    """Tokens of the whole image from the backbones of pre-training and published fine-tuning."""
    settings = published_settings(convert_published(reference.state_dict), predictor_decoder_num_heads=4, **HEADS)
    backbone = settings['backbone']
    backbone.pop('type')
    fine_tuned = ADDPViT(**dict(backbone, pre_norm=False, final_norm=False)).eval()
    kept = {
        key: value
        for key, value in model.backbone.state_dict().items()
        if 'pre_norm' not in key and 'final_norm' not in key
    }
    fine_tuned.load_state_dict(kept, strict=True)
    normalised = (reference.image - model.pixel_mean) / model.pixel_std
    return dict(
        pretrain_style_tokens=model.extract_feat(reference.image)[-1], finetune_tokens=fine_tuned(normalised)[-1]
    )


def noise_levels(schedule: NoiseSchedule) -> dict[str, Tensor]:
    return dict(mask_ratios=schedule.ratios.float(), mask_ratio_probs=schedule.probabilities)


def differences(results: dict[str, Tensor], reference: Reference) -> dict[str, float]:
    """Largest absolute difference of each result; of ids, the number of differing ones."""
    found = {}
    for name, value in results.items():
        if name == 'constant_prediction':
            continue  # a value of our log only
        if name in INTEGERS:
            found[name] = float((value != reference.integers[name]).sum())
        elif name in DIGESTED:
            parts = digest(value)
            if name == 'sampling.x1':
                parts.pop('patches')  # means of pixels before the clamp
            for part, sampled in parts.items():
                found[f'{name}.{part}'] = _largest(sampled, reference.results[f'{name}.{part}'])
            if name == 'target_prob':  # most of them are near 1e-3, so their logarithms are compared too
                expected = reference.results['target_prob.scores'].log()
                found['target_prob.log'] = _largest(digest(value)['scores'].log(), expected)
        else:
            found[name] = _largest(value, reference.results[name])
    return found


def beyond_tolerance(results: dict[str, Tensor], reference: Reference) -> set[str]:
    """Names of the results that differ; a difference in a sample is one of the whole result."""
    names = (*INTEGERS, *DIGESTED, *WHOLE)
    bad = [part for part, largest in differences(results, reference).items() if not largest <= TOLERANCE]
    return {name for name in names for part in bad if part == name or part.startswith(name + '.')}


def _largest(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape, (value.shape, expected.shape)
    return float((value.detach() - expected).abs().max())


def gradient_norms(model, loss: Tensor) -> dict[str, float]:
    """Gradient norm of every trained parameter, by this package's names."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(trained.values()))
    return {name: float(grad.norm()) for name, grad in zip(trained, grads, strict=True)}
