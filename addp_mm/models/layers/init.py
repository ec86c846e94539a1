# Copyright (c) addp_mm contributors. Apache-2.0.
"""Initial values of transformer weights."""

from torch import nn


def init_transformer_weights(module: nn.Module) -> None:
    """Set every linear layer to Xavier-uniform with zero bias and every LayerNorm to one and zero, as MAE does.

    Args:
        module (nn.Module): Changed in place, with everything in it.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm) and part.elementwise_affine:
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
