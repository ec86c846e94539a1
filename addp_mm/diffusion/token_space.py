# Copyright (c) addp_mm contributors. Apache-2.0.
"""The map of token ids: the only place where their numbers stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenSpace:
    """Ids known to the token predictor and the token decoder.

    The ids are laid out as ``[codes | class slots | mask]``. The defaults are those of the released
    ADDP and MAGE weights (vocabulary 2025, mask id 2024, fake class id 1100); the class slots are a
    heritage of class-conditional generation, of which unconditional models use just one, the fake
    class.

    Args:
        codebook_size: Number of codes of the tokenizer.
        num_class_slots: Number of ids kept for classes.
        fake_class_slot: The slot that stands at position 0 of every sequence.

    Raises:
        ValueError: If a size is not positive or the fake class lies outside the class slots.

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
            raise ValueError(f'fake_class_slot must lie in [0, {self.num_class_slots}), got {self.fake_class_slot}')

    @property
    def fake_class_id(self) -> int:
        return self.codebook_size + self.fake_class_slot

    @property
    def mask_id(self) -> int:
        return self.codebook_size + self.num_class_slots

    @property
    def vocab_size(self) -> int:
        return self.mask_id + 1

    @classmethod
    def of(cls, value: TokenSpace | Mapping | None) -> TokenSpace:
        """A token space from itself, from a config's dict, or (None) the published one."""
        if isinstance(value, cls):
            return value
        return cls(**(value or {}))
