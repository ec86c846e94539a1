# Copyright (c) addp_mm contributors. Apache-2.0.
"""Products of float32 matrices by oneDNN, on CPUs that MKL does not compute fast on.

PyTorch computes products of float32 matrices with MKL, and products in bfloat16 and convolutions
with oneDNN; both are parts of PyTorch. On CPUs of other makers than Intel, MKL leaves AVX-512
unused. There oneDNN takes half the time of each linear layer, forward and backward
(``tools/benchmarks/backbone_time.py``).
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# Products of fewer multiplications than this gain nothing.
MIN_MULTIPLICATIONS = 2**18
_active = True
_library: Any = None


def patch_matrix_products(torch: Any) -> bool:
    """Let oneDNN compute ``mm`` and ``addmm`` of float32 matrices on the CPU.

    The kernels of the two operators are replaced, so that every linear layer of every package uses
    them, and autograd, ``torch.compile`` and tracing see the operators as before. Results differ by
    rounding.

    Args:
        torch: The module.

    Returns:
        Whether MKL is slow here: it computes the products, and the CPU has AVX-512 and is not
        made by Intel.
    """
    global _library
    if not _is_slow_here(torch):
        return False
    _library = torch.library.Library('aten', 'IMPL')
    for name, kernel in _kernels(torch).items():
        _library.impl(name, kernel, 'CPU')
    return True


@contextmanager
def by_mkl() -> Iterator[None]:
    """Compute matrix products as without the patch, to compare with it."""
    global _active
    before, _active = _active, False
    try:
        yield
    finally:
        _active = before


def _is_slow_here(torch: Any) -> bool:
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    with_avx512 = torch.backends.cpu.get_cpu_capability().startswith('AVX512')
    return has_both and with_avx512 and not _made_by_intel() and hasattr(torch.ops.mkldnn, '_linear_pointwise')


def _made_by_intel() -> bool:
    information = Path('/proc/cpuinfo')
    maker = information.read_text() if information.is_file() else platform.processor()
    return 'GenuineIntel' in maker or sys.platform == 'darwin'


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps; a second factor with gaps costs oneDNN a thousand times the time."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


def _kernels(torch: Any) -> dict:
    """The kernels by the names of their operators. Where oneDNN gains nothing they use MKL."""
    linear = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001  (there is no public name)
    mm_out, addmm_out = torch.ops.aten.mm.out, torch.ops.aten.addmm.out

    def gains(one: Tensor, other: Tensor) -> bool:
        if not _active or one.dim() != 2 or other.dim() != 2 or one.shape[1] != other.shape[0]:
            return False
        is_float = one.dtype is torch.float32 and other.dtype is torch.float32
        return is_float and one.shape[0] * one.shape[1] * other.shape[1] >= MIN_MULTIPLICATIONS

    def mm(self: Tensor, mat2: Tensor) -> Tensor:
        if gains(self, mat2):
            return linear(self, _dense(mat2).t(), None, 'none', [], '')
        return mm_out(self, mat2, out=self.new_empty(0))

    def addmm(self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        is_bias = self.shape == mat2.shape[1:] and self.dtype is mat2.dtype and beta == 1 and alpha == 1
        if is_bias and gains(mat1, mat2):
            return linear(mat1, _dense(mat2).t(), self.contiguous(), 'none', [], '')
        return addmm_out(self, mat1, mat2, beta=beta, alpha=alpha, out=mat1.new_empty(0))

    return dict(mm=mm, addmm=addmm)
