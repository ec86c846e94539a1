# Copyright (c) addp_mm contributors. Apache-2.0.
"""Attention with relative positions without the N x N bias equals attention with it."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from addp_mm.models.layers import Attention, chunked_attention, rel_pos_attention
from addp_mm.models.layers.rel_pos import resize_rel_pos
from addp_mm.models.layers.rel_pos_attention import attend, attend_appended, attend_in_chunks, attend_plain, choose_path

PATHS = [attend_appended, attend_in_chunks]
NAMES = ('query', 'key', 'value', 'rel_pos_h', 'rel_pos_w')


@pytest.fixture(autouse=True)
def _seeded_one_query_at_a_time(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(chunked_attention, 'CHUNK_BYTES', dict(cpu=1))


def inputs(hw, prefix=0, table_hw=None, dims=16, dtype=torch.float64) -> list[torch.Tensor]:
    """Query, key and value of 2 images and 3 heads, and both tables."""
    generator = torch.Generator().manual_seed(0)
    tokens = prefix + hw[0] * hw[1]
    shapes = [(2, 3, tokens, dims)] * 3 + [(2 * side - 1, dims) for side in table_hw or hw]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def with_gradients(path, tensors, hw) -> list[torch.Tensor]:
    """The output, and the gradients of all tensors."""
    tensors = [one.detach().requires_grad_() for one in tensors]
    out = path(*tensors, hw)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [out.detach(), *torch.autograd.grad((out * weights.to(out.dtype)).sum(), tensors)]


def from_the_definition(query, key, value, rel_pos_h, rel_pos_w, hw) -> torch.Tensor:
    """Attention with a bias that is computed for each pair of positions."""
    (h, w), dims = hw, query.shape[-1]
    prefix = query.shape[2] - h * w
    rel_pos_h, rel_pos_w = resize_rel_pos(rel_pos_h, 2 * h - 1), resize_rel_pos(rel_pos_w, 2 * w - 1)
    scores = (query @ key.mT / dims**0.5).clone()
    for i in range(h * w):
        for j in range(h * w):
            row = rel_pos_h[i // w - j // w + h - 1] + rel_pos_w[i % w - j % w + w - 1]
            scores[:, :, prefix + i, prefix + j] += query[:, :, prefix + i] @ row
    return scores.softmax(dim=-1) @ value


@pytest.mark.parametrize('path', [attend_plain, *PATHS])
@pytest.mark.parametrize('prefix,table_hw', [(0, None), (2, (5, 2))])
def test_output_and_gradients_equal_the_definition(path, prefix, table_hw):
    tensors = inputs((3, 4), prefix, table_hw)
    for got, expected in zip(
        with_gradients(path, tensors, (3, 4)), with_gradients(from_the_definition, tensors, (3, 4)), strict=True
    ):
        # tables of another size are resized in float32
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 if table_hw else 1e-12)


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize(
    'hw,prefix,table_hw,dims', [((7, 5), 0, None, 16), ((2, 9), 1, (4, 4), 24), ((1, 6), 3, None, 8)]
)
def test_output_and_gradients_equal_the_plain_path(path, hw, prefix, table_hw, dims):
    tensors = inputs(hw, prefix, table_hw, dims, torch.float32)
    for name, got, expected in zip(
        ('output', *NAMES), with_gradients(path, tensors, hw), with_gradients(attend_plain, tensors, hw), strict=True
    ):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('dims', [16, 24])  # the scale is a power of two, or not
def test_bfloat16_rounds_no_more_than_the_plain_path(path, dims):
    hw = (6, 7)
    tensors = inputs(hw, 1, None, dims, torch.bfloat16)
    exact = with_gradients(attend_plain, [one.double() for one in tensors], hw)
    errors = []
    for tried in (path, attend_plain):
        got = with_gradients(tried, tensors, hw)
        assert all(one.dtype == torch.bfloat16 for one in got)
        errors.append([(one.double() - other).square().mean().sqrt() for one, other in zip(got, exact, strict=True)])
    for name, error, plain in zip(('output', *NAMES), *errors, strict=True):
        # equal within what is known of it from so few numbers: a table has a few hundred
        assert error <= 1.1 * plain, name


@pytest.mark.parametrize('heads', [1, 3, 6])
def test_the_size_of_the_chunks_does_not_change_the_result(heads, monkeypatch):
    tensors = inputs((5, 3), 1, None, 8)
    by_query = with_gradients(attend_in_chunks, tensors, (5, 3))
    bytes_of_a_query = 16 * 8  # 16 keys in float64
    monkeypatch.setattr(chunked_attention, 'CHUNK_BYTES', dict(cpu=7 * heads * bytes_of_a_query))  # 7 of 15 queries
    if heads == 1:
        monkeypatch.setattr(chunked_attention, 'SMALL_BYTES', 0)
    if heads == 6:  # of both images, as on a GPU
        monkeypatch.setattr(chunked_attention, 'HEAD_BY_HEAD', ())
    chunks = list(chunked_attention._chunks(tensors[0][:, :, 1:], tensors[1]))
    assert len(chunks) == 3 * 6 // heads
    for got, expected in zip(with_gradients(attend_in_chunks, tensors, (5, 3)), by_query, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


def test_a_second_derivative_is_refused():
    tensors = [one.requires_grad_() for one in inputs((2, 2))]
    (grad,) = torch.autograd.grad(attend_in_chunks(*tensors, (2, 2)).square().sum(), tensors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


@pytest.mark.parametrize('path', PATHS)
def test_nothing_as_large_as_the_bias_is_kept_for_the_backward_pass(path):
    def largest(path) -> int:
        sizes = []
        tensors = [one.requires_grad_() for one in inputs((12, 12), dims=8, dtype=torch.float32)]
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            path(*tensors, (12, 12))
        return max(sizes)

    assert largest(attend_plain) == 2 * 3 * 144 * 144
    assert largest(path) <= 2 * 3 * 144 * (8 + 24)


def attention_kernels(run) -> set[str]:
    """Names of the attention kernels that a function uses."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    return {event.key for event in profiled.key_averages() if '_scaled_dot_product' in event.key}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_cpu_runs_its_fused_kernels(dtype):
    tensors = inputs((4, 5), 1, dtype=dtype)
    fused = 'aten::_scaled_dot_product_flash_attention_for_cpu'
    assert attention_kernels(lambda: with_gradients(attend_appended, tensors, (4, 5))) == {fused, f'{fused}_backward'}


