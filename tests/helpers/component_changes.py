# Copyright (c) addp_mm contributors. Apache-2.0.
"""Small changes of the components, and the result that each change must affect."""

import types
from dataclasses import replace

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import nn

from addp_mm.models.layers import Attention
from addp_mm.models.losses import SoftTargetCrossEntropy
from addp_mm.models.tokenizers.conv_layers import DoublingConv, ResidualBlock


def norm_eps(eps, kind=nn.LayerNorm):
    def change(part):
        for module in part.modules():
            if isinstance(module, kind):
                module.eps = eps

    return change


def activation(act):
    def change(part):
        for module in part.modules():
            if isinstance(module, Mlp):
                module.act = act

    return change


def two_heads(part):
    for module in part.modules():
        if isinstance(module, Attention):
            module.num_heads = 2


def without(name):
    return lambda part: setattr(part, name, nn.Identity())


def zeroed(name):
    return lambda part: part.get_parameter(name).data.zero_()


# --- tokenizer


def shortcut_of_the_input(tokenizer, monkeypatch):
    def forward(block, x):
        hidden = block.conv2(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x))))))
        if block.shortcut is None:
            return hidden + x
        kept = x[:, : hidden.shape[1]]
        return hidden + F.conv2d(kept, block.shortcut.weight[:, : kept.shape[1]])

    monkeypatch.setattr(ResidualBlock, 'forward', forward)


def double_bilinearly(conv, x):
    return conv._conv_forward(F.interpolate(x, scale_factor=2, mode='bilinear'), conv.weight, conv.bias)


def nearest_by_cosine(tokenizer, monkeypatch):
    def quantize(self, latents):
        return (latents.flatten(2).transpose(1, 2) @ F.normalize(self.codebook, dim=1).t()).argmax(-1)

    tokenizer.quantize = types.MethodType(quantize, tokenizer)


TOKENIZER = {
    'GroupNorm eps 1e-5': (lambda t, m: norm_eps(1e-5, nn.GroupNorm)(t), 'reconstruction'),
    'ReLU instead of swish': (lambda t, m: m.setattr(F, 'silu', F.relu), 'token_indices'),
    'shortcut of the input': (shortcut_of_the_input, 'reconstruction'),
    'stride instead of average pooling': (lambda t, m: m.setattr(F, 'avg_pool2d', lambda x, k: x[..., ::k, ::k]), 'z0'),
    'bilinear upsampling': (lambda t, m: m.setattr(DoublingConv, 'forward', double_bilinearly), 'reconstruction'),
    'nearest code by cosine': (nearest_by_cosine, 'token_indices'),
    'images in [-1, 1]': (lambda t, m: setattr(t, 'encode', lambda x, e=t.encode: e(2 * x - 1)), 'token_indices'),
}


# --- predictor


def visible_class_space(**changes):
    return lambda p: setattr(p, 'token_space', replace(p.token_space, **changes))


def whole_vocabulary(predictor):
    def forward(self, ids, mask, labels=None, rows=None):
        probabilities = self.logits(ids, mask, labels=labels).softmax(-1)[..., : self.token_space.codebook_size]
        return probabilities if rows is None else probabilities.flatten(0, 1)[rows]

    predictor.forward = types.MethodType(forward, predictor)


def own_output_at_masked_positions(predictor):
    """Masked positions of the decoder get the encoder's own output instead of its class output."""

    def states(self, ids, mask, kept, labels):
        words = F.pad(ids.masked_fill(mask, self.token_space.mask_id), (1, 0), value=self.token_space.fake_class_id)
        x = self.embed_norm(self.word_embed(words) + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x)) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)[:, 1:]

    predictor._states = types.MethodType(states, predictor)


PREDICTOR = {
    'LayerNorm eps 1e-5 everywhere': norm_eps(1e-5),
    'ReLU instead of GELU': activation(nn.ReLU()),
    'two heads': two_heads,
    'another class slot': visible_class_space(fake_class_slot=0),
    'another mask id': visible_class_space(num_class_slots=999),
    'softmax over the whole vocabulary': whole_vocabulary,
    'no norm after the embedding': without('embed_norm'),
    'no final norm': without('norm'),
    'own output at masked positions': own_output_at_masked_positions,
    'no bias of the words': zeroed('head.bias'),
}
EXCHANGED_MASKS = {'z_t_pred', 'target_prob', 'x_t'}


