# Copyright (c) addp_mm contributors. Apache-2.0.
"""VOLO's classification head."""

import pytest
import torch
from helpers.volo_reference import assert_close, exchanged, reference
from mmpretrain.models.utils.batch_augments import CutMix
from mmpretrain.structures import DataSample

from addp_mm.models.heads.volo_head import VOLOHead
from addp_mm.models.layers.mix_token import MixedTokens
from addp_mm.models.losses import TokenLabelLoss
from addp_mm.registry import MODELS


@pytest.fixture
def head():
    """The published heads."""
    head = VOLOHead(11, 96)
    names = {'fc': 'head', 'aux_fc': 'aux_head'}
    weights = reference()['state_dict']
    head.load_state_dict({f'{new}.{end}': weights[f'{old}.{end}'] for new, old in names.items() for end in WB})
    return head


WB = ('weight', 'bias')


def samples(with_maps=True, labels=(8, 5)):
    ref = reference()
    made = [DataSample().set_gt_label(label) for label in labels]
    if with_maps:
        for sample, label_map in zip(made, ref['labels'], strict=True):
            sample.token_labels = label_map[:, 1:]
    return made


def test_logits_are_those_of_the_class_and_half_of_the_largest_token(head):
    assert_close(head((reference()['post'],)), reference()['eval_logits'])
    predicted = head.predict((reference()['post'],), samples())
    assert_close(torch.stack([sample.pred_score for sample in predicted]), reference()['eval_logits'].softmax(1))
    assert [int(sample.pred_label) for sample in predicted] == reference()['eval_logits'].argmax(1).tolist()


@pytest.mark.parametrize('with_ground_truth', [False, True])
def test_ground_truth_is_smoothed_and_put_before_the_label_map(head, with_ground_truth):
    ref = reference()
    head.loss_module = TokenLabelLoss(with_ground_truth)
    losses = head.loss((MixedTokens(ref['post'], exchanged()),), samples())
    expected = TokenLabelLoss(with_ground_truth)(ref['cls_logits'], ref['aux_logits'], ref['labels'], exchanged())
    assert set(losses) == {'loss_cls', 'loss_token'}
    for name, loss in losses.items():
        assert_close(loss, expected[name])


def test_without_label_maps_the_smoothed_label_is_the_target_of_all_tokens(head):
    ref = reference()
    losses = head.loss((ref['post'],), samples(with_maps=False))
    target = ref['labels'][:, :, 0]
    expected = TokenLabelLoss()(ref['cls_logits'], ref['aux_logits'], target)
    for name, loss in losses.items():
        assert_close(loss, expected[name])


def test_mixed_labels_of_cutmix_are_the_targets(head):
    ref = reference()
    score = torch.nn.functional.one_hot(torch.tensor([8, 5]), 11).float()
    _, mixed = CutMix(1.0)(torch.rand(2, 3, 8, 8), score)
    mixed = 0.7 * score + 0.3 * score.flip(0) if mixed.max() == 1 else mixed
    data = [sample.set_gt_score(one) for sample, one in zip(samples(with_maps=False), mixed, strict=True)]
    losses = head.loss((ref['post'],), data)
    expected = TokenLabelLoss()(ref['cls_logits'], ref['aux_logits'], 0.9 * mixed + 0.1 / 11)
    for name, loss in losses.items():
        assert_close(loss, expected[name])
    for sample, label_map in zip(data, ref['labels'], strict=True):
        sample.token_labels = label_map[:, 1:]
    with pytest.raises(ValueError, match='Mixup, CutMix.*mix_token=True'):
        head.loss((ref['post'],), data)
    one_hot = [sample.set_gt_score(one) for sample, one in zip(samples(), score, strict=True)]
    assert_close(head.loss((ref['post'],), one_hot)['loss_cls'], head.loss((ref['post'],), samples())['loss_cls'])


def test_accuracy_of_the_class_token():
    torch.manual_seed(0)
    head = VOLOHead(3, 8, cal_acc=True, topk=(1, 2))
    tokens = torch.randn(4, 5, 8)
    order = head.fc(tokens[:, 0]).argsort(dim=1, descending=True)
    labels = [int(order[0, 0]), int(order[1, 1]), int(order[2, 2]), int(order[3, 2])]
    losses = head.loss((tokens,), [DataSample().set_gt_label(label) for label in labels])
    assert [losses[f'accuracy_top-{k}'][0].item() for k in (1, 2)] == [25, 50]


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda maps: maps[:10], r'token_labels of a\.jpg are \(10, 17\).*needs \(11, 17\).*num_classes=11'),
        (lambda maps: maps[:, :10], r'token_labels of a\.jpg are \(11, 10\).*grid'),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(head, change, message):
    data = samples()
    data[1].set_metainfo(dict(img_path='a.jpg'))
    data[1].token_labels = change(data[1].token_labels)
    with pytest.raises(ValueError, match=message):
        head.loss((reference()['post'],), data)


def test_a_batch_with_some_label_maps_is_refused(head):
    data = samples()
    del data[1].token_labels
    with pytest.raises(ValueError, match='only 1 of 2 images of the batch have token_labels'):
        head.loss((reference()['post'],), data)


@pytest.mark.parametrize(
    'feats,message',
    [
        (torch.rand(2, 96), r"gets \(2, 96\): set out_type='raw'"),
        (torch.rand(2, 96, 4, 4), r"set out_type='raw'"),
        (torch.rand(2, 1, 96), r"set out_type='raw'"),
        (torch.rand(2, 17, 48), 'in_channels of VOLOHead is 96, and the tokens have 48'),
    ],
)
def test_features_without_tokens_are_refused(head, feats, message):
    with pytest.raises(ValueError, match=message):
        head((feats,))


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match='num_classes'):
        VOLOHead(0, 8)
    with pytest.raises(ValueError, match='label_smooth_val'):
        VOLOHead(2, 8, label_smooth_val=1)


def test_built_from_a_config():
    head = MODELS.build(
        dict(
            type='addp_mm.VOLOHead',
            num_classes=3,
            in_channels=8,
            loss=dict(type='addp_mm.TokenLabelLoss', with_ground_truth=True),
        )
    )
    assert head.loss_module.with_ground_truth
    head.init_weights()
    assert 0.005 < head.aux_fc.weight.std() < 0.04
