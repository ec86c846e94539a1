# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare the weights of a checkpoint with those of a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.finite import refuse_non_finite
from addp_mm.errors import first_few

Shape = tuple[int, ...]
_MOST_IMAGE_CHANNELS = 16  # a convolution over features has more


@dataclass(frozen=True)
class Comparison:
    """Names of weights, compared between a checkpoint and a module.

    Attributes:
        matching: In both, with the same shape.
        missing: In the module only.
        unexpected: In the checkpoint only.
        mismatched: In both with different shapes: name -> (shape in the checkpoint, in the module).
    """

    matching: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, tuple[Shape, Shape]]

    @property
    def is_exact(self) -> bool:
        """Whether the checkpoint has exactly the module's weights."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def input_convolution(self) -> str | None:
        """The convolution over the image, if only its number of channels differs.

        Its kernel may differ in height and width too. None if another weight has another shape.
        """
        if len(self.mismatched) != 1:
            return None
        [(name, (saved, built))] = self.mismatched.items()
        if len(saved) != 4 or len(built) != 4 or saved[0] != built[0] or saved[1] == built[1]:
            return None
        return name if saved[1] <= _MOST_IMAGE_CHANNELS else None

    def shapes(self, prefix: str = '') -> list[str]:
        """The mismatched weights, one phrase for each.

        Args:
            prefix: Text before each name. Defaults to ''.
        """
        return [
            f'{prefix}{name} is {list(saved)} in the checkpoint and {list(built)} in the model'
            for name, (saved, built) in self.mismatched.items()
        ]

    def differences(self) -> str:
        """One sentence for an error message; '' if there is no difference."""
        parts = []
        if self.missing:
            parts.append(f'missing {first_few(self.missing)}')
        if self.unexpected:
            parts.append(f'unexpected {first_few(self.unexpected)}')
        if self.mismatched:
            parts.append(f'another shape: {first_few(self.shapes())}')
        return '; '.join(parts)


def compare_weights(weights: Mapping[str, Tensor], module: nn.Module | Mapping[str, Tensor]) -> Comparison:
    """Compare the weights of a checkpoint with those of a module.

    Args:
        weights: Tensors by name.
        module: The module, or its state dict.

    Returns:
        The names, each tuple in the order of the module or of the checkpoint. Nothing is loaded.
    """
    own = module.state_dict() if isinstance(module, nn.Module) else module
    shared = [name for name in own if name in weights]
    mismatched = {
        name: (tuple(weights[name].shape), tuple(own[name].shape))
        for name in shared
        if tuple(weights[name].shape) != tuple(own[name].shape)
    }
    return Comparison(
        matching=tuple(name for name in shared if name not in mismatched),
        missing=tuple(name for name in own if name not in weights),
        unexpected=tuple(name for name in weights if name not in own),
        mismatched=mismatched,
    )


def load_exactly(weights: Mapping[str, Tensor], module: nn.Module, source: str) -> None:
    """Load weights that must have exactly the names and shapes of the module's own.

    Args:
        weights: Tensors by name.
        module: The module that loads them.
        source: Name of the checkpoint in the error.

    Raises:
        CheckpointError: They differ, or are NaN or Inf. Nothing was loaded.
    """
    comparison = compare_weights(weights, module)
    if not comparison.is_exact:
        raise CheckpointError(f'{source} does not fit {type(module).__name__}: {comparison.differences()}.')
    refuse_non_finite(weights, module, source)
    module.load_state_dict(weights)
