# Copyright (c) addp_mm contributors. Apache-2.0.
"""A classifier of the garments in a scene, trained on FashionScenes.

It names what generated scenes show, see ``scene_quality.py``. It is a small network of timm that
starts from random weights, so that it shares nothing with the weights that it judges.

A classifier that has seen nothing but garments names one in every blob of colour. So a part of the
training scenes is warped until their garments have no shape, and is to be named nothing. Some
scenes are blurred, because generated ones are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm
from warped_scenes import blurred, warped

from addp_mm.checkpoints.atomic_write import write_safetensors
from addp_mm.checkpoints.comparison import load_exactly
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.datasets.fashion.fashion_mnist import CLASSES
from addp_mm.datasets.fashion.scene_writer import MARKER
from addp_mm.errors import UserError
from addp_mm.evaluation import open_images
from addp_mm.evaluation.image_sets import ImageSet
from addp_mm.randomness import Purpose, random_states_kept, seed_process

BATCH_SIZE = 250  # of the predictions


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained: with AdamW and one cycle of the learning rate.

    Half of the scenes are flipped.

    Args:
        model: Name of a model of timm. Defaults to 'test_resnet'.
        global_pool: How the model pools its last map. Defaults to 'avg'.
        epochs: Passes through the training scenes. Defaults to 4.
        batch_size: Scenes in a batch. Defaults to 32.
        learning_rate: The highest one. Defaults to 3e-3.
        weight_decay: Of AdamW. Defaults to 0.05.
        warped_share: Share of scenes that are warped and have no garment. Defaults to 0.3.
        blurred_share: Share of scenes that are blurred. Defaults to 0.5.
        seed: Seed of weights, order and changes of the scenes. Defaults to 0.
    """

    model: str = 'test_resnet'
    global_pool: str = 'avg'
    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warped_share: float = 0.3
    blurred_share: float = 0.5
    seed: int = 0

    def build(self) -> nn.Module:
        """The model with random weights of torch's global generator."""
        model = timm.create_model(self.model, num_classes=len(CLASSES), global_pool=self.global_pool)
        return model.to(memory_format=torch.channels_last)


def data_settings(data_root: Path) -> dict[str, Any]:
    """What FashionScenes says of itself: its sizes, its seed and its garments.

    Raises:
        UserError: The folder does not have FashionScenes.
    """
    try:
        return json.loads((data_root / MARKER).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f'--data-root {data_root} does not have FashionScenes ({error}). To write them: '
            'python tools/dataset_converters/fashion_scenes.py FOLDER'
        ) from error


def scene_images(data_root: Path, split: str) -> ImageSet:
    """The scenes of a split, 'train' or 'val'."""
    return open_images(data_root / 'scenes' / split)


def scene_targets(data_root: Path, split: str) -> Tensor:
    """The garments of the scenes of a split, from their COCO annotations.

    Returns:
        (N, 10), 1 where a scene has a garment of the class and 0 elsewhere, in the order of
        :func:`scene_images`.

    Raises:
        UserError: The annotations cannot be read, or do not describe these scenes.
    """
    file = data_root / 'annotations' / f'instances_{split}.json'
    try:
        content = json.loads(file.read_text())
        images = sorted(content['images'], key=lambda image: image['file_name'])
        rows = {image['id']: row for row, image in enumerate(images)}
        columns = {category['id']: CLASSES.index(category['name']) for category in content['categories']}
        targets = torch.zeros(len(rows), len(CLASSES))
        for instance in content['annotations']:
            targets[rows[instance['image_id']], columns[instance['category_id']]] = 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{file}: cannot be read as annotations of FashionScenes ({error!r}). Write them again'
        ) from error
    if [image['file_name'] for image in images] != [name for name, _ in scene_images(data_root, split).files()]:
        raise UserError(f'{file} does not describe the scenes in {data_root / "scenes" / split}. Write them again')
    return targets


