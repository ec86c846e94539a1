# Copyright (c) addp_mm contributors. Apache-2.0.
"""The map of token ids. All constants of the ids derive from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from addp_mm.errors import UserError, first_few

#: Label of an image without a class.
NO_CLASS = -1


class TokenSpaceError(UserError, ValueError):
    """Sizes that make no map of token ids."""


class ClassLabelError(UserError, ValueError):
    """A label that is not a class of the model, or training data without labels."""


def check_classes(labels: Iterable[int], num_classes: int) -> None:
    """Check that labels are classes of a model, or -1.

    Args:
        labels: The labels.
        num_classes: Classes of the model; 0 if it is unconditional.

    Raises:
        ClassLabelError: A label is not a class.
    """
    wrong = sorted({label for label in labels if not NO_CLASS <= label < num_classes})
    if wrong and num_classes:
        raise ClassLabelError(
            f'class {first_few(wrong)} does not exist: this model has the classes 0 to {num_classes - 1}, and -1 is no '
            'class. Correct the label'
        )
    if wrong:
        raise ClassLabelError(
            f'class {first_few(wrong)} does not exist: this model is unconditional (token_space.num_classes=0). Give '
            'no labels, or a model that was trained with classes'
        )


@dataclass(frozen=True)
class TokenSpace:
    """Ids of the token predictor and the token decoder.

    The ids are ordered as ``[codes | class slots | mask]``. The defaults are those of the released
    ADDP and MAGE weights (vocabulary 2025, mask id 2024, fake class id 1100). They are
    unconditional: of their 1000 class slots they use one, the fake class.

    ``num_classes`` makes a model class-conditional. Its classes have the first slots in their
    order, without that of the fake class, which stays "no class". So C classes need C + 1 slots:
    ``TokenSpace(num_class_slots=1001, fake_class_slot=1000, num_classes=1000)``, or up to 999
    classes in the published vocabulary.

    Args:
        codebook_size: Number of codes of the tokenizer. Defaults to 1024.
        num_class_slots: Number of ids reserved for classes. Defaults to 1000.
        fake_class_slot: The slot at position 0 of every sequence without a class. Defaults to 76.
        num_classes: Number of classes. Defaults to 0: unconditional.

    Raises:
        TokenSpaceError: A size is not positive, the fake class is outside the class slots, or there
            are too few slots for the classes.

    Example:
        >>> space = TokenSpace()
        >>> space.mask_id, space.vocab_size, space.fake_class_id
        (2024, 2025, 1100)
        >>> space = TokenSpace(16, num_class_slots=4, fake_class_slot=1, num_classes=3)
        >>> space.class_ids(torch.tensor([0, 1, 2, -1]))
        tensor([16, 18, 19, 17])
    """

    codebook_size: int = 1024
    num_class_slots: int = 1000
    fake_class_slot: int = 76
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.codebook_size < 1 or self.num_class_slots < 1:
            raise TokenSpaceError(f'token_space: codebook_size and num_class_slots must be at least 1, got {self}')
        if not 0 <= self.fake_class_slot < self.num_class_slots:
            raise TokenSpaceError(
                f'token_space: fake_class_slot must be in [0, {self.num_class_slots}), got {self.fake_class_slot}'
            )
        if not 0 <= self.num_classes < self.num_class_slots:
            raise TokenSpaceError(
                f'token_space: num_classes must be in [0, {self.num_class_slots}), because the fake class also needs '
                f'one of the {self.num_class_slots} class slots, got {self.num_classes}: set '
                f'num_class_slots={self.num_classes + 1}'
            )

    @property
    def fake_class_id(self) -> int:
        """Id at position 0 of every sequence without a class."""
        return self.codebook_size + self.fake_class_slot

    @property
    def mask_id(self) -> int:
        """Id of masked tokens."""
        return self.codebook_size + self.num_class_slots

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.mask_id + 1

    def class_ids(self, labels: Tensor) -> Tensor:
        """Ids at position 0 of sequences with these classes.

        Args:
            labels: (B,), int64; -1: no class. On a GPU and in compiled code they are not checked,
                which would block; see :meth:`check_labels`.

        Returns:
            (B,), int64.

        Raises:
            ClassLabelError: A label is not a class.
        """
        if labels.device.type == 'cpu' and not torch.compiler.is_compiling():
            self.check_labels(labels)
        slots = labels + (labels >= self.fake_class_slot)
        return (slots + self.codebook_size).masked_fill(labels < 0, self.fake_class_id)

    def check_labels(self, labels: Tensor) -> None:
        """Check that labels (B,), int64, are classes or -1.

        Raises:
            ClassLabelError: A label is not a class.
        """
        check_classes(labels.flatten().tolist(), self.num_classes)

    @classmethod
    def of(cls, value: TokenSpace | Mapping | None) -> TokenSpace:
        """The given token space, one from a config's dict, or the published one for None."""
        if isinstance(value, TokenSpace):
            return value
        return cls(**(value or {}))
