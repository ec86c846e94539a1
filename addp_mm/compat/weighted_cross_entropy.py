# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmsegmentation's cross entropy with class weights."""

from typing import Any

from addp_mm.compat.importing import replace


def patch_weighted_cross_entropy(module: Any) -> bool:
    """Make mmseg's ``cross_entropy`` accept ``class_weight`` if some pixels are unlabelled.

    The original divides by the sum of the weights of all labels. It fails to find a weight for the
    ignored label 255.

    Args:
        module: ``mmseg.models.losses.cross_entropy_loss``.

    Returns:
        Whether an ignored label fails.
    """
    import torch

    try:
        module.cross_entropy(torch.zeros(1, 2, 1), torch.tensor([[255]]), class_weight=torch.ones(2), ignore_index=255)
    except IndexError:
        replace(module, 'cross_entropy', _make_cross_entropy)
        return True
    return False


def _make_cross_entropy(original):

    def cross_entropy(
        pred, label, weight=None, class_weight=None, reduction='mean', avg_factor=None, ignore_index=-100, **kwargs
    ):
        if class_weight is not None and reduction == 'mean' and avg_factor is None:
            # an ignored pixel has no class and no weight
            known = label != ignore_index
            avg_factor = (class_weight[label.where(known, 0)] * known).sum()
        return original(
            pred,
            label,
            weight=weight,
            class_weight=class_weight,
            reduction=reduction,
            avg_factor=avg_factor,
            ignore_index=ignore_index,
            **kwargs,
        )

    return cross_entropy
