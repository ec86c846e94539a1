# Copyright (c) addp_mm contributors. Apache-2.0.
"""The token decoder."""

import pytest
import torch

from addp_mm.models.layers.positions import visible_positions
from addp_mm.models.necks import TokenDecoder

SPACE = dict(codebook_size=16, num_class_slots=1, fake_class_slot=0)


@pytest.fixture
def decoder():
    return TokenDecoder(4, 6, embed_dims=8, num_layers=1, num_heads=2, token_space=SPACE).eval()


@pytest.fixture
def inputs():
    mask = torch.tensor([[True, False, True, False], [False, True, True, False]])
    return torch.randn(2, 5, 6), torch.randint(16, (2, 4)), mask


def test_shapes_of_the_whole_sequence_and_of_the_image(decoder, inputs):
    whole, image = decoder.decode(*inputs), decoder(*inputs)
    assert whole.shape == (2, 1 + 4 + 2, 8)
    assert torch.equal(image, whole[:, 1:5])


def test_masked_features_and_ids_and_the_class_output_are_hidden(decoder, inputs):
    features, ids, mask = inputs
    other = features.clone()
    other[:, 0] += 1
    other[:, 1:][mask] -= 1
    assert torch.equal(decoder(features, ids, mask), decoder(other, ids.masked_fill(mask, 0), mask))


def test_visible_features_and_ids_reach_masked_positions(decoder, inputs):
    features, ids, mask = inputs
    plain = decoder(features, ids, mask)
    other = features.clone()
    other[:, 1:][~mask] += torch.randn(4, 6)
    assert not torch.allclose(plain[mask], decoder(other, ids, mask)[mask])
    assert not torch.allclose(plain[mask], decoder(features, (ids + 1) % 16, mask)[mask])


def test_appended_tokens_are_in_the_order_of_their_positions(decoder):
    ids = torch.tensor([[3, 1, 2, 0]])
    mask = torch.tensor([[False, True, False, False]])
    expected = decoder.word_embed(torch.tensor([3, 2, 0])) + decoder.token_pos_embed[0, [0, 2, 3]]
    torch.testing.assert_close(decoder._visible_tokens(ids, visible_positions(mask, 3))[0], expected)


def test_rows_may_mask_different_numbers_of_positions(decoder, inputs):
    features, ids, _ = inputs
    features, ids = features.repeat(2, 1, 1), ids.repeat(2, 1)
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]]).bool()
    together = decoder(features, ids, mask)
    for row in range(4):
        one = slice(row, row + 1)
        torch.testing.assert_close(together[one], decoder(features[one], ids[one], mask[one]))


def test_shapes_that_do_not_fit_are_refused(decoder, inputs):
    features, ids, mask = inputs
    with pytest.raises(ValueError, match=r'\(B, 5, C\)'):
        decoder(features[:, 1:], ids, mask)
    with pytest.raises(ValueError, match=r'\(B, 4\)'):
        decoder(features, ids, mask[:, :3])


def test_it_compiles_once_for_all_numbers_of_visible_tokens(decoder):
    from addp_mm.benchmark.compilations import recorded_compilations

    features, ids = torch.randn(2, 5, 6), torch.tensor([[3, 1, 2, 0], [0, 2, 2, 1]])
    order = torch.tensor([[2, 0, 3, 1], [1, 3, 0, 2]])
    counts = []
    with recorded_compilations() as compilations:
        compiled = torch.compile(lambda *inputs: decoder(*inputs), backend='eager')
        for num_masked in (2, 1, 0, 4, 3, 2):  # 4, 3, 2, 1 and no visible tokens
            mask = order < num_masked
            torch.testing.assert_close(compiled(features, ids, mask), decoder(features, ids, mask))
            counts.append(compilations.counts)
    assert counts == [(1, 0)] * 6, compilations.reasons
