# Copyright (c) addp_mm contributors. Apache-2.0.
"""Initial values of transformer weights."""

from torch import nn


def init_transformer_weights(module: nn.Module) -> None:
    """Initialise a transformer as MAE does (arXiv 2111.06377).

    Linear layers get Xavier-uniform weights and zero biases, LayerNorms ones and zeros.

    Args:
        module: Changed in place, with all of its submodules.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm) and part.elementwise_affine:
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
