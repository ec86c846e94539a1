# Copyright (c) addp_mm contributors. Apache-2.0.
"""Products of float32 matrices by oneDNN: any layout, autograd, and what stays with MKL."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from addp_mm.compat import install, matrix_products
from addp_mm.compat.matrix_products import MIN_MULTIPLICATIONS, by_mkl, patch_matrix_products

install()
KERNELS = matrix_products._kernels(torch)  # tested on every machine, also where they are not installed
ROWS, INNER, COLUMNS = 129, 200, 257


def layouts(rows, columns):
    """The same numbers as they lie in memory in different ways."""
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    wide, tall = torch.zeros(rows, 2 * columns), torch.zeros(2 * columns, rows)
    wide[:, ::2], tall[::2] = matrix, matrix.t()
    shifted = torch.cat([torch.zeros(3), matrix.flatten()])[3:].view(rows, columns)
    return [matrix, matrix.t().contiguous().t(), wide[:, ::2], tall[::2].t(), shifted]


def test_products_of_any_layout_equal_those_in_float64():
    assert ROWS * INNER * COLUMNS > MIN_MULTIPLICATIONS
    bias = torch.arange(2 * COLUMNS, dtype=torch.float32)[::2]
    for one in layouts(ROWS, INNER):
        for other in layouts(INNER, COLUMNS):
            wanted = one.double() @ other.double()
            torch.testing.assert_close(KERNELS['mm'](one, other).double(), wanted, rtol=1e-5, atol=1e-4)
            with_bias = KERNELS['addmm'](bias, one, other).double()
            torch.testing.assert_close(with_bias, wanted + bias, rtol=1e-5, atol=1e-4)


def test_the_second_factor_has_no_gaps():
    for matrix in layouts(INNER, COLUMNS):
        dense = matrix_products._dense(matrix)
        assert torch.equal(dense, matrix)
        assert dense.is_contiguous() or dense.t().is_contiguous()
        assert (dense is matrix) == (matrix.is_contiguous() or matrix.t().is_contiguous())


def test_a_linear_layer_has_the_output_and_the_gradients_of_mkl():
    torch.manual_seed(0)
    layer, tokens = torch.nn.Linear(128, 512), torch.randn(2, 64, 128, requires_grad=True)

    def run():
        out = layer(tokens)
        return out, *torch.autograd.grad(out.square().mean(), (tokens, *layer.parameters()))

    ours = run()
    with by_mkl():
        plain = run()
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_one_dnn_does_not_compute_is_as_before():
    mm, addmm = KERNELS['mm'], KERNELS['addmm']
    whole = torch.arange(6).view(2, 3)
    assert torch.equal(mm(whole, whole.t()), torch.tensor([[5, 14], [14, 50]]))
    half, double = torch.ones(80, 80, dtype=torch.float16), torch.full((80, 80), 0.1, dtype=torch.float64)
    assert mm(half, half).dtype == torch.float16
    assert torch.equal(mm(double, double), double @ double)
    matrix = torch.rand(80, 80)
    wanted = 2 * matrix + matrix @ matrix / 2
    torch.testing.assert_close(addmm(matrix, matrix, matrix, beta=2, alpha=0.5), wanted)
    assert torch.equal(mm(torch.rand(800, 0), torch.rand(0, 600)), torch.zeros(800, 600))
    for wrong in (torch.rand(81, 80), matrix.double(), torch.rand(80), torch.rand(2, 80, 80)):
        with pytest.raises(RuntimeError, match='mat1 and mat2 shapes|same dtype|must be a matrix|must be matrices|2D'):
            mm(matrix, wrong)


def machine(mkl=True, capability='AVX512'):
    return SimpleNamespace(
        backends=SimpleNamespace(
            mkl=SimpleNamespace(is_available=lambda: mkl),
            mkldnn=SimpleNamespace(is_available=lambda: True),
            cpu=SimpleNamespace(get_cpu_capability=lambda: capability),
        ),
        ops=torch.ops,
    )


@pytest.mark.parametrize(
    'mkl, capability, by_intel, expected',
    [
        (True, 'AVX512', False, True),
        (True, 'AVX512', True, False),
        (True, 'AVX2', False, False),
        (False, 'AVX512', False, False),
    ],
)
def test_only_machines_with_the_fault_are_patched(monkeypatch, mkl, capability, by_intel, expected):
    monkeypatch.setattr(matrix_products, '_made_by_intel', lambda: by_intel)
    assert matrix_products._is_slow_here(machine(mkl, capability)) == expected
    if not expected:
        assert not patch_matrix_products(machine(mkl, capability))


def test_the_kernels_are_used_on_a_machine_with_the_fault():
    code = """
import torch
from torch.profiler import profile
from addp_mm.compat import matrix_products

matrix_products._is_slow_here = lambda torch: True
assert matrix_products.patch_matrix_products(torch)
matrix = torch.rand(80, 80)
with profile() as seen:
    matrix @ matrix
with matrix_products.by_mkl(), profile() as seen_by_mkl:
    matrix @ matrix
uses = ['mkldnn::_linear_pointwise' in {event.key for event in one.key_averages()} for one in (seen, seen_by_mkl)]
assert uses == [True, False], uses
"""
    subprocess.run([sys.executable, '-c', code], check=True, env={**os.environ, 'ADDP_MM_COMPAT': 'off'})
