# Copyright (c) addp_mm contributors. Apache-2.0.
"""Questions about sums of digits, their answers step by step, and which answers are right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: The last two end an answer, and fill the places after the end. No model predicts padding.
SYMBOLS = '0123456789+=$_'
END, PADDING = SYMBOLS.index('$'), SYMBOLS.index('_')


@dataclass(frozen=True)
class SumTask:
    """Sums of digits from 1 to 9, written with all running sums.

    The answer takes the digits of the question in any order. So some tokens are a free choice: they
    are no mistake, however unlikely they are.

    Args:
        num_terms: Digits in a question, from 2 to 11. Defaults to 5.

    Example:
        >>> task = SumTask(3)
        >>> task.text(task.prompts(torch.tensor([[2, 5, 9]]))[0])
        '2+5+9='
        >>> task.is_right(task.encode(['2+5+9=5+9=14+2=16$']), torch.tensor([[2, 5, 9]]))
        tensor([True])
    """

    num_terms: int = 5

    def __post_init__(self) -> None:
        if not 2 <= self.num_terms <= 11:
            raise ValueError(f'num_terms must be from 2 to 11, got {self.num_terms}')

    @property
    def question_length(self) -> int:
        """Tokens of a question, with its ``=``."""
        return 2 * self.num_terms

    @property
    def answer_length(self) -> int:
        """Places for the tokens of an answer: a digit, ``+d=ss`` for each other one, the end."""
        return 1 + 5 * (self.num_terms - 1) + 1

    @property
    def length(self) -> int:
        """Places of a question with its answer, L."""
        return self.question_length + self.answer_length

    def questions(self, count: int, generator: torch.Generator) -> Tensor:
        """Random questions: their digits, (count, num_terms), int64."""
        return torch.randint(1, 10, (count, self.num_terms), generator=generator)

    def prompts(self, terms: Tensor) -> Tensor:
        """Tokens of questions.

        Args:
            terms: Digits, (N, num_terms).

        Returns:
            int64 (N, question_length).
        """
        return self.encode(['+'.join(map(str, row)) + '=' for row in terms.tolist()])[:, : self.question_length]

    def written(self, terms: Tensor, generator: torch.Generator) -> Tensor:
        """Tokens of questions with right answers, which take the digits in random order.

        Args:
            terms: Digits, (N, num_terms).
            generator: Draws the order.

        Returns:
            int64 (N, L).
        """
        order = torch.rand(terms.shape, generator=generator).argsort(1)
        rows = zip(terms.tolist(), terms.gather(1, order).tolist(), strict=True)
        return self.encode(['+'.join(map(str, asked)) + '=' + _steps(taken) + '$' for asked, taken in rows])

    def is_right(self, ids: Tensor, terms: Tensor) -> Tensor:
        """Which answers end, and end with the right sum.

        Args:
            ids: Tokens of questions with answers, (N, L).
            terms: Digits of the questions, (N, num_terms).

        Returns:
            bool (N,). The steps before the last sum are not looked at.
        """
        sums = terms.sum(1).tolist()
        answers = [self.text(row) for row in ids[:, self.question_length :]]
        return torch.tensor(
            [answer.endswith(f'={total}$') for answer, total in zip(answers, sums, strict=True)], dtype=torch.bool
        )

    def answer_mask(self, ids: Tensor) -> Tensor:
        """Where an answer has tokens, its end included: bool (N, answer_length)."""
        return ids[:, self.question_length :] != PADDING

    def encode(self, texts: list[str]) -> Tensor:
        """Tokens of texts, padded to (N, L)."""
        numbers = [[SYMBOLS.index(symbol) for symbol in text.ljust(self.length, SYMBOLS[PADDING])] for text in texts]
        return torch.tensor(numbers, dtype=torch.long).view(len(texts), self.length)

    def text(self, ids: Tensor) -> str:
        """Text of tokens (L,), without padding."""
        return ''.join(SYMBOLS[index] for index in ids.tolist()).rstrip(SYMBOLS[PADDING])


def _steps(digits: list[int]) -> str:
    """The running sums of digits: 5, 9, 2 gives ``5+9=14+2=16``."""
    text, total = str(digits[0]), digits[0]
    for digit in digits[1:]:
        total += digit
        text += f'+{digit}={total}'
    return text
