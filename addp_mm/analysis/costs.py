# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operations of a forward pass by module, and memory of a training step."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from addp_mm.analysis.batches import (
    build_model,
    fix_proposals,
    forward_inputs,
    precision_of,
    scope_of,
    synthetic_batch,
    training_size,
)
from addp_mm.analysis.dry_run import DryRun, storage_bytes

# fp32 numbers that an optimizer keeps for each parameter it trains
OPTIMIZER_STATES = dict(AdamW=2, Adam=2, LARS=1, SGD=1, Lion=1)


@dataclass
class ModuleCost:
    """What a module costs in one forward pass, the modules within it included.

    Attributes:
        name: In the model, '' for the model itself.
        kind: Name of its class.
        flops: Additions and multiplications of matrix products and convolutions: two for each pair
            multiplied and added (MAC). Norms, activations, sampling and the like are not counted.
        activations: Numbers that those products put out.
        trained: Parameters that training changes.
        frozen: Parameters that it does not.
        children: The modules directly within.
    """

    name: str
    kind: str
    flops: int = 0
    activations: int = 0
    trained: int = 0
    frozen: int = 0
    children: list[ModuleCost] = field(default_factory=list)

    @property
    def macs(self) -> int:
        """Pairs of numbers multiplied and added: half of :attr:`flops`."""
        return self.flops // 2


@dataclass
class StepMemory:
    """Memory of a training step in bytes; storages are counted once.

    Attributes:
        parameters: Weights and buffers, frozen ones included.
        gradients: Of trained parameters.
        optimizer: States, in float32.
        batch: Images after the preprocessor, and targets.
        activations: What is kept between the forward and the backward pass, and weights cast by
            autocast.
        step_peak: The most that lives at once in the forward and backward pass: parameters, batch,
            activations, the gradients made so far and what an operator hands to the next one.
        peak: ``step_peak`` and the optimizer's states; or, if that is more, parameters, gradients
            and states while the optimizer computes, which takes another copy of the trained
            parameters.
    """

    parameters: int
    gradients: int
    optimizer: int
    batch: int
    activations: int
    step_peak: int

    @property
    def peak(self) -> int:
        updating = self.parameters + 2 * self.gradients + self.optimizer + self.batch
        return max(self.step_peak + self.optimizer, updating)


class _Tally(TorchDispatchMode):
    """Counts products for the innermost module at work."""

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.at_work = ['']
        self.flops: dict[str, int] = defaultdict(int)
        self.activations: dict[str, int] = defaultdict(int)
        self._handles = []
        for module, name in names.items():
            self._handles += [
                module.register_forward_pre_hook(lambda *_, name=name: self.at_work.append(name)),
                module.register_forward_hook(lambda *_: void(self.at_work.pop()), always_call=True),
            ]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops[self.at_work[-1]] += formula(*args, **kwargs, out_val=out)
            first = next(leaf for leaf in tree_flatten(out)[0] if isinstance(leaf, Tensor))
            self.activations[self.at_work[-1]] += first.numel()
        return out

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()
        return super().__exit__(*error)


def void(_) -> None:
    """A hook that returns something would change the module's output."""


def count_products(model: nn.Module, run: Callable[[], object]) -> ModuleCost:
    """Call ``run`` and see what the modules of ``model`` multiply in it.

    Inside a :class:`DryRun` nothing is computed. Products in a method that is not ``forward`` are
    counted for the module whose ``forward`` called it.

    Returns:
        Costs of the model, with those of its modules as a tree.
    """
    names = {module: name for name, module in model.named_modules()}
    with torch.no_grad(), _Tally(names) as tally:
        run()
    return _tree('', model, tally)


def _tree(name: str, module: nn.Module, tally: _Tally) -> ModuleCost:
    cost = ModuleCost(name, type(module).__name__, tally.flops[name], tally.activations[name])
    for parameter in module.parameters(recurse=False):
        cost.trained += parameter.numel() * parameter.requires_grad
        cost.frozen += parameter.numel() * (not parameter.requires_grad)
    for child_name, child in module.named_children():
        part = _tree(f'{name}.{child_name}'.lstrip('.'), child, tally)
        cost.children.append(part)
        for key in ('flops', 'activations', 'trained', 'frozen'):
            setattr(cost, key, getattr(cost, key) + getattr(part, key))
    return cost