@pytest.mark.parametrize(
    'dims,hw,device,path',
    [
        (64, (14, 14), 'cpu', attend_in_chunks),  # the windows of ViTDet
        (64, (64, 64), 'cpu', attend_in_chunks),  # its global blocks at 1024 px
        (64, (64, 64), 'cuda', attend_appended),
        (64, (96, 96), 'cuda', attend_appended),
        (64, (97, 96), 'cuda', attend_in_chunks),
        (80, (64, 64), 'cuda', attend_appended),
        (64, (14, 14), 'mps', attend_in_chunks),
    ],
)
def test_the_shape_decides(dims, hw, device, path):
    assert choose_path(dims, hw, device) is path


def test_attention_follows_the_rule_and_its_dropout_needs_the_plain_path(monkeypatch):
    attn = Attention(24, 3, rel_pos_size=(4, 4), attn_drop_rate=0.5)
    nn.init.normal_(attn.rel_pos_h)
    nn.init.normal_(attn.rel_pos_w)
    used = []
    for name in ('attend_plain', 'attend_appended', 'attend_in_chunks'):
        path = getattr(rel_pos_attention, name)
        monkeypatch.setattr(rel_pos_attention, name, lambda *args, path=path: used.append(path) or path(*args))
    x = torch.rand(2, 25, 24)
    assert not torch.equal(attn(x, (5, 5)), attn(x, (5, 5)))
    attn.eval()(x[:, :16], (4, 4))
    small = attn(x, (5, 5))
    assert used == [attend_plain, attend_plain, attend_in_chunks, attend_in_chunks]
    q, k, v = attn.qkv(x).unflatten(2, (3, 3, -1)).permute(2, 0, 3, 1, 4)
    expected = attend_plain(q, k, v, attn.rel_pos_h, attn.rel_pos_w, (5, 5)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(small, attn.proj(expected))
    assert set(attn.state_dict()) == {'qkv.weight', 'qkv.bias', 'proj.weight', 'proj.bias', 'rel_pos_h', 'rel_pos_w'}


@pytest.mark.parametrize('hw', [(3, 4), (6, 6)])
def test_autocast_reaches_the_tables(hw):
    attn = Attention(24, 3, rel_pos_size=hw)
    nn.init.normal_(attn.rel_pos_h, std=0.1)
    x = torch.rand(2, hw[0] * hw[1], 24)
    full = torch.autograd.grad(attn(x, hw).sum(), [attn.rel_pos_h, attn.rel_pos_w])
    with torch.autocast('cpu', torch.bfloat16):
        out = attn(x, hw)
    assert out.dtype == torch.bfloat16
    for got, expected in zip(torch.autograd.grad(out.sum(), [attn.rel_pos_h, attn.rel_pos_w]), full, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize('hw', [(3, 4), (6, 6)])
def test_both_ways_compile_into_one_graph(hw):
    attn = Attention(24, 3, rel_pos_size=hw)
    nn.init.normal_(attn.rel_pos_h)
    x = torch.rand(1, hw[0] * hw[1], 24)
    compiled = torch.compile(attn, backend='aot_eager', fullgraph=True)
    results = []
    for module in (attn, compiled):
        out = module(x, hw)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(attn.parameters()))])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_without_gradients_the_result_is_the_same():
    tensors = inputs((6, 6), dims=8, dtype=torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(attend(*tensors, (6, 6)), attend_plain(*tensors, (6, 6)))
