# Copyright (c) addp_mm contributors. Apache-2.0.
"""The map of token ids. All constants of the ids derive from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenSpace:
    """Ids of the token predictor and the token decoder.

    The ids are ordered as ``[codes | class slots | mask]``. The defaults are those of the released
    ADDP and MAGE weights (vocabulary 2025, mask id 2024, fake class id 1100). The class slots come
    from class-conditional generation; unconditional models use one of them, the fake class.

    Args:
        codebook_size: Number of codes of the tokenizer. Defaults to 1024.
        num_class_slots: Number of ids reserved for classes. Defaults to 1000.
        fake_class_slot: The slot at position 0 of every sequence. Defaults to 76.

    Raises:
        ValueError: A size is not positive, or the fake class is outside the class slots.

    Example:
        >>> space = TokenSpace()
        >>> space.mask_id, space.vocab_size, space.fake_class_id
        (2024, 2025, 1100)
    """

    codebook_size: int = 1024
    num_class_slots: int = 1000
    fake_class_slot: int = 76

    def __post_init__(self) -> None:
        if self.codebook_size < 1 or self.num_class_slots < 1:
            raise ValueError(f'codebook_size and num_class_slots must be at least 1, got {self}')
        if not 0 <= self.fake_class_slot < self.num_class_slots:
            raise ValueError(f'fake_class_slot must be in [0, {self.num_class_slots}), got {self.fake_class_slot}')

    @property
    def fake_class_id(self) -> int:
        """Id at position 0 of every sequence."""
        return self.codebook_size + self.fake_class_slot

    @property
    def mask_id(self) -> int:
        """Id of masked tokens."""
        return self.codebook_size + self.num_class_slots

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.mask_id + 1

    @classmethod
    def of(cls, value: TokenSpace | Mapping | None) -> TokenSpace:
        """The given token space, one from a config's dict, or the published one for None."""
        if isinstance(value, TokenSpace):
            return value
        return cls(**(value or {}))
