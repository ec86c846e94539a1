# Copyright (c) addp_mm contributors. Apache-2.0.
"""The parts of a training step and of a sampling run, as the tables name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from addp_mm.analysis.training_step import TrainingStep
from addp_mm.benchmark.spans import Spans
from addp_mm.generation import AlternatingSampler, alternating_steps
from addp_mm.models.selfsup import ADDP, PredictorPretrain, TokenizerPretrain, VQGANPretrain, addp, predictor_pretrain

# an object with the name of its function, and the part
Part = tuple[Any, str, str]

PREPROCESS = 'preprocess'
ENCODE = 'tokenizer encode'
DECODE = 'tokenizer decode'
PREDICTOR = 'predictor'
EXPECTED = 'expected latents'
BACKBONE = 'backbone'
NECK = 'neck'
HEAD = 'head and loss'
BACKWARD = 'backward'
OPTIMIZER = 'optimizer'
DRAW = 'draw ids and masks'


def spans_of_step(step: TrainingStep, spans: Spans | None = None) -> Spans:
    """Measures the parts of a training step: those of its model, backward pass and optimizer.

    Args:
        step: The step. Its functions stay wrapped.
        spans: What measures them, and returned. Defaults to None: a new object.
    """
    spans = spans or Spans()
    for part in _model_parts(step.model):
        spans.wrap(*part)
    optimizer = step.optimizer
    if isinstance(optimizer, OptimWrapperDict):  # one backward pass of several wrappers
        spans.wrap(Tensor, 'backward', BACKWARD)
        wrappers: Sequence[OptimWrapper] = list(optimizer.values())
    else:
        spans.wrap(optimizer, 'backward', BACKWARD)
        wrappers = [optimizer]
    for wrapper in wrappers:
        spans.wrap(wrapper, 'step', OPTIMIZER)
        spans.wrap(wrapper, 'zero_grad', OPTIMIZER)
    return spans


def spans_of_sampler(sampler: AlternatingSampler) -> Spans:
    """Measures the parts of a sampling run.

    Args:
        sampler: The sampler of an ADDP. Functions of it, its model and its module stay wrapped.
    """
    model: Any = sampler.model
    spans = Spans()
    parts = [(model.predictor, 'forward', PREDICTOR), (model.tokenizer, 'decode', DECODE), *_trained_parts(model)]
    parts += [(alternating_steps, name, DRAW) for name in ('sample_ids', 'remask', 'remask_in_order')]
    for part in (*parts, (alternating_steps, 'expected_latents', EXPECTED), (model.head, 'forward', HEAD)):
        spans.wrap(*part)
    return spans


def _model_parts(model: BaseModel) -> list[Part]:
    parts: list[Part] = [(model.data_preprocessor, 'forward', PREPROCESS)]
    if isinstance(model, ADDP):
        parts += [(model, 'tokenize', ENCODE), (model.predictor, 'forward', PREDICTOR)]
        parts += [(addp, 'mean_codes', EXPECTED), (model, 'decode', DECODE)]
        return [*parts, *_trained_parts(model), (model.head, 'loss', HEAD)]
    if isinstance(model, PredictorPretrain):
        parts += [(model.tokenizer, 'encode', ENCODE)] if model.tokenizer is not None else []
        return [*parts, (model.predictor, 'logits', PREDICTOR), (predictor_pretrain, 'masked_token_losses', HEAD)]
    if isinstance(model, TokenizerPretrain):
        parts += [(model.tokenizer, 'encode_continuous', ENCODE), (model.tokenizer, 'quantize', 'quantise')]
        parts += [(model.tokenizer, 'decode', DECODE)]
        parts += [(model.perceptual, 'forward', 'perceptual loss')] if model.perceptual is not None else []
        return parts + ([(model.discriminator, 'forward', 'discriminator')] if isinstance(model, VQGANPretrain) else [])
    return [*parts, *_trained_parts(model)]


def _trained_parts(model: Any) -> list[Part]:
    found = [(getattr(model, name, None), part) for name, part in (('backbone', BACKBONE), ('neck', NECK))]
    return [(module, 'forward', part) for module, part in found if module is not None]
