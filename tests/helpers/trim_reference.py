# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reduce the reference results of the published implementation to a small file.

    python -m helpers.trim_reference addp_reference_small.pt tests/data/published_reference.npz

Weights keep their exact float16 values, in two planes of bytes (high bytes repeat, so they
compress). Parameters that the published model never uses are left out. Large results become samples
(see ``digest``); small results are complete.
"""

import json
import sys

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

UNUSED = (
    'decoder_pos_embed',
    'pos_token_embed',
    'pos_mask_embed',
    'decoder_pred.weight',
    'decoder_pred.bias',
    'token_predictor.patch_embed.proj.weight',
    'token_predictor.patch_embed.proj.bias',
    'token_predictor.pos_embed',
    'token_predictor.decoder_pos_embed',
    'token_predictor.mask_token',
    'token_predictor.cls_token',
    'token_predictor.decoder_pred.weight',
    'token_predictor.decoder_pred.bias',
    'token_predictor.token_emb.position_ids',
)
INTEGERS = ('token_indices', 'mask_t', 'mask_next', 'sampling.ids', 'sampling.mask1')
WHOLE = (
    'z0',
    'z_t_pred',
    'encoder_out',
    'loss',
    'finetune_tokens',
    'pretrain_style_tokens',
    'mask_ratios',
    'mask_ratio_probs',
)
DIGESTED = (
    'reconstruction',
    'x_t',
    'target_prob',
    'logits',
    'sampling.step0_logits',
    'sampling.x1',
    'sampling.step1_logits',
)


def digest(value: Tensor) -> dict[str, Tensor]:
    """Samples of a large result, and sums over all of its elements.

    Args:
        value: Images (B, 3, H, W), or scores (B, N, K) over ids.

    Returns:
        Images: every sixth pixel and the mean of each 8 x 8 patch. Scores: every eleventh id and
        the log-sum-exp of each position.
    """
    value = value.detach().float()
    if value.dim() == 4:
        return dict(pixels=value[..., 1::6, 2::6], patches=avg_pool2d(value, 8))
    return dict(scores=value[..., ::11], logsumexp=value.logsumexp(-1))


def pack_half(value: Tensor) -> np.ndarray:
    """Bytes of a float16 tensor, all low ones before all high ones."""
    return np.ascontiguousarray(value.half().numpy().reshape(-1).view(np.uint8).reshape(-1, 2).T)


def main() -> None:
    source, target = sys.argv[1:]
    reference = torch.load(source, weights_only=True)
    flat = {**reference, **{f'sampling.{key}': value for key, value in reference['sampling'].items()}}
    weights = {key: value for key, value in reference['state_dict'].items() if key not in UNUSED}
    arrays = {'weights': np.concatenate([pack_half(value) for value in weights.values()], axis=1)}
    # uniform noise of torch.rand is a multiple of 2**-24
    image = (reference['image'].double() * 2**24).round().int()
    if not torch.equal(image.double() / 2**24, reference['image'].double()):
        sys.exit('the image is not a multiple of 2**-24: keep it as float32')
    arrays['image'] = np.ascontiguousarray(image.numpy().reshape(-1).view(np.uint8).reshape(-1, 4)[:, :3].T)
    for name in INTEGERS:
        arrays[name] = flat[name].numpy().astype(np.int16)
    for name in WHOLE:
        arrays[name] = flat[name].numpy()
    for name in DIGESTED:
        value = flat[name].flatten(2).transpose(1, 2) if name == 'target_prob' else flat[name]
        arrays.update({f'{name}.{part}': sample.numpy() for part, sample in digest(value).items()})
    header = dict(
        shapes={key: list(value.shape) for key, value in weights.items()},
        config=reference['config'],
        grad_norms=reference['grad_norms'],
        image_shape=list(reference['image'].shape),
    )
    np.savez_compressed(target, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


if __name__ == '__main__':
    main()
