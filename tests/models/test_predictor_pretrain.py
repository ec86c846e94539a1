# Copyright (c) addp_mm contributors. Apache-2.0.
"""Training of the predictor on images and on ids, with all or half of the tokens in the encoder."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import MMDistributedDataParallel

from addp_mm.diffusion import random_masks, truncated_normal_ratios
from addp_mm.models.predictors import MaskedTokenPredictor
from addp_mm.models.selfsup import PredictorPretrain, mark_loaded
from addp_mm.models.tokenizers import VQTokenizer

SPACE = dict(codebook_size=64, num_class_slots=3, fake_class_slot=1)


def tiny_tokenizer():
    torch.manual_seed(0)
    return VQTokenizer(
        stem_stride=4,
        base_channels=32,
        channel_mults=(1,),
        num_res_blocks=1,
        num_mid_blocks=1,
        codebook_size=64,
        embed_dims=4,
        normalize_codes=True,
    )


def tiny_predictor(drop_rate=0.0):
    return MaskedTokenPredictor(
        16, 16, 2, 2, decoder_embed_dims=24, decoder_num_layers=1, drop_rate=drop_rate, token_space=SPACE
    )


def tiny_training(tokenizer='tiny', **options):
    tokenizer = mark_loaded(tiny_tokenizer()) if tokenizer == 'tiny' else tokenizer
    return PredictorPretrain(tokenizer, tiny_predictor(), **options)


def images(count=4):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def some_ids(count=4):
    return torch.randint(64, (count, 16), generator=torch.Generator().manual_seed(2))


def generator():
    return torch.Generator().manual_seed(3)


def test_ratios_follow_the_density():
    ratios = truncated_normal_ratios(4000, 0.55, 0.25, 0.5, generator())
    assert ratios.shape == (4000, 1)
    assert ratios.min() >= 0.5
    assert ratios.max() <= 1
    # the distribution of a normal density (0.55, 0.25) on [0.5, 1], by numerical integration
    grid = torch.linspace(0.5, 1, 10001)
    cumulative = torch.exp(-(((grid - 0.55) / 0.25) ** 2) / 2).cumsum(0)
    for share in (0.25, 0.5, 0.75):
        expected = grid[(cumulative / cumulative[-1] < share).sum()]
        assert ratios.quantile(share).item() == pytest.approx(expected.item(), abs=0.01)
    shared = truncated_normal_ratios(5, 0.55, 0.25, 0.5, generator(), shared=True)
    assert len(shared) == 5
    assert len(shared.unique()) == 1


def test_half_the_positions_are_dropped_and_they_are_masked_ones():
    """As in MAGE's code: ceil(L / 2) of the ceil(L * ratio) masked positions of a row."""
    ratios = torch.tensor([[0.5], [0.6], [1.0]]).repeat(300, 1)
    mask, kept = random_masks(ratios, 15, generator(), drop_ratio=0.5)
    assert mask.sum(1).tolist() == [8, 9, 15] * 300
    assert kept.shape == (900, 7)
    dropped = torch.ones(900, 15, dtype=torch.bool).scatter(1, kept, False)
    assert (dropped.sum(1) == 8).all()
    assert not (dropped & ~mask).any()
    assert (kept.diff(dim=1) > 0).all()
    # every position is dropped about as often as any other
    assert (dropped.float().mean(0) - 8 / 15).abs().max() < 0.07
    undropped, everything = random_masks(ratios, 15, generator())
    assert everything is None
    assert torch.equal(undropped, mask)
    with pytest.raises(ValueError, match='drop_ratio must be in'):
        random_masks(ratios, 15, generator(), drop_ratio=1.0)


