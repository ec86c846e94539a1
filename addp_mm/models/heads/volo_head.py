# Copyright (c) addp_mm contributors. Apache-2.0.
"""VOLO's classification head. This file needs mmpretrain, so the package does not import it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmpretrain.evaluation.metrics import Accuracy
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from addp_mm.models.layers import OptionError
from addp_mm.models.layers.mix_token import MixedTokens
from addp_mm.registry import MODELS

if TYPE_CHECKING:
    from mmpretrain.structures import DataSample

#: Weight of the largest token logit in the prediction, as published.
_AUX_WEIGHT = 0.5


@MODELS.register_module()
class VOLOHead(ClsHead):
    """Class head and auxiliary head on every token (VOLO, arXiv 2106.13112).

    Logits of the test are those of the class token plus half of the largest logit of all tokens.
    In training both heads have a loss; see :class:`~addp_mm.models.losses.TokenLabelLoss`.

    Label maps are read from ``data_sample.token_labels``, probabilities (num_classes, 1 + L):
    column 0 the class of the map, then one column for each token, row by row. Without them the
    label of the image is the target of every token, also after Mixup and CutMix.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the tokens.
        label_smooth_val: Share of the ground truth that is spread over all classes. Defaults to
            0.1.
        loss: Config of a module called as ``loss(cls_logits, token_logits, target, exchanged)``.
            Defaults to None: ``dict(type='addp_mm.TokenLabelLoss')``.
        topk: Accuracies that are logged in training with ``cal_acc``. Defaults to (1,).
        cal_acc: Whether the accuracy of the class token is logged in training. Defaults to False.
        init_cfg: How mmengine initialises the weights. Defaults to None: normal with a deviation of
            0.02, and zero biases.

    Raises:
        OptionError: An option is out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        label_smooth_val: float = 0.1,
        loss: Mapping | None = None,
        topk: int | Sequence[int] = (1,),
        cal_acc: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            loss=dict(loss or dict(type='addp_mm.TokenLabelLoss')),
            topk=topk,
            cal_acc=cal_acc,
            init_cfg=init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02),
        )
        if num_classes < 1:
            raise OptionError(f'num_classes of VOLOHead must be positive, got {num_classes}')
        if not 0 <= label_smooth_val < 1:
            raise OptionError(f'label_smooth_val of VOLOHead must be in [0, 1), got {label_smooth_val}')
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.label_smooth_val = label_smooth_val
        self.fc = nn.Linear(in_channels, num_classes)
        self.aux_fc = nn.Linear(in_channels, num_classes)

    def pre_logits(self, feats: Sequence[Tensor | MixedTokens]) -> Tensor:
        """Tokens of the last output of the backbone, (B, 1 + L, C), class token first.

        Raises:
            OptionError: The backbone gives no tokens, or tokens of another width.
        """
        tokens = feats[-1].tokens if isinstance(feats[-1], MixedTokens) else feats[-1]
        if tokens.dim() != 3 or tokens.shape[1] < 2:
            raise OptionError(
                f'VOLOHead takes the class token and the patch tokens (B, 1 + L, C), and gets {tuple(tokens.shape)}: '
                "set out_type='raw' of the backbone"
            )
        if tokens.shape[2] != self.in_channels:
            raise OptionError(f'in_channels of VOLOHead is {self.in_channels}, and the tokens have {tokens.shape[2]}')
        return tokens

    def forward(self, feats: Sequence[Tensor | MixedTokens]) -> Tensor:
        """Logits of the test, (B, num_classes)."""
        cls_logits, token_logits = self._logits(feats)
        return cls_logits + _AUX_WEIGHT * token_logits.amax(dim=1)

    def _logits(self, feats: Sequence[Tensor | MixedTokens]) -> tuple[Tensor, Tensor]:
        """Logits of the class token, (B, K), and of the other tokens, (B, L, K)."""
        tokens = self.pre_logits(feats)
        return self.fc(tokens[:, 0]), self.aux_fc(tokens[:, 1:])

    def loss(self, feats: Sequence[Tensor | MixedTokens], data_samples: list[DataSample], **kwargs) -> dict:
        """Losses of both heads.

        Args:
            feats: Outputs of the backbone; see :meth:`pre_logits`.
            data_samples: With ``gt_label`` or ``gt_score``, and optionally ``token_labels``.
            **kwargs: Passed to the loss module.

        Returns:
            ``loss_cls`` and ``loss_token``, and accuracies with ``cal_acc``.

        Raises:
            OptionError: Label maps do not fit the classes or the tokens, or were not mixed as the
                images were.
        """
        cls_logits, token_logits = self._logits(feats)
        scores = self._scores(data_samples).to(cls_logits.device)
        target = (1 - self.label_smooth_val) * scores + self.label_smooth_val / self.num_classes
        maps = self._label_maps(data_samples, scores, token_logits.shape[1])
        if maps is not None:
            target = torch.cat([target.unsqueeze(2), maps.to(target)], dim=2)
        exchanged = feats[-1].exchanged if isinstance(feats[-1], MixedTokens) else 0.0
        losses = self.loss_module(cls_logits, token_logits, target, exchanged, **kwargs)
        return {**losses, **self._accuracies(cls_logits, scores)}

    def _scores(self, data_samples: list[DataSample]) -> Tensor:
        """Probabilities of the classes before smoothing, (B, K)."""
        if 'gt_score' in data_samples[0]:
            return torch.stack([sample.gt_score for sample in data_samples]).float()
        labels = torch.cat([sample.gt_label for sample in data_samples])
        if len(labels) != len(data_samples):
            raise OptionError('VOLOHead takes one gt_label an image: for several labels set to_onehot=True')
        return F.one_hot(labels, self.num_classes).float()

    def _label_maps(self, data_samples: list[DataSample], scores: Tensor, num_tokens: int) -> Tensor | None:
        """The images' ``token_labels``, (B, K, 1 + L); None if no image has them."""
        count = sum('token_labels' in sample for sample in data_samples)
        if not count:
            return None
        if count < len(data_samples):
            raise OptionError(f'only {count} of {len(data_samples)} images of the batch have token_labels')
        for sample in data_samples:
            got, wanted = tuple(sample.token_labels.shape), (self.num_classes, 1 + num_tokens)
            if got != wanted:
                raise OptionError(
                    f'token_labels of {sample.get("img_path", "an image")} are {got} (classes, 1 + tokens), and '
                    f'VOLOHead needs {wanted}: make the label maps for num_classes={self.num_classes}, and set their '
                    'grid in the pipeline to the tokens of the image'
                )
        if (scores.amax(dim=1) < 1).any():
            raise OptionError(
                'images were mixed (Mixup, CutMix) after their label maps were read, and the maps were not: remove '
                'train_cfg.augments, or train without label maps. The backbone mixes both with mix_token=True'
            )
        return torch.stack([sample.token_labels for sample in data_samples])

    def _accuracies(self, cls_logits: Tensor, scores: Tensor) -> dict[str, list[Tensor]]:
        """Top-k accuracies of the class token; {} without ``cal_acc``."""
        if not self.cal_acc:
            return {}
        accuracies = Accuracy.calculate(cls_logits, scores.argmax(dim=1), topk=self.topk)
        return {f'accuracy_top-{k}': value for k, value in zip(self.topk, accuracies, strict=True)}
