# Copyright (c) addp_mm contributors. Apache-2.0.
"""The pre-norm transformer block of backbone, token decoder and predictor."""

from timm.layers import DropPath, LayerScale, Mlp
from torch import Tensor, nn

from addp_mm.models.layers.attention import Attention
from addp_mm.models.layers.dropout import Dropout
from addp_mm.models.layers.window import window_partition, window_unpartition


class Block(nn.Module):
    """LayerNorm and attention, LayerNorm and MLP, each with a residual (ViT, arXiv 2010.11929).

    Attention can be restricted to windows (ViTDet, arXiv 2203.16527).

    Args:
        embed_dims: Width of the tokens.
        num_heads: Number of heads; must divide ``embed_dims``.
        mlp_ratio: Width of the MLP over ``embed_dims``. Defaults to 4.
        qkv_bias: Whether query, key and value have a bias. Defaults to True.
        drop_rate: Dropout after the projection and twice in the MLP. Defaults to 0.
        attn_drop_rate: Dropout of the attention weights. Defaults to 0.
        drop_path_rate: Stochastic depth of both branches (arXiv 1603.09382). Defaults to 0.
        norm_eps: Added to the variance in the norms. Defaults to 1e-6.
        window_size: Side of the attention windows in tokens; 0 for global attention. As in ViTDet,
            zeros pad the last windows and take part in attention. A block with windows accepts no
            tokens in addition to the map. Defaults to 0.
        rel_pos_size: Height and width in tokens of the map whose decomposed relative positions are
            learned. With windows it is replaced by ``window_size``. Defaults to None: no relative
            positions.
        rel_pos_table_size: The same for BEiT's table of relative positions. Defaults to None: no
            table.
        with_cls_token: Whether that table has entries for a class token. Defaults to False.
        layer_scale_init: Initial value of the learned channel factors of both branches (CaiT, arXiv
            2103.17239). Defaults to None: no factors.

    Raises:
        ValueError: ``window_size`` is negative, or see :class:`Attention`.

    Example:
        >>> Block(64, 4)(torch.rand(2, 17, 64)).shape
        torch.Size([2, 17, 64])
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
        window_size: int = 0,
        rel_pos_size: tuple[int, int] | None = None,
        rel_pos_table_size: tuple[int, int] | None = None,
        with_cls_token: bool = False,
        layer_scale_init: float | None = None,
    ) -> None:
        super().__init__()
        if window_size < 0:
            raise ValueError(f'window_size must be 0 (global attention) or positive, got {window_size}')
        if window_size:
            window = (window_size, window_size)
            rel_pos_size = rel_pos_size and window
            rel_pos_table_size = rel_pos_table_size and window
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.attn = Attention(
            embed_dims, num_heads, qkv_bias, attn_drop_rate, drop_rate, rel_pos_size, rel_pos_table_size, with_cls_token
        )
        self.norm2 = nn.LayerNorm(embed_dims, eps=norm_eps)
        # a ratio computed as hidden / embed_dims may be smaller by a rounding error
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio + 1e-6))
        self.mlp.drop1, self.mlp.drop2 = Dropout(drop_rate), Dropout(drop_rate)
        self.ls1, self.ls2 = (
            nn.Identity() if layer_scale_init is None else LayerScale(embed_dims, layer_scale_init) for _ in range(2)
        )
        self.drop_path = DropPath(drop_path_rate)

    def window_order(self, hw: tuple[int, int]) -> int:
        """Side of the windows by which the tokens of a map can stay sorted in this block.

        Args:
            hw: Height and width of the map in tokens.

        Returns:
            The side; 0 for row-major: without windows, or if the map needs padding.
        """
        fits = self.window_size and not any(side % self.window_size for side in hw)
        return self.window_size if fits else 0

    def forward(self, x: Tensor, hw: tuple[int, int] | None = None, in_window_order: bool = False) -> Tensor:
        """Transform the tokens.

        Args:
            x: (B, N, C). With windows N = H * W; with relative positions N = P + H * W, the P extra
                tokens first.
            hw: Height H and width W of the map in tokens; windows and relative positions need them.
                Defaults to None.
            in_window_order: Whether the tokens are sorted by windows (:func:`to_window_order
                <addp_mm.models.layers.window.to_window_order>`) instead of row-major; the map needs
                no padding then. So are those that are returned. Defaults to False.

        Returns:
            (B, N, C).

        Raises:
            ValueError: ``hw`` is needed and missing, or does not fit N.
        """
        attended = self.drop_path(self.ls1(self._attend(self.norm1(x), hw, in_window_order)))
        # a map without its padding is no view of tokens: added as a map, it need not be copied
        x = (x.reshape(attended.shape) + attended).reshape(x.shape)
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def _attend(self, x: Tensor, hw: tuple[int, int] | None, in_window_order: bool) -> Tensor:
        """Attention of (B, N, C), in windows if there are any: (B, N, C) or (B, H, W, C)."""
        if not (self.window_size or self.attn.needs_map):
            return self.attn(x)
        if hw is None:
            raise ValueError('a block with windows or relative positions needs hw, the height and width of the map')
        extra = x.shape[1] - hw[0] * hw[1]
        if extra < 0 or (self.window_size and extra):
            raise ValueError(
                f'{x.shape[1]} tokens do not fit a map of {hw[0]} x {hw[1]}'
                + (': a block with windows accepts no tokens in addition to the map' if self.window_size else '')
            )
        if not self.window_size:
            return self.attn(x, hw)
        window = (self.window_size, self.window_size)
        if in_window_order:
            return self.attn(x.reshape(-1, self.window_size**2, x.shape[2]), window).reshape(x.shape)
        windows, padded_hw = window_partition(x.unflatten(1, hw), self.window_size)
        out = self.attn(windows.flatten(1, 2), window)
        return window_unpartition(out.reshape(windows.shape), padded_hw, hw)
