# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trajectories of a tiny ADDP, selected, with scores."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from addp_mm.alignment.pairs import SelectionRule, select, write_selection
from addp_mm.alignment.score_files import write_scores
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.generation.trajectories.sampler_settings import sampler_of
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles
from helpers.tiny_addp import MODEL, build_model

NUM_IMAGES = 8
LORA = dict(rank=2)


@dataclass(frozen=True)
class Files:
    """Paths of the files."""

    checkpoint: str
    trajectories: str
    selection: str
    scores: str


def write_files(folder: Path, **changed) -> Files:
    """Write a checkpoint, trajectories of its model, a selection and scores."""
    model = build_model().eval()
    torch.save(model.state_dict(), folder / 'addp.pth')
    settings = dict(
        weights=module_fingerprint(model),
        steps=3,
        schedule='cosine',
        order='confidence',
        temperature=6.0,
        constant_temperature=False,
        top_p=1.0,
        top_k=None,
        seed=0,
        guidance=0.0,
        guidance_shape=None,
        amp=False,
    )
    settings.update(changed)
    sampler = sampler_of(settings, model, model.latent_size)
    found = sampler.run(NUM_IMAGES, torch.Generator().manual_seed(0)).trajectories
    TrajectoryFiles(folder / 'trajectories').write(0, found, settings)
    # the reward of an image is the share of its even ids
    rewards = (found.ids % 2 == 0).float().mean(1).tolist()
    numbers = [*range(NUM_IMAGES)]
    selection = select(rewards, [0, 0, 0, 0, 1, 1, 1, 1], found.ids, SelectionRule())
    write_selection(folder / 'selection.json', selection, numbers, settings)
    write_scores(folder / 'scores.safetensors', torch.rand(found.ids.shape), numbers, settings)
    names = ('addp.pth', 'trajectories', 'selection.json', 'scores.safetensors')
    return Files(*(str(folder / name) for name in names))


def generator_config(files: Files, lora: dict | None = LORA) -> dict:
    """The generator of the files, with LoRA adapters in backbone and token decoder."""
    model = copy.deepcopy(MODEL)
    if lora is not None:
        model['backbone']['lora'] = model['neck']['lora'] = dict(lora)
    return dict(model, init_cfg=dict(type='addp_mm.Pretrained', checkpoint=files.checkpoint))
