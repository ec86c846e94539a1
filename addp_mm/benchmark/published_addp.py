# Copyright (c) addp_mm contributors. Apache-2.0.
"""The published ADDP code, imported from a folder that the user names, to measure against it.

Nothing of it is part of this package. The folder is a clone of the published repository. Weights
are random, because they do not change the time.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import sys
import tempfile
import types
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from addp_mm.benchmark.paired_times import autocast
from addp_mm.benchmark.spans import Spans
from addp_mm.benchmark.step_parts import BACKBONE, BACKWARD, DECODE, ENCODE, HEAD, NECK, OPTIMIZER, PREDICTOR
from addp_mm.errors import ConfigError

NEEDED_FILES = (
    'engine_generate.py',
    'modeling/__init__.py',
    'modeling/encoders/models_addp.py',
    'image_synthesis/taming/models/vqgan.py',
    'configs/release/vqgan.yaml',
)
# top-level modules of that code; their names are common, so they are imported from the folder only
_MODULES = ('engine_generate', 'image_synthesis', 'modeling', 'util')
# the published recipe: learning rate, weight decay, betas, largest norm of the gradients
_LR, _WEIGHT_DECAY, _BETAS, _CLIP_GRAD = 1e-4, 0.05, (0.9, 0.95), 3.0
_MODEL_OPTIONS = dict(
    drop_out_rate=0.1,
    decoder_depth=8,
    label_smoothing=0.1,
    mask_ratio_min=0.5,
    mask_ratio_max=1.0,
    mask_ratio_mu=0.55,
    mask_ratio_std=0.25,
)
_PREDICTORS = dict(addp_vit_base_patch16='mage_vit_base_patch16', addp_vit_large_patch16='mage_vit_large_patch16')
MODELS = tuple(_PREDICTORS)


class PublishedADDP:
    """The published model: training steps and sampling runs.

    Args:
        folder: A clone of the published repository.
        name: Name of the model there. Defaults to 'addp_vit_base_patch16'.
        device: Its device. Defaults to 'cpu'.
        precision: 'float32', 'bfloat16' or 'float16', by autocast. Defaults to 'float32'.

    Raises:
        ConfigError: The folder is not such a clone, or a package that it imports is missing.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str = 'addp_vit_base_patch16',
        device: torch.device | str = 'cpu',
        precision: str = 'float32',
    ) -> None:
        self.folder, self.device, self.precision = Path(folder).resolve(), torch.device(device), precision
        missing = [path for path in NEEDED_FILES if not (self.folder / path).is_file()]
        if missing:
            raise ConfigError(
                f'--published {folder} has no {missing[0]}: give a folder with the published ADDP code, as '
                '`git clone https://github.com/ChangyaoTian/ADDP` makes it'
            )
        with self._environment(), _quiet():
            modeling, self._generate = self._import()
            self.model: Any = self._build(modeling, name)
        self.model.to(self.device)
        parameters = [one for one in self.model.parameters() if one.requires_grad]
        groups = [
            dict(params=[one for one in parameters if one.dim() > 1], weight_decay=_WEIGHT_DECAY),
            dict(params=[one for one in parameters if one.dim() <= 1], weight_decay=0.0),
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=_LR, betas=_BETAS)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == 'float16')

    def train_step(self, images: Tensor) -> float:
        """One step with one update, as the published training does it; returns the loss.

        Args:
            images: (B, 3, 256, 256) in [0, 1], on the device.
        """
        self.model.train()
        with self._environment():
            with autocast(self.device, self.precision):
                loss, _ = self.model(images)
            self._backward(loss)
            self._update()
        return float(loss)

    def sample(self, images: Tensor, num_steps: int) -> Tensor:
        """Generate as many images as are given; returns them.

        The published run encodes the given images first, which the seconds of a run include.

        Args:
            images: (B, 3, 256, 256) in [0, 1], on the device.
            num_steps: Number of steps.
        """
        options = Namespace(
            num_iteration=num_steps,
            choice_temperature=6.0,
            mask_ratio=1.0,
            mask_ratio_sample_strategy='cosine',
            temperature_strategy='dynamic',
            sampling_strategy='default',
            top_p=1.0,
            save_dir_suffix='',
        )
        made: list[Tensor] = []
        paths = [f'{index}.png' for index in range(len(images))]
        keep = mock.patch.object(self._generate, 'save_imgs', lambda predicted, *_, **__: made.append(predicted))
        with self._environment(), _quiet(), keep, autocast(self.device, self.precision):
            batches = [(images, None, paths)]
            self._generate.masked_generate_multi_step_addp(_Wrapped(self.model), batches, self.device, options)
        return made[0]

    def spans(self) -> Spans:
        """Measures the parts of a step or a run. The functions stay wrapped."""
        spans, model = Spans(), self.model
        parts: list[tuple[Any, str, str]] = [
            (model, 'vq_encode', ENCODE),
            (model.token_predictor, 'sample_tokens', PREDICTOR),
            (model.vqgan, 'decode', DECODE),
            (model, 'generate_mask_mlp_tokens', BACKBONE),
            (model, 'forward_online_encoder', BACKBONE),
            (model, 'forward_decoder', NECK),
            (model.mlm_layer, 'forward', HEAD),
            (model, 'forward_loss', HEAD),
            (self, '_backward', BACKWARD),
            (self, '_update', OPTIMIZER),
        ]
        for part in parts:
            spans.wrap(*part)
        return spans

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_GRAD)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def _build(self, modeling: Any, name: str) -> nn.Module:
        """The model with random weights; its checkpoint of the predictor is an empty one."""
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / 'predictor.pth'
            torch.save(dict(model={}), weights)
            options = Namespace(
                **_MODEL_OPTIONS, token_predictor_name=_PREDICTORS[name], token_predictor_ckpt=str(weights)
            )
            return getattr(modeling, name)(norm_pix_loss=True, args=options)

    def _import(self) -> tuple[Any, Any]:
        """Its models and its generation. Afterwards its modules are not found under their names."""
        with _own_modules(), _stand_ins():
            try:
                return importlib.import_module('modeling'), importlib.import_module('engine_generate')
            except ImportError as error:
                raise ConfigError(f'--published {self.folder}: {error}. Install what its code imports') from error

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        """What the published code needs: its folder as the current one, and a GPU or a stand-in."""
        before = os.getcwd()
        with contextlib.ExitStack() as stack:
            stack.callback(os.chdir, before)
            os.chdir(self.folder)
            stack.enter_context(_first_on_path(self.folder))
            if self.device.type == 'cuda':
                stack.enter_context(torch.cuda.device(self.device))
            else:  # it calls .cuda() everywhere, so that it runs on CUDA and on the CPU only
                stack.enter_context(mock.patch.object(Tensor, 'cuda', lambda tensor, *_, **__: tensor))
            yield


class _Wrapped:
    """A model as its generation wants it: in a DistributedDataParallel."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def eval(self) -> None:
        self.module.eval()


@contextlib.contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the published code prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Import the published modules anew; modules of the same names come back afterwards."""
    others = _pop_modules()
    try:
        yield
    finally:
        _pop_modules()
        sys.modules.update(others)


def _pop_modules() -> dict[str, types.ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition('.')[0] in _MODULES}


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Stand in for two absent packages, of which the published code needs one name each."""
    from mmengine.config import Config

    contents: dict[str, dict[str, object]] = dict(
        pytorch_lightning=dict(LightningModule=nn.Module),
        omegaconf=dict(OmegaConf=types.SimpleNamespace(load=Config.fromfile)),
    )
    absent = [name for name in contents if name not in sys.modules and importlib.util.find_spec(name) is None]
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(contents[name])
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
