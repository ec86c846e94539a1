# Copyright (c) addp_mm contributors. Apache-2.0.
"""The pre-norm transformer block of encoder, token decoder and predictor."""

from torch import Tensor, nn

from addp_mm.models.layers.attention import Attention
from addp_mm.models.layers.drop import DropPath
from addp_mm.models.layers.layer_scale import LayerScale
from addp_mm.models.layers.mlp import MLP
from addp_mm.models.layers.window import window_partition, window_unpartition


class Block(nn.Module):
    """Norm, attention, norm, MLP, each with a residual (ViT, arXiv 2010.11929); within windows if asked (ViTDet).

    Args:
        embed_dims (int): Width of the tokens.
        num_heads (int): Number of heads; must divide ``embed_dims``.
        mlp_ratio (float): Width of the MLP over ``embed_dims``. Defaults to 4.
        qkv_bias (bool): Whether query, key and value have a bias. Defaults to True.
        drop_rate (float): Dropout after the projection and twice in the MLP. Defaults to 0.
        attn_drop_rate (float): Dropout of the attention weights. Defaults to 0.
        drop_path_rate (float): Stochastic depth of both branches. Defaults to 0.
        norm_eps (float): Added to the variance in the norms. Defaults to 1e-6.
        window_size (int): Side of the attention windows in tokens; 0 attends everywhere. Zeros fill
            the last windows and take part, as in ViTDet. Tokens without a place on the map are
            refused then. Defaults to 0.
        rel_pos_size (tuple[int, int], optional): Map for which decomposed relative positions are
            made; with windows the window counts instead. Defaults to None: no relative positions.
        rel_pos_table_size (tuple[int, int], optional): The same for BEiT's table of relative
            positions. Defaults to None: no table.
        with_cls_token (bool): Whether that table has entries for a class token. Defaults to False.
        layer_scale_init (float, optional): Start of the learned factors of both branches. Defaults
            to None: no factors.

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
            raise ValueError(f'window_size must be 0 (attend everywhere) or positive, got {window_size}')
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
        self.mlp = MLP(embed_dims, int(embed_dims * mlp_ratio), drop_rate)
        self.ls1, self.ls2 = (
            nn.Identity() if layer_scale_init is None else LayerScale(embed_dims, layer_scale_init) for _ in range(2)
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, hw: tuple[int, int] | None = None) -> Tensor:
        """Transform the tokens.

        Args:
            x (Tensor): (B, N, C).
            hw (tuple[int, int], optional): Height and width of the map in tokens, which windows (N
                = H * W) and relative positions (N = P + H * W, the P extra tokens first) need.
                Defaults to None.

        Returns:
            Tensor: (B, N, C).

        Raises:
            ValueError: Windows or relative positions are used and ``hw`` is missing or does not fit
                N.
        """
        if self.window_size or self.attn.use_rel_pos or self.attn.rel_pos_table_size:
            self._check_map(x.shape[1], hw)
        attend = self._attend_in_windows if self.window_size else self.attn
        x = x + self.drop_path(self.ls1(attend(self.norm1(x), hw)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def _attend_in_windows(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        windows, padded_hw = window_partition(x.unflatten(1, hw), self.window_size)
        out = self.attn(windows.flatten(1, 2), (self.window_size, self.window_size))
        return window_unpartition(out.reshape(windows.shape), padded_hw, hw).flatten(1, 2)

    def _check_map(self, num_tokens: int, hw: tuple[int, int] | None) -> None:
        if hw is None:
            raise ValueError('a block with windows or relative positions needs hw, the height and width of the map')
        extra = num_tokens - hw[0] * hw[1]
        if extra < 0 or (self.window_size and extra):
            raise ValueError(
                f'{num_tokens} tokens do not fit a map of {hw[0]} x {hw[1]}'
                + (': windows leave no room for tokens beside the map' if self.window_size else '')
            )
