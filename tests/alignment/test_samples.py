# Copyright (c) addp_mm contributors. Apache-2.0.
"""Samples of addp align, read from the folders of the tools."""

import json

import pytest
import torch
from PIL import Image

from addp_mm.alignment.pairs import SelectionRule
from addp_mm.alignment.pipeline.samples import Samples, rewards_of, select_samples, write_contact_sheet
from addp_mm.alignment.rewards import build_reward
from addp_mm.generation.trajectories.trajectories import Trajectories
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles


def test_samples_of_inpainting_are_read_by_the_names_of_their_files(tmp_path):
    known = torch.tensor([[True, False]] * 3)
    trajectories = Trajectories(
        torch.tensor([[5, 1], [5, 2], [6, 2]]), torch.where(known, -1, 0), torch.zeros(3, 2), torch.full((3,), -1)
    )
    TrajectoryFiles(tmp_path / 'trajectories').write(0, trajectories, dict(steps=1))
    names = {f'{number:06d}': f'images/{number % 2:03d}/photo_{number // 2}.png' for number in range(3)}
    (tmp_path / 'trajectories/images.json').write_text(json.dumps(names))
    for number, name in enumerate(names.values()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (2, 2), (number, 0, 0)).save(tmp_path / name)
    samples = Samples.read(tmp_path)
    assert [samples.image(row)[0, 0, 0] for row in range(3)] == [0, 1, 2]
    rewards = rewards_of(build_reward(lambda images: 255 * images[:, 0].mean((1, 2))), samples, '')
    assert rewards == pytest.approx([0, 1, 2])
    selection = select_samples(samples, rewards, SelectionRule(), tmp_path / 'selection.json')
    assert selection.pairs == [(1, 0)]  # the third image is the only one of its question
    Image.new('RGB', (4, 4)).save(tmp_path / names['000001'])  # of another size
    write_contact_sheet(samples, selection, tmp_path / 'sheet.png')
    assert Image.open(tmp_path / 'sheet.png').width > 0
    assert [images.shape[2:] for images, _ in samples.batches('')] == [(2, 2), (4, 4), (2, 2)]
