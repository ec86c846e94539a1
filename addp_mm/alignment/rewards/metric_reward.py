# Copyright (c) addp_mm contributors. Apache-2.0.
"""Any registered metric of one image as a reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.registry import METRICS
from torch import Tensor

from addp_mm.alignment.rewards.reward import RewardError
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.registry import MODELS, REWARDS


@REWARDS.register_module()
class MetricReward:
    """A metric of mmengine, computed of each image alone.

    The metric gets one prediction at a time: ``image`` (C, H, W) in [0, 1] and, with a tokenizer,
    ``reconstruction``, the same image after tokenizer and decoder, and its ``ids`` (L,). With the
    metric ``addp_mm.PeakSignalNoiseRatio`` it is the PSNR of the round trip, which is low for
    images that the tokenizer does not know.

    Args:
        metric: Config of the metric.
        key: Name of the number in the metric's result. Defaults to None: its only one.
        tokenizer: Config of the tokenizer; its ``init_cfg`` loads the weights. Defaults to None.
        sign: 1, or -1 if a lower number is better. Defaults to 1.
        device: Device of the tokenizer. Defaults to 'cpu'.
    """

    def __init__(
        self,
        metric: Mapping[str, Any],
        key: str | None = None,
        tokenizer: Mapping[str, Any] | None = None,
        sign: int = 1,
        device: str = 'cpu',
    ) -> None:
        self.metric: Any = METRICS.build(dict(metric))
        self.key, self.sign, self.device = key, sign, device
        self.tokenizer: Any = None
        if tokenizer is not None:
            self.tokenizer = MODELS.build(dict(tokenizer)).to(device)
            init_weights(self.tokenizer)
            self.tokenizer.requires_grad_(False).eval()

    def __call__(self, images: Tensor) -> Tensor:
        """Rewards (B,) of images (B, C, H, W) in [0, 1].

        Raises:
            RewardError: The metric needs something that a sample does not have, or its result has
                no number of this name.
        """
        predictions = [dict(image=image) for image in images]
        if self.tokenizer is not None:
            ids, latents = self.tokenizer.encode(images.to(self.device))
            decoded = self.tokenizer.decode(latents).clamp(0, 1).to(images.device)
            for row, prediction in enumerate(predictions):
                prediction.update(reconstruction=decoded[row], ids=ids[row])
        return self.sign * torch.tensor([self._value(prediction) for prediction in predictions])

    def _value(self, prediction: dict[str, Tensor]) -> float:
        name = type(self.metric).__name__
        try:
            self.metric.process({}, [prediction])
            result = self.metric.evaluate(size=1)
        except (KeyError, ValueError, TypeError) as error:
            raise RewardError(
                f'the metric {name} cannot be computed of one image ({error!r}). MetricReward gives it '
                f'{", ".join(prediction)}'
                + ('' if self.tokenizer else ', and with tokenizer=… also reconstruction, ids')
            ) from error
        if self.key is None and len(result) == 1:
            return float(next(iter(result.values())))
        if self.key not in result:
            raise RewardError(
                f'the metric {name} has no number {self.key!r}: choose key from {", ".join(map(repr, result))}'
            )
        return float(result[self.key])