def forward_costs(cfg, batch: int = 1, size: tuple[int, int] | None = None) -> ModuleCost:
    """Operations, parameters and activations of the model of a config, from shapes alone.

    A pre-training is run as in training, its frozen parts included; anything else from images to
    logits, two-stage detectors with all proposals that their test settings allow.

    Args:
        cfg: Config of one of the four kinds (``configs/pretrain``, ``cls``, ``det``, ``seg``).
        batch: Number of images.
        size: Height and width in pixels. Default: as in training.
    """
    size = size or training_size(cfg)
    with DryRun():
        model = fix_proposals(build_model(cfg)).eval()
        pretraining = not hasattr(model, 'predict') or hasattr(model, 'frozen_parts')
        data = forward_inputs(cfg, model, synthetic_batch(cfg, batch, size), training=False)
        with scope_of(cfg):
            if cfg.get('default_scope') == 'mmseg':
                # Mask2Former's head looks at the samples, which the segmentor's own mode='tensor'
                # does not hand on
                return count_products(model, lambda: _segment(model, **data))
            return count_products(model, lambda: model(**data, mode='loss' if pretraining else 'tensor'))


def _segment(model: nn.Module, inputs: Tensor, data_samples: list):
    features, head = model.extract_feat(inputs), model.decode_head
    needs_samples = 'batch_data_samples' in inspect.signature(head.forward).parameters
    return head(features, data_samples) if needs_samples else head(features)


def training_memory(
    cfg,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    precision: str | None = None,
    with_cp: bool | None = None,
    skip: bool = True,
) -> StepMemory:
    """Memory of one training step of a config on one device, worked out by running its shapes on the CPU.

    Not part of it: what the CUDA context, libraries' workspaces and a fragmented allocator take,
    and the buckets of distributed data parallel training (as much as the gradients).

    Args:
        cfg: Config of one of the four kinds, with an ``optim_wrapper``.
        batch: Images. Default: those of the config on one GPU.
        size: Height and width in pixels. Default: as in training.
        precision: 'float32', or 'bfloat16' for autocast. Default: the config's.
        with_cp: Gradient checkpointing of the backbone. Default: the config's.
        skip: Whether to leave out the arithmetic, see :class:`DryRun`.
    """
    size = size or training_size(cfg)
    batch = batch or cfg.train_dataloader.batch_size
    precision = precision or precision_of(cfg)
    with DryRun(skip) as run, _one_image_is_enough():
        model = fix_proposals(build_model(cfg)).train()
        if with_cp is not None:
            model.backbone.with_cp = with_cp
        parameters = storage_bytes([*model.parameters(), *model.buffers()])
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        before = run.live
        data = forward_inputs(cfg, model, synthetic_batch(cfg, batch, size), training=True)
        ready = run.live
        run.reset_peak()
        with scope_of(cfg):
            autocast = (
                torch.autocast('cpu', getattr(torch, precision))
                if precision != 'float32'
                else (contextlib.nullcontext())
            )
            with autocast:
                losses = model(**data, mode='loss')
                loss, _ = model.parse_losses(losses)
                activations = run.live - ready
            del losses
            loss.backward()
    optimizer = cfg.optim_wrapper.optimizer
    states = OPTIMIZER_STATES[optimizer.type]
    return StepMemory(
        parameters=parameters,
        gradients=sum(p.numel() * p.element_size() for p in trained),
        optimizer=4 * states * sum(p.numel() for p in trained),
        batch=ready - before,
        activations=activations,
        step_peak=run.peak - before + parameters,
    )


@contextlib.contextmanager
def _one_image_is_enough():
    """Batch norm of one number a channel, which the recipes synchronise over several GPUs, is refused by PyTorch."""
    verify = nn.functional._verify_batch_size
    nn.functional._verify_batch_size = void
    try:
        yield
    finally:
        nn.functional._verify_batch_size = verify


def gib(count: float) -> float:
    """Bytes in GiB."""
    return count / math.pow(2, 30)