def network_input(pixels: Tensor) -> Tensor:
    """Images, uint8 (B, 3, H, W), as floats from -1 to 1."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def changed(pixels: Tensor, targets: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Flip, warp and blur a random part of the scenes.

    Args:
        pixels: uint8 (B, 3, H, W).
        targets: Their garments, (B, 10).
        recipe: The shares.

    Returns:
        The scenes and their garments; those of warped scenes are 0.
    """
    shares = torch.tensor([0.5, recipe.warped_share, recipe.blurred_share])
    is_flipped, is_warped, is_blurred = (torch.rand(len(pixels), 3) < shares).T[..., None, None, None]
    images = torch.where(is_flipped, pixels.flip(-1), pixels)
    images = torch.where(is_warped, warped(images), images)
    images = torch.where(is_blurred, blurred(images), images)
    return images, targets * ~is_warped.view(-1, 1)


def train(pixels: Tensor, targets: Tensor, recipe: Recipe, device: torch.device | str = 'cpu') -> nn.Module:
    """Train a classifier, with a progress bar. Global random states are kept.

    Args:
        pixels: Scenes, uint8 (N, 3, H, W).
        targets: Their garments, (N, 10).
        recipe: The settings.
        device: Device of the model. Defaults to 'cpu'.
    """
    steps = recipe.epochs * -(-len(pixels) // recipe.batch_size)
    with random_states_kept(), tqdm(total=steps, unit='step', desc='classifier of garments') as bar:
        seed_process(recipe.seed, Purpose.TRAINING_STEP, accelerators=False)
        model = recipe.build().to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule = OneCycleLR(optimizer, recipe.learning_rate, steps)
        for _ in range(recipe.epochs):
            for index in torch.randperm(len(pixels)).split(recipe.batch_size):
                images, labels = changed(pixels[index], targets[index], recipe)
                logits = model(network_input(images.to(device)))
                loss = F.binary_cross_entropy_with_logits(logits, labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
            bar.set_postfix(loss=f'{loss.item():.3f}')
    return model.requires_grad_(False).eval()


def trained_classifier(
    data_root: Path, work_dir: Path, recipe: Recipe | None = None, device: torch.device | str = 'cpu'
) -> nn.Module:
    """The classifier of a set of FashionScenes; trained once and kept in ``work_dir``.

    Args:
        data_root: FashionScenes.
        work_dir: Folder of the weights. Their name has the fingerprint of data and recipe.
        recipe: How it is trained. Defaults to None: ``Recipe()``.
        device: Device of the model. Defaults to 'cpu'.

    Raises:
        UserError: The data cannot be read.
    """
    recipe = recipe or Recipe()
    file = work_dir / f'garment_classifier_{_fingerprint(data_root, recipe)[:12]}.safetensors'
    model = _kept(file, recipe)
    if model is None:
        images, targets = scene_images(data_root, 'train'), scene_targets(data_root, 'train')
        batches = tqdm(images.batches(0, len(images), BATCH_SIZE), 'training scenes', -(-len(images) // BATCH_SIZE))
        pixels = torch.from_numpy(np.concatenate(list(batches))).permute(0, 3, 1, 2)
        model = train(pixels, targets, recipe, device)
        write_safetensors(file, {name: value.cpu().contiguous() for name, value in model.state_dict().items()})
    return model.to(device)


def garment_probabilities(model: nn.Module, pixels: np.ndarray) -> Tensor:
    """Probability of each garment, (B, 10), of scenes, uint8 (B, H, W, 3)."""
    device = next(model.parameters()).device
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    with torch.no_grad():
        return model(network_input(images)).sigmoid().cpu()


def _kept(file: Path, recipe: Recipe) -> nn.Module | None:
    """The classifier in a file; None if there is none, or the file is damaged."""
    if not file.exists():
        return None
    with random_states_kept():
        model = recipe.build()
    try:
        load_exactly(load_checkpoint_file(file)['state_dict'], model, str(file))
    except CheckpointError as error:
        print(f'{file} is damaged, so the classifier is trained again: {error}')
        return None
    return model.requires_grad_(False).eval()


def _fingerprint(data_root: Path, recipe: Recipe) -> str:
    """SHA-256 of all that determines the weights."""
    annotations = file_fingerprint(data_root / 'annotations/instances_train.json')
    settings = dict(data=data_settings(data_root), annotations=annotations, recipe=asdict(recipe))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
