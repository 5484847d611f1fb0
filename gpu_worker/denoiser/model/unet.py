"""The body of both UNets: input convolution, levels, and the way through them."""

from __future__ import annotations

from torch import Tensor, nn

from gpu_worker.denoiser.model.blocks import DownBlock, MidBlock, UpBlock
from gpu_worker.denoiser.model.resnet import TimestepEmbedding
from gpu_worker.denoiser.model.transformer import BlockConditions, TransformerBlock
from gpu_worker.denoiser.unet_config import UNetConfig


class UNetBody(nn.Module):
    """Input convolution, timestep embedding, down, middle and up levels."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], config.freq_shift)
        self.down_blocks = nn.ModuleList([DownBlock(config, level) for level in range(config.levels)])
        # Up before middle, as in the official module: reference blocks are paired in this order.
        self.up_blocks = nn.ModuleList([UpBlock(config, index) for index in range(config.levels)])
        self.mid_block = MidBlock(config) if config.mid_block else None
        # Spatial transformer blocks by name, in the order of their slots. A dict registers no module twice.
        self.transformer_blocks = {n: m for n, m in self.named_modules() if isinstance(m, TransformerBlock)}
        for slot, (name, block) in enumerate(self.transformer_blocks.items()):
            block.slot, block.name = slot, name

    def run(self, x: Tensor, conditions: BlockConditions) -> Tensor:
        """x (B·frames, width, h, w) after the input convolution → same shape."""
        skips = [x]
        for down in self.down_blocks:
            x, new = down(x, conditions)
            skips += new
        if self.mid_block is not None:
            x = self.mid_block(x, conditions)
        for up in self.up_blocks:
            x = up(x, skips, conditions)
        return x
