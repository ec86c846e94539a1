# Copyright (c) addp_mm contributors. Apache-2.0.
"""Accuracy and cross entropy of a predictor on masked tokens."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.diffusion import seeded_masks
from addp_mm.diffusion.token_space import TokenSpace
from addp_mm.evaluation import MaskedTokenAccuracy
from addp_mm.models.predictors import MaskedTokenPredictor
from addp_mm.models.selfsup import PredictorPretrain

SPACE = dict(codebook_size=10, num_class_slots=3, fake_class_slot=1)
RATIOS = (0.5, 0.75, 0.95)
ASSET = 'addp_mm://token-predictor_nano-p8.safetensors'


class Known(nn.Module):
    """A predictor whose logits (L, vocabulary) are given, and are the same for all images."""

    def __init__(self, logits):
        super().__init__()
        self.token_space, self.num_tokens = TokenSpace.of(SPACE), len(logits)
        self.table, self.masks = logits, []

    def logits(self, ids, mask, kept=None, labels=None, codes_only=False):
        assert (kept, labels, codes_only) == (None, None, True)
        self.masks.append(mask)
        return self.table[:, : self.token_space.codebook_size].expand(len(ids), -1, -1)


def some_ids(count=6, length=12):
    return torch.randint(10, (count, length), generator=torch.Generator().manual_seed(2))


def untrained(**options):
    torch.manual_seed(0)
    predictor = MaskedTokenPredictor(12, 16, 2, 2, decoder_num_layers=1, token_space=SPACE, drop_rate=0.4)
    return PredictorPretrain(None, predictor, drop_ratio=0.5, **options).eval()


def measured(model, *batches):
    metric, count = MaskedTokenAccuracy(), 0
    for ids in batches:
        with torch.no_grad():
            predictions = model(ids, mode='predict')
        metric.process({}, [prediction.to_dict() for prediction in predictions])
        count += len(ids)
    return metric.evaluate(count)


def test_masks_have_the_wanted_number_of_positions_and_are_nested():
    masks = seeded_masks(some_ids(500, 15), RATIOS, 0)
    assert masks.shape == (3, 500, 15)
    assert masks.dtype == torch.bool
    assert [mask.sum(1).unique().tolist() for mask in masks] == [[8], [12], [15]]
    assert not (masks[0] & ~masks[1]).any()
    assert not (masks[1] & ~masks[2]).any()
    # Positions are masked equally often: five standard deviations of a share of 8 in 15.
    assert (masks[0].float().mean(0) - 8 / 15).abs().max() < 5 * (8 / 15 * 7 / 15 / 500) ** 0.5


def test_masks_of_a_row_depend_on_its_ids_and_the_seed_alone():
    ids = some_ids()
    whole = seeded_masks(ids, RATIOS, 0)
    torch.manual_seed(5)
    torch.testing.assert_close(seeded_masks(ids[[4, 1]], RATIOS, 0), whole[:, [4, 1]])
    assert len({str(mask.tolist()) for mask in whole[0]}) == 6
    assert (seeded_masks(ids, RATIOS, 1) != whole).any(-1).all(1)[0]


def test_numbers_are_those_of_the_definition():
    """Known logits; each number is counted token by token."""
    table = torch.randn(12, 14, generator=torch.Generator().manual_seed(1)).mul(2)
    table[:, 10:] = 50  # the mask id and the class slots are not codes
    predictor, ids = Known(table), some_ids(40)
    found = measured(PredictorPretrain(None, predictor, test_mask_seed=3), ids[:30], ids[30:])
    codes = table.double().numpy()[:, :10]
    log_probs = codes - np.log(np.exp(codes).sum(1, keepdims=True))
    first, last = predictor.masks[:3], predictor.masks[3:]
    for ratio, *parts in zip(RATIOS, first, last, strict=True):
        hits, nats = [], []
        for row, mask in zip(ids.tolist(), torch.cat(parts).tolist(), strict=True):
            assert sum(mask) == math.ceil(ratio * 12)
            for position in range(12):
                if mask[position]:
                    hits.append(codes[position].argmax() == row[position])
                    nats.append(-log_probs[position, row[position]])
        assert found[f'predictor/accuracy@{ratio:.2f}'] == pytest.approx(np.mean(hits))
        assert 0 < np.mean(hits) < 1
        assert found[f'predictor/cross_entropy@{ratio:.2f}'] == pytest.approx(np.mean(nats), rel=1e-6)
    assert len(found) == 6


def test_uniform_predictions_are_at_chance_and_perfect_ones_are_correct():
    ids = some_ids(300)
    ignorant = measured(PredictorPretrain(None, Known(torch.zeros(12, 14)), test_mask_ratios=[1.0]), ids)
    assert ignorant['predictor/cross_entropy@1.00'] == pytest.approx(math.log(10))
    # always the first code, by argmax
    assert ignorant['predictor/accuracy@1.00'] == pytest.approx((ids == 0).double().mean().item())
    one = some_ids(1).expand(4, -1)
    table = torch.full((12, 14), -30.0).scatter(1, one[0, :, None], 30.0)
    expert = measured(PredictorPretrain(None, Known(table)), one)
    assert all(value == pytest.approx(1.0 if 'accuracy' in key else 0.0, abs=1e-12) for key, value in expert.items())


def test_prediction_is_of_the_whole_sequence_without_dropout_and_follows_from_the_seed():
    model, lengths = untrained(), []
    model.predictor.blocks[0].register_forward_hook(lambda block, args, out: lengths.append(out.shape[1]))
    first = measured(model, some_ids())
    assert lengths == [13] * 3
    # one image after the other, in another order, with another state of the generator
    torch.manual_seed(9)
    again = measured(model, *some_ids().flip(0).split(1))
    assert again == pytest.approx(first, rel=1e-6)
    assert measured(untrained(test_mask_seed=1), some_ids()) != pytest.approx(first, rel=1e-6)


def test_masked_tokens_are_hidden_from_the_predictor():
    """If all tokens are masked, all images get one prediction; else it depends on visible ones."""
    model = untrained(test_mask_ratios=(0.5, 1.0))
    with torch.no_grad():
        predictions = model(some_ids(), mode='predict')
        alike = torch.stack([prediction.predicted[1] for prediction in predictions])
        assert len(alike.unique(dim=0)) == 1
        for prediction, row in zip(predictions, some_ids(), strict=True):
            mask = prediction.masks[0]
            hidden = row.where(~mask, (row + 1) % 10)
            probabilities = model.predictor(hidden[None], mask[None])[0]
            assert torch.equal(probabilities.argmax(-1), prediction.predicted[0])
            likelihood = probabilities.gather(1, row[:, None])[:, 0].log()
            torch.testing.assert_close(prediction.log_likelihood[0], likelihood)


def test_predictions_that_do_not_fit_the_metric_are_refused():
    with pytest.raises(ValueError, match="has no 'mask_ratios'; it has ids"):
        MaskedTokenAccuracy().process({}, [dict(ids=some_ids()[0])])
    metric = MaskedTokenAccuracy()
    for ratios in ((0.5,), (0.7,)):
        model = untrained(test_mask_ratios=ratios)
        metric.process({}, [prediction.to_dict() for prediction in model(some_ids(), mode='predict')])
    with pytest.raises(ValueError, match=r'need the same mask ratios, got \(0.5,\) and \(0.7,\)'):
        metric.evaluate(12)
    for wrong in ((), (0.0, 0.5), (1.1,)):
        with pytest.raises(ValueError, match='test_mask_ratios must be'):
            untrained(test_mask_ratios=wrong)


def test_keys_name_the_ratio_in_full():
    found = measured(untrained(test_mask_ratios=(0.5, 0.123, 1)), some_ids())
    assert {key.rpartition('@')[2] for key in found} == {'0.50', '0.123', '1.00'}


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    """The recipe on a few images, within its scope."""
    from helpers.recipes import load_recipe, recipe_scope

    root = tmp_path_factory.mktemp('scenes')
    for split, count in dict(train=8, val=5).items():
        (root / 'scenes' / split).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(pixels).save(root / f'scenes/{split}/{index}.png')
    cfg = load_recipe('pretrain/token-predictor_nano-p8_2xb16-fp32-8k_fashion-scenes-64px.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.data_root = str(root)
    cfg.train_cfg.update(max_iters=4, val_interval=2)
    cfg.model.predictor.update(embed_dims=32, num_layers=1, decoder_embed_dims=32, decoder_num_layers=1)
    cfg.default_hooks.checkpoint.interval, cfg.log_level = 4, 'WARNING'
    with recipe_scope(cfg):
        yield cfg


def run(cfg, work_dir, **changes):
    from mmengine.runner import Runner

    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(changes)
    cfg.work_dir = str(work_dir)
    cfg.custom_hooks = [dict(type='addp_mm.PreflightHook', testing='load_from' in changes)]
    cfg.experiment_name = f'masked_tokens_{work_dir.name}'
    return Runner.from_cfg(cfg)


@pytest.mark.slow
def test_validation_does_not_change_the_training(recipe, tmp_path):
    """The weights of four steps are the same with and without a validation after two."""
    assert recipe.model.predictor.drop_rate == 0
    runner = run(recipe, tmp_path / 'validated')
    runner.train()
    validated = runner.model.state_dict()
    logged = runner.message_hub.log_scalars
    assert 0 <= logged['val/predictor/accuracy@0.75'].current() < 1
    plain = copy.deepcopy(recipe)
    plain.val_dataloader = plain.val_cfg = plain.val_evaluator = None
    runner = run(plain, tmp_path / 'plain')
    runner.train()
    for key, value in runner.model.state_dict().items():
        torch.testing.assert_close(value, validated[key], rtol=0, atol=0, msg=key)


@pytest.mark.slow
def test_the_shipped_weights_are_tested_without_training(recipe, tmp_path):
    """The file has the predictor only; the tokenizer comes from the checkpoint in the config."""
    full = copy.deepcopy(recipe)
    full.model.predictor = dict(
        full.model.predictor, embed_dims=128, num_layers=4, decoder_embed_dims=128, decoder_num_layers=2
    )
    runner = run(full, tmp_path / 'shipped', load_from=ASSET)
    found = runner.test()
    weights = load_checkpoint_file(ASSET)['state_dict']
    own = runner.model.predictor.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[key].float(), own[key]) for key in own)
    assert all(0 <= found[f'predictor/accuracy@{ratio:.2f}'] <= 1 for ratio in RATIOS)
    # the same for its own checkpoint, and for a training on ids, which has no tokenizer
    whole = runner.model.state_dict()
    without = {key: value for key, value in whole.items() if not key.startswith('tokenizer.')}
    for name, state_dict in dict(whole=whole, without=without).items():
        torch.save(dict(state_dict=state_dict), tmp_path / f'{name}.pth')
        assert run(full, tmp_path / name, load_from=str(tmp_path / f'{name}.pth')).test() == found