# --- backbone, token decoder, head, loss


def not_normalised(model):
    model.pixel_mean.zero_()
    model.pixel_std.fill_(1)


def not_clamped(model):
    model.extract_feat = types.MethodType(lambda self, x: self.backbone((x - self.pixel_mean) / self.pixel_std), model)


ENCODER = {
    'no norm after the embedding': lambda m: without('pre_norm')(m.backbone),
    'no final norm': lambda m: without('final_norm')(m.backbone),
    'LayerNorm eps 1e-5': lambda m: norm_eps(1e-5)(m.backbone),
    'ReLU instead of GELU': lambda m: activation(nn.ReLU())(m.backbone),
    'tanh approximation of GELU': lambda m: activation(nn.GELU('tanh'))(m.backbone),
    'two heads': lambda m: two_heads(m.backbone),
    'no position of the class token': lambda m: m.backbone.pos_embed.data[:, 0].zero_(),
    'images not normalised': not_normalised,
    'images not clamped': not_clamped,
}


def features_at_the_class_position(neck):
    def image_positions(self, features, mask, labels):
        x = self.embed(features) + self.pos_embed
        image = torch.where(mask.unsqueeze(-1), self.mask_token + self.mask_pos_embed, x[:, 1:])
        return torch.cat([x[:, :1], image], dim=1)

    neck._image_positions = types.MethodType(image_positions, neck)


def no_appended_positions(neck):
    neck.token_pos_embed.data.zero_()


def shared_positions(neck):
    neck.mask_pos_embed.data.copy_(neck.pos_embed[:, 1:])


def appended_tokens_hidden(neck):
    visible = neck._visible_tokens
    neck._visible_tokens = lambda ids, positions: torch.zeros_like(visible(ids, positions))


def relu_head(head):
    def forward(self, states, words):
        return F.linear(self.norm(F.relu(self.fc(states))), words.detach()) + self.bias

    head.forward = types.MethodType(forward, head)


DECODER = {
    'two heads': lambda m: two_heads(m.neck),
    'features at the class position': lambda m: features_at_the_class_position(m.neck),
    'no positions of the appended tokens': lambda m: no_appended_positions(m.neck),
    'one position table': lambda m: shared_positions(m.neck),
    'appended tokens hidden': lambda m: appended_tokens_hidden(m.neck),
    'no norm': lambda m: without('norm')(m.neck),
    'LayerNorm eps 1e-5': lambda m: norm_eps(1e-5)(m.neck),
    'ReLU instead of GELU in the head': lambda m: relu_head(m.head),
    'LayerNorm eps 1e-4 in the head': lambda m: norm_eps(1e-4)(m.head),
    'no bias of the words': lambda m: zeroed('bias')(m.head),
}


def mean_over_all_positions(head):
    head.loss = lambda states, words, target, mask: dict(
        loss=head.loss_module(head(states, words)[mask], target) * mask.float().mean()
    )


def codes_only(head):
    head.loss = lambda states, words, target, mask: dict(
        loss=head.loss_module(head(states, words)[mask][:, : target.shape[-1]], target)
    )


LOSS = {
    'no label smoothing': lambda m: setattr(m.head, 'loss_module', SoftTargetCrossEntropy(label_smoothing=0.0)),
    'mean over all positions': lambda m: mean_over_all_positions(m.head),
    'codes only': lambda m: codes_only(m.head),
}
COMPONENTS = dict(encoder_out=ENCODER, logits=DECODER, loss=LOSS)


# --- generation

LATENTS_OF_THE_PREDICTOR = {'sampling.x1', 'sampling.step1_logits'}
START = {
    'no norm of the decoder': lambda m: without('norm')(m.neck),
    'one position table': lambda m: shared_positions(m.neck),
    'no bias of the words': lambda m: zeroed('bias')(m.head),
}


# --- noise levels

SCHEDULE = {
    'a level less': (dict(num_levels=99), 'mask_ratios'),
    'a narrower density': (dict(std=0.24), 'mask_ratio_probs'),
    'another mean': (dict(mean=0.56), 'mask_ratio_probs'),
}
