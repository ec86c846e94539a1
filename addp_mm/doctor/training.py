# Copyright (c) addp_mm contributors. Apache-2.0.
"""One training step on each kind of device."""

import traceback
from collections.abc import Iterator

from addp_mm.doctor.finding import Finding, first_line

RECIPE = 'addp_mm::cls/addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'


def check_training() -> Iterator[Finding]:
    """One training step of the nano classifier on the CPU, and on the first GPU if there is one."""
    from addp_mm.devices import default_device, is_accelerator

    found = default_device()
    for device in ['cpu', *([f'{found.type}:0'] if is_accelerator(found) else [])]:
        try:
            loss = train_step(device)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = f'{first_line(error)} ({frame.filename}:{frame.lineno})'
            yield Finding('error', f'training on {device}', text, 'see the lines above; if they are ok, report this')
        else:
            yield Finding('ok', f'training on {device}', f'one step of the nano classifier, loss {loss:.3f}')


def train_step(device: str) -> float:
    """Fine-tune the nano ADDPViT for one step on random images, from its shipped weights.

    Args:
        device: Such as 'cpu', 'cuda:0' or 'xpu:0'.

    Returns:
        The loss.

    Raises:
        RuntimeError: The loss is not finite, or the step changed no weight.
    """
    import torch
    from mmengine.optim import OptimWrapper
    from mmengine.registry import DefaultScope
    from mmpretrain.structures import DataSample

    from addp_mm.config.config_file import load_config
    from addp_mm.registry import MODELS

    torch.manual_seed(0)
    cfg = load_config(RECIPE)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
    model = model.to(device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in (0, 1)])
    losses = model.train_step(batch, OptimWrapper(torch.optim.AdamW(weights, lr=1e-3)))
    loss = float(losses['loss'])
    if not torch.isfinite(torch.tensor(loss)):
        raise RuntimeError(f'the loss is {loss}')
    if all(torch.equal(old, new) for old, new in zip(before, weights, strict=True)):
        raise RuntimeError('the step changed no weight')
    return loss
