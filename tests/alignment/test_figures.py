# Copyright (c) addp_mm contributors. Apache-2.0.
"""Heat maps of token weights, and the contact sheet."""

import numpy as np
import pytest
import torch

from addp_mm.alignment.figures import CHOSEN, REJECTED, contact_sheet, heat_map, steps_heat_map
from addp_mm.generation.trajectories.trajectories import Trajectories


def test_a_token_is_as_red_as_its_weight_over_the_grey_image():
    image = np.full((4, 4, 3), (30, 60, 90), np.uint8)
    shown = heat_map(image, torch.tensor([0.0, 0.5, 1.0, 0.0]), (2, 2), side=8)
    assert shown.shape == (8, 8, 3)
    assert shown[0, 0].tolist() == [60, 60, 60]
    assert shown[0, 7].tolist() == np.rint(0.5 * 60 + 0.5 * REJECTED).tolist()
    assert shown[7, 0].tolist() == REJECTED.tolist()


def test_the_steps_show_masked_kept_and_new_tokens():
    kept_at = torch.tensor([[0, 1, 1, -1]])
    trajectory = Trajectories(kept_at, kept_at, kept_at.float(), torch.tensor([-1]))
    sheet = steps_heat_map(trajectory, torch.tensor([1.0, 0.0, 1.0, 0.0]), (2, 2), side=20)
    first, second = sheet[2:22, 2:22], sheet[2:22, 24:44]
    inside = [(5, 5), (5, 15), (15, 5), (15, 15)]
    assert [first[place].tolist() for place in inside] == [REJECTED.tolist(), [224] * 3, [224] * 3, [255] * 3]
    assert [second[place].tolist() for place in inside] == [REJECTED.tolist(), [255] * 3, REJECTED.tolist(), [255] * 3]
    # frames are around the tokens of the step
    assert [first[row, 0].tolist() for row in (0, 19)] == [[40] * 3, [224] * 3]
    assert [second[row, 0].tolist() for row in (0, 19)] == [REJECTED.tolist(), [40] * 3]


def test_the_contact_sheet_frames_both_sides_of_each_pair():
    better, worse = (np.full((2, 3, 4, 3), grey, np.uint8) for grey in (200, 100))
    sheet = contact_sheet([*better], [*worse], pairs_in_a_row=1, frame=1)
    assert sheet.shape == (2 * (5 + 2) + 2, 2 * (6 + 2) + 2, 3)
    for top in (2, 9):
        assert sheet[top, 2].tolist() == CHOSEN.tolist()
        assert sheet[top, 10].tolist() == REJECTED.tolist()
        assert sheet[top + 1, 3].tolist() == [200] * 3
        assert sheet[top + 1, 11].tolist() == [100] * 3
    with pytest.raises(ValueError, match='shorter|longer'):
        contact_sheet([*better], [*worse[:1]])
    with pytest.raises(ValueError, match='at least one image'):
        contact_sheet([], [])
