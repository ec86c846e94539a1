# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from mmengine import dist
from mmengine.model import BaseModel
from torch import Tensor, nn

from addp_mm.models.selfsup.frozen import freeze, is_loaded
from addp_mm.models.selfsup.station import build_station
from addp_mm.registry import MODELS


@MODELS.register_module()
class PredictorPretrain(BaseModel):
    """Masked token modelling for a predictor (:class:`~addp_mm.models.predictors.MaskedTokenPredictor`) on frozen ids.

    Each image's mask ratio is drawn from a truncated normal density on [0.5, 1] (MAGE, arXiv 2211.09117). Masks follow
    from ``mask_seed``, the rank and the number of training steps done: processes that start from the same seed draw
    different ones, and a resumed training goes on with those that an uninterrupted one would have drawn.

    Args:
        tokenizer: Config of the tokenizer, or the module; frozen. Its ``init_cfg`` names trained weights.
        predictor: Config of the predictor, or the module.
        mask_ratio_mean: Mean of the density before truncation.
        mask_ratio_std: Its standard deviation.
        mask_ratio_min: Lower bound of the ratio.
        label_smoothing: Share of the target that is spread over the whole vocabulary.
        mask_seed: Seed of the masks.
        data_preprocessor: Must bring images to [0, 1].
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
    """

    def __init__(self, tokenizer: dict | nn.Module, predictor: dict | nn.Module, mask_ratio_mean: float = 0.55,
                 mask_ratio_std: float = 0.25, mask_ratio_min: float = 0.5, label_smoothing: float = 0.1,
                 mask_seed: int = 0, data_preprocessor: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.tokenizer = freeze(build_station(tokenizer), 'tokenizer')
        self.predictor = build_station(predictor)
        self.mask_ratio_mean, self.mask_ratio_std = mask_ratio_mean, mask_ratio_std
        self.mask_ratio_min = mask_ratio_min
        self.label_smoothing = label_smoothing
        self.mask_seed = mask_seed
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))
        # DistributedDataParallel leaves alone what is listed here: every rank loads its own
        self._ddp_params_and_buffers_to_ignore = [f'tokenizer.{key}' for key in self.tokenizer.state_dict()]

    def train(self, mode: bool = True) -> PredictorPretrain:
        super().train(mode)
        self.tokenizer.eval()
        return self

    def forward(self, inputs: Tensor | list[Tensor], data_samples: list | None = None,
                mode: str = 'tensor') -> Tensor | dict:
        """Losses ('loss'), or logits (B, L, vocabulary) of a fully masked sequence ('tensor').

        Args:
            inputs: Images (B, 3, H, W) in [0, 1], or a list whose first entry they are.
            data_samples: Not used.
            mode: 'tensor' or 'loss'.

        Raises:
            RuntimeError: In mode 'loss', if no weights were loaded into the tokenizer.
        """
        if mode == 'loss' and not is_loaded(self.tokenizer):
            raise RuntimeError('no weights were loaded into the frozen tokenizer: the predictor would learn random ids.'
                               " Give it an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…)")
        images = inputs[0] if isinstance(inputs, list) else inputs
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            ids, _ = self.tokenizer.encode(images.float())
        if mode == 'loss':
            return self.loss(ids)
        return self.predictor.logits(ids, torch.ones_like(ids, dtype=torch.bool))

    def loss(self, ids: Tensor) -> dict[str, Tensor]:
        """Cross entropy and accuracy on the masked places of ids (B, L)."""
        mask = self.draw_mask(ids, self.mask_generator())
        self.iteration += self.training
        logits, targets = self.predictor.logits(ids, mask)[mask], ids[mask]
        return dict(
            loss=F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing),
            accuracy=(logits.detach().argmax(-1) == targets).float().mean())

    def mask_generator(self) -> torch.Generator:
        """Source of this step's masks on this rank."""
        sequence = np.random.SeedSequence([self.mask_seed, dist.get_rank(), int(self.iteration)])
        return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def draw_mask(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """A mask (B, L) whose ratio is drawn for each row; at least one place of a row is masked."""
        num_images, length = ids.shape
        ratios = torch.empty(num_images, 1)
        nn.init.trunc_normal_(ratios, self.mask_ratio_mean, self.mask_ratio_std, self.mask_ratio_min, 1., generator)
        ranks = torch.rand(ids.shape, generator=generator).argsort(1).argsort(1)
        return (ranks < (ratios * length).ceil()).to(ids.device)