def attend(block, x, seen):
    """A transformer block whose attention ignores positions that are not ``seen`` (B, N)."""
    attn, h = block.attn, block.norm1(x)
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)) for part in attn.qkv(h).chunk(3, dim=-1))
    scores = torch.einsum('bqhd,bkhd->bhqk', q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
    x = x + attn.proj(torch.einsum('bhqk,bkhd->bqhd', weights, v).flatten(2))
    return x + block.mlp(block.norm2(x))


def masked_attention_logits(predictor, ids, mask, dropped):
    """The same maths at full length: dropped positions stay in the sequence and are ignored."""
    first = torch.zeros(len(ids), 1, dtype=torch.bool)
    words = torch.cat([torch.full((len(ids), 1), 64 + 1), ids.masked_fill(mask, 64 + 3)], 1)
    x = predictor.embed_norm(predictor.word_embed.weight[words] + predictor.pos_embed)
    for block in predictor.blocks:
        x = attend(block, x, ~torch.cat([first, dropped], 1))
    x = predictor.decoder_embed(predictor.norm(x))
    hidden = torch.cat([first, mask | dropped], 1)
    x = torch.where(hidden[..., None], x[:, :1], x) + predictor.decoder_pos_embed
    for block in predictor.decoder_blocks:
        x = attend(block, x, torch.ones_like(hidden))
    return predictor.head(predictor.decoder_norm(x)[:, 1:], predictor.word_embed.weight)


def test_dropping_positions_equals_attention_that_ignores_them():
    predictor, ids = tiny_predictor().double(), some_ids()
    mask, kept = random_masks(torch.tensor([[0.5], [0.6], [0.8], [1.0]]), 16, generator(), drop_ratio=0.5)
    dropped = torch.ones_like(mask).scatter(1, kept, False)
    logits, expected = predictor.logits(ids, mask, kept), masked_attention_logits(predictor, ids, mask, dropped)
    torch.testing.assert_close(logits, expected, atol=1e-12, rtol=1e-12)
    gradients = [
        torch.autograd.grad(F.cross_entropy(out[mask], ids[mask]), [*predictor.parameters()])
        for out in (logits, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    # dropping changes the result, and the comparison detects it
    whole = masked_attention_logits(predictor, ids, mask, torch.zeros_like(mask))
    assert (whole - expected).abs().max() > 1e-3
    torch.testing.assert_close(predictor.logits(ids, mask), whole, atol=1e-12, rtol=1e-12)


def test_the_order_of_kept_positions_does_not_matter():
    predictor, ids = tiny_predictor().double(), some_ids()
    mask, kept = random_masks(torch.full((4, 1), 0.7), 16, generator(), drop_ratio=0.5)
    torch.testing.assert_close(predictor.logits(ids, mask, kept), predictor.logits(ids, mask, kept.flip(1)))
    with pytest.raises(ValueError, match='kept must be'):
        predictor.logits(ids, mask, kept[:3])


def test_the_encoder_runs_on_half_of_the_positions_in_training_only():
    model, lengths = tiny_training(None, drop_ratio=0.5), []
    model.predictor.blocks[0].register_forward_hook(lambda block, args, out: lengths.append(out.shape[1]))
    for mode in (True, False):
        model.train(mode)(some_ids(), mode='loss')
    model(some_ids())
    assert lengths == [9, 17, 17]


@pytest.mark.parametrize('codes_only, vocabulary', [(False, 64 + 3 + 1), (True, 64)])
@pytest.mark.parametrize('training', [True, False])
def test_loss_against_its_definition(codes_only, vocabulary, training):
    """Label smoothing 0.1 at masked positions: 0.9 of the id, 0.1 spread over the vocabulary."""
    model = tiny_training(None, drop_ratio=0.5, codes_only=codes_only).train(training)
    ids = some_ids()
    torch.manual_seed(7)
    mask, kept = model.draw_masks(ids)
    assert (kept is not None) == training
    torch.manual_seed(7)
    losses = model(ids, mode='loss')
    log_probs = model.predictor.logits(ids, mask, kept)[..., :vocabulary].log_softmax(-1)
    expected = [0.9 * -log_probs[b, i, ids[b, i]] + 0.1 * -log_probs[b, i].mean() for b, i in mask.nonzero().tolist()]
    torch.testing.assert_close(losses['loss'], torch.stack(expected).mean())
    hits = [log_probs[b, i].argmax() == ids[b, i] for b, i in mask.nonzero().tolist()]
    assert losses['accuracy'].item() == pytest.approx(sum(hits).item() / len(hits))


def test_training_on_ids_equals_training_on_their_images():
    on_images, on_ids = tiny_training().train(), tiny_training(None).train()
    on_ids.predictor.load_state_dict(on_images.predictor.state_dict())
    ids, _ = on_images.tokenizer.encode(images())
    torch.manual_seed(7)
    expected = on_images(images(), mode='loss')
    expected['loss'].backward()
    for stored in (ids, ids.to(torch.int32)):
        torch.manual_seed(7)
        torch.testing.assert_close(on_ids(stored, mode='loss'), expected)
    torch.manual_seed(7)
    on_ids([*ids], mode='loss')['loss'].backward()  # as pseudo_collate passes them
    for ours, theirs in zip(on_ids.predictor.parameters(), on_images.predictor.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert not any(key.startswith('tokenizer') for key in on_ids.state_dict())


def test_a_training_step_on_ids_through_mmengine():
    from mmengine.optim import OptimWrapper

    model = tiny_training(None, drop_ratio=0.5, shared_mask_ratio=True)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-2))
    torch.manual_seed(0)
    losses = [model.train().train_step(dict(inputs=some_ids(8)), wrapper)['loss'].item() for _ in range(40)]
    assert max(losses[-5:]) < min(losses[:5])


@pytest.mark.parametrize(
    'ids, words',
    [
        (torch.zeros(2, 15, dtype=torch.long), 'rows of 15 ids from 0 to 0 do not fit a predictor of 16 tokens'),
        (torch.full((2, 16), 64), 'from 64 to 64 .* and 64 codes'),
        (torch.full((2, 16), -1), 'from -1 to -1'),
    ],
)
def test_ids_of_another_tokenizer_are_refused(ids, words):
    with pytest.raises(ValueError, match=words):
        tiny_training(None)(ids, mode='loss')
    model = tiny_training(None)
    model(some_ids(2), mode='loss')
    with pytest.raises(ValueError, match=words):  # in a later batch as well
        model(ids, mode='loss')


def test_images_need_a_tokenizer():
    with pytest.raises(
        RuntimeError, match=r'shape \(4, 3, 16, 16\) does not contain ids \(B, 16\), and tokenizer is None'
    ):
        tiny_training(None)(images(), mode='loss')


def test_settings_that_contradict_one_another_are_refused():
    with pytest.raises(ValueError, match='dropped positions are masked ones.* got 0.6 and 0.5'):
        tiny_training(None, drop_ratio=0.6)
    tokenizer = VQTokenizer(stem_stride=4, base_channels=32, channel_mults=(1,), codebook_size=32, embed_dims=4)
    with pytest.raises(ValueError, match='the tokenizer has 32 codes'):
        tiny_training(tokenizer)


def test_masks_come_from_the_generator_of_the_process():
    model = tiny_training(None, drop_ratio=0.5).train()

    def masks(seed):
        torch.manual_seed(seed)
        return str([part.tolist() for part in model.draw_masks(some_ids(2))])

    assert len({masks(seed) for seed in range(4)}) == 4
    assert masks(1) == masks(1)


def test_the_tokenizer_stays_frozen_while_the_predictor_learns():
    model = tiny_training().train()
    assert not model.tokenizer.training
    assert model.predictor.training
    model(images(), mode='loss')['loss'].backward()
    assert all(p.grad is None and not p.requires_grad for p in model.tokenizer.parameters())
    assert [n for n, p in model.predictor.named_parameters() if p.grad is None] == []


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_training_does_not_change_the_tokenizer(one_process):
    model = tiny_training()
    wrapped = MMDistributedDataParallel(module=model)
    assert wrapped.parameters_to_ignore == {f'tokenizer.{key}' for key in model.tokenizer.state_dict()}
    for _ in range(2):
        wrapped(images(), mode='loss')['loss'].backward()
    on_ids = MMDistributedDataParallel(module=tiny_training(None, drop_ratio=0.5).train())
    for _ in range(2):
        on_ids(some_ids(), mode='loss')['loss'].backward()


def test_a_predictor_does_not_learn_from_a_tokenizer_without_weights():
    model = tiny_training(tiny_tokenizer())
    with pytest.raises(RuntimeError, match='no weights were loaded into the frozen tokenizer'):
        model(images(), mode='loss')
    weights = tiny_tokenizer().state_dict()
    with pytest.raises(RuntimeError, match='missing codes.weight'):
        model.tokenizer.load_state_dict(
            {key: value for key, value in weights.items() if key != 'codes.weight'}, strict=False
        )
    model.tokenizer.load_state_dict(weights)
    assert torch.isfinite(model(images(), mode='loss')['loss'])
