# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pre-training of the token predictor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.diffusion import random_masks, seeded_masks, truncated_normal_ratios
from addp_mm.models.layers.positions import masked_rows
from addp_mm.models.losses.masked_token_loss import masked_token_losses
from addp_mm.models.selfsup.build_component import build_component
from addp_mm.models.selfsup.class_labels import check_drop_rate, drop_labels, read_labels
from addp_mm.models.selfsup.frozen import add_missing_components, freeze, is_loaded
from addp_mm.models.selfsup.stored_ids import StoredIds
from addp_mm.randomness import generator_from_process
from addp_mm.registry import MODELS


@MODELS.register_module()
class PredictorPretrain(BaseModel):
    """Masked token modelling for a predictor on frozen ids.

    The predictor is a :class:`~addp_mm.models.predictors.MaskedTokenPredictor`. It trains on
    images, which a frozen tokenizer turns into ids, or on stored ids
    (:class:`~addp_mm.datasets.TokenIds`).
    Mask ratios follow a truncated normal density on [``mask_ratio_min``, 1]. Masks are drawn by
    torch's global CPU generator, which :class:`~addp_mm.engine.hooks.RandomStateHook` seeds.

    A predictor whose token space has ``num_classes`` learns from the classes in the data samples
    (``gt_label``), of which a share is dropped at random.

    Besides its own checkpoints it loads checkpoints with a predictor only, as
    tools/model_converters/export_weights.py writes them. The tokenizer's ``init_cfg`` then loads
    the tokenizer.

    MAGE (arXiv 2211.09117) as released is
    ``drop_ratio=0.5, codes_only=True, shared_mask_ratio=True``.

    Args:
        tokenizer: Config of the tokenizer, or the module; frozen. Its ``init_cfg`` loads trained
            weights. None: all batches contain ids.
        predictor: Config of the predictor, or the module.
        mask_ratio_mean: Mean of the density before truncation. Defaults to 0.55.
        mask_ratio_std: Its standard deviation. Defaults to 0.25.
        mask_ratio_min: Lower bound of the ratio. Defaults to 0.5.
        drop_ratio: Share of all positions, taken from the masked ones, that the encoder does not
            see in training mode. Defaults to 0.0.
        shared_mask_ratio: Whether a batch shares one ratio; otherwise each image has its own.
            Defaults to False.
        label_smoothing: Share of the target that is spread over all ids that can be predicted.
            Defaults to 0.1.
        codes_only: Whether the loss is over the codes only, without the mask id and the class
            slots. Defaults to False.
        class_drop_rate: For a predictor with classes: share of the images that are trained without
            their class. Defaults to 0.1.
        test_mask_ratios: Shares of masked tokens at which :meth:`predict` tests the predictor.
            Defaults to (0.5, 0.75, 0.95).
        test_mask_seed: Seed of the masks of :meth:`predict`. Defaults to 0.
        data_preprocessor: Must scale images to [0, 1]; ids need none. Defaults to None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ValueError: If ``drop_ratio`` exceeds ``mask_ratio_min``, a ratio of ``test_mask_ratios`` is
            not in (0, 1], ``class_drop_rate`` is not in [0, 1], or tokenizer and predictor differ
            in the number of codes.
    """

    def __init__(
        self,
        tokenizer: dict | nn.Module | None,
        predictor: dict | nn.Module,
        mask_ratio_mean: float = 0.55,
        mask_ratio_std: float = 0.25,
        mask_ratio_min: float = 0.5,
        drop_ratio: float = 0.0,
        shared_mask_ratio: bool = False,
        label_smoothing: float = 0.1,
        codes_only: bool = False,
        class_drop_rate: float = 0.1,
        test_mask_ratios: Sequence[float] = (0.5, 0.75, 0.95),
        test_mask_seed: int = 0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not 0 <= drop_ratio <= mask_ratio_min <= 1 or drop_ratio == 1:
            raise ValueError(
                'dropped positions are masked ones: 0 <= drop_ratio <= mask_ratio_min must hold, with '
                f'drop_ratio below 1, got {drop_ratio} and {mask_ratio_min}'
            )
        if not test_mask_ratios or not all(0 < ratio <= 1 for ratio in test_mask_ratios):
            raise ValueError(f'test_mask_ratios must be shares above 0 and at most 1, got {test_mask_ratios}')
        self.tokenizer = None if tokenizer is None else freeze(build_component(tokenizer), 'tokenizer')
        self.predictor = build_component(predictor)
        self.codebook_size = self.predictor.token_space.codebook_size
        if self.tokenizer is not None and self.tokenizer.codebook_size != self.codebook_size:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.codebook_size} codes, the predictor's token space "
                f'{self.codebook_size}: set predictor.token_space.codebook_size'
            )
        self.mask_ratio_mean, self.mask_ratio_std = mask_ratio_mean, mask_ratio_std
        self.mask_ratio_min, self.drop_ratio = mask_ratio_min, drop_ratio
        self.shared_mask_ratio = shared_mask_ratio
        self.label_smoothing, self.codes_only = label_smoothing, codes_only
        self.class_drop_rate = check_drop_rate(class_drop_rate)
        self.test_mask_ratios, self.test_mask_seed = tuple(test_mask_ratios), test_mask_seed
        self._stored_ids = StoredIds(self.predictor.num_tokens, self.codebook_size)
        self.register_load_state_dict_pre_hook(_complete)
        if self.tokenizer is not None:
            # DistributedDataParallel ignores these names: every rank loads its own weights
            self._ddp_params_and_buffers_to_ignore = [f'tokenizer.{key}' for key in self.tokenizer.state_dict()]

    @property
    def num_classes(self) -> int:
        """Number of classes of the predictor; 0: unconditional."""
        return self.predictor.token_space.num_classes

    def train(self, mode: bool = True) -> PredictorPretrain:
        """Set the training mode of the predictor; the tokenizer stays in eval mode."""
        super().train(mode)
        if self.tokenizer is not None:
            self.tokenizer.eval()
        return self

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: list | None = None, mode: str = 'tensor'
    ) -> Tensor | dict | list:
        """Losses, predictions or logits of images or ids.

        Args:
            inputs: Images (B, C, H, W) in [0, 1], or a list with them as first entry; or ids (B, L)
                of any integer type, or a list of B rows of ids.
            data_samples: Samples with ``gt_label``, which a predictor with classes needs in mode
                'loss'. Mode 'tensor' ignores them. Defaults to None.
            mode: 'loss', 'predict' (see :meth:`predict`) or 'tensor'. Defaults to 'tensor'.

        Returns:
            Losses, one data element for each row of ids, or the logits (B, L, vocabulary) of a
            fully masked sequence.

        Raises:
            RuntimeError: Images are given, and there is no tokenizer, or no weights were loaded
                into it (allowed in mode 'tensor').
            ValueError: The ids do not fit the predictor.
            ClassLabelError: A label is missing in mode 'loss', or is not a class of the predictor.
        """
        ids = self._ids_of(inputs, mode)
        if mode not in ('loss', 'predict'):
            return self.predictor.logits(ids, torch.ones_like(ids, dtype=torch.bool))
        labels = read_labels(data_samples, self.predictor.token_space, ids.device, required=mode == 'loss')
        return self.loss(ids, labels) if mode == 'loss' else self.predict(ids, labels)

    def loss(self, ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Cross entropy and accuracy at the masked positions.

        Args:
            ids: (B, L), int64.
            labels: Classes (B,), int64, of which ``class_drop_rate`` are dropped in training mode.
                Defaults to None: no class.
        """
        mask, kept = self.draw_masks(ids)
        if labels is not None and self.training:
            labels = drop_labels(labels, self.class_drop_rate, generator_from_process())
        rows = masked_rows(mask)
        logits = self.predictor.masked_logits(ids, mask, kept, labels, rows, self.codes_only)
        return masked_token_losses(logits, ids.flatten()[rows], self.label_smoothing)

    def predict(self, ids: Tensor, labels: Tensor | None = None) -> list[BaseDataElement]:
        """Predictions of all masked tokens, at each of ``test_mask_ratios``.

        As in MAGE's inference the encoder sees all positions, and only codes are predicted. The
        masks of an image follow from its ids and ``test_mask_seed``
        (:func:`~addp_mm.diffusion.seeded_masks`).

        Args:
            ids: (B, L), int64.
            labels: Classes (B,), int64; -1: no class. Defaults to None: no class in any row.

        Returns:
            For each of the B rows an element with ``mask_ratios`` (R numbers), ``ids`` (L),
            ``masks`` (R, L), bool, ``predicted`` (R, L), the likeliest codes, and
            ``log_likelihood`` (R, L) of the true codes in nats.
        """
        masks = seeded_masks(ids, self.test_mask_ratios, self.test_mask_seed)
        predicted, log_likelihood = [], []
        for mask in masks:
            log_probs = self.predictor.logits(ids, mask, labels=labels, codes_only=True).float().log_softmax(-1)
            predicted.append(log_probs.argmax(-1))
            log_likelihood.append(log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1))
        parts = (part.unbind(1) for part in (masks, torch.stack(predicted), torch.stack(log_likelihood)))
        return [
            BaseDataElement(
                metainfo=dict(mask_ratios=self.test_mask_ratios),
                ids=row,
                masks=mask,
                predicted=codes,
                log_likelihood=likelihood,
            )
            for row, mask, codes, likelihood in zip(ids, *parts, strict=True)
        ]

    @torch.compiler.disable  # generators and numbers of another step
    def draw_masks(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Draw the masks of a training step.

        Args:
            ids: (B, L).

        Returns:
            The mask (B, L), and the positions (B, K) that the encoder sees, or None if it sees all,
            as in eval mode.
        """
        generator = generator_from_process()
        ratios = truncated_normal_ratios(
            len(ids), self.mask_ratio_mean, self.mask_ratio_std, self.mask_ratio_min, generator, self.shared_mask_ratio
        )
        drop_ratio = self.drop_ratio if self.training else 0.0
        return random_masks(ratios, ids.shape[1], generator, drop_ratio, ids.device)

    def _ids_of(self, inputs: Tensor | Sequence[Tensor], mode: str) -> Tensor:
        ids = self._stored_ids.read(inputs)
        if ids is not None:
            return ids
        images = inputs if isinstance(inputs, Tensor) else inputs[0]
        if self.tokenizer is None:
            raise RuntimeError(
                f'a batch of shape {tuple(images.shape)} does not contain ids (B, {self.predictor.num_tokens}), '
                'and tokenizer is None: read stored ids with addp_mm.TokenIds, or give a tokenizer'
            )
        if mode != 'tensor' and not is_loaded(self.tokenizer):
            raise RuntimeError(
                'no weights were loaded into the frozen tokenizer: the predictor would learn random ids.'
                " Give it an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…)"
            )
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.tokenizer.encode(images.float())[0]


def _complete(model: PredictorPretrain, state_dict: dict, prefix: str, *_) -> None:
    """Complete a checkpoint of a predictor only, or one of a training on ids."""
    names = {name for name in model.predictor.state_dict() if f'{prefix}{name}' in state_dict}
    for name in names:
        state_dict[f'{prefix}predictor.{name}'] = state_dict.pop(f'{prefix}{name}')
    tokenizer = model.tokenizer
    if tokenizer is None or any(key.startswith(f'{prefix}tokenizer.') for key in state_dict):
        return
    if not is_loaded(tokenizer) and getattr(tokenizer, 'init_cfg', None):
        init_weights(tokenizer)
    add_missing_components(state_dict, prefix, dict(tokenizer=tokenizer))
