"""ESDNet, the spiking deraining network, in the order in which a picture runs through it.

Source: Song et al., "Learning A Spiking Neural Network for Efficient Image Deraining", IJCAI 2024.
Attribute names are the published checkpoint's, so its tensors load without a renaming table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.layers import LIF, MixedAttentionUnit, SeqConv2d, TDBatchNorm2d, folded, scu, unfolded
from esdnet_cli.model.neurons import cached_piece

# at which level the convolutions of each part read: what is enlarged comes to them as such
LEVELS = {
    "encoder_level1": 1, "down1_2": 1, "encoder_level2": 2, "down2_3": 2, "encoder_level3": 3, "decoder_level3": 3,
    "up3_2": 2, "reduce_chan_level2": 2, "decoder_level2": 2, "up2_1": 1, "decoder_level1": 1,
}  # fmt: skip


class OverlapPatchEmbed(nn.Module):
    """The first convolution, real-valued, of patches side by side: the same for every step, so it runs once."""

    def __init__(self, config: ESDNetConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.proj = nn.Conv2d(3 * config.patch**2, config.dim, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(F.pixel_unshuffle(image.to(self.proj.weight.dtype), self.patch))


class SpikingResidualBlock(nn.Module):
    """SRB: x + MAU(SCU(SCU(x)) + tdBN(conv3x3(x))); with `shortcut` = `spike` the last conv takes the first spikes.

    joint: the second convolution and the spike-driven shortcut as one, over the spikes of both (`lower` makes it).
    """

    def __init__(self, channels: int, config: ESDNetConfig) -> None:
        super().__init__()
        self.spike_driven = config.shortcut == "spike"
        self.residual = nn.Sequential(*scu(config, channels, channels), *scu(config, channels, channels, gain=0.2))
        self.shortcut = nn.Sequential(SeqConv2d(channels, channels, 3, padding=1, bias=False), TDBatchNorm2d(channels))
        self.attn = MixedAttentionUnit(channels, config.timesteps)
        self.joint: SeqConv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        neurons, conv, norm, second_neurons, *second = self.residual
        first_spikes = neurons(x)
        residual = second_neurons(norm(conv(first_spikes)))
        if self.joint is not None:
            return self.attn(self.joint(joined(first_spikes, residual)), None, x)
        for layer in second:
            residual = layer(residual)
        shortcut = self.shortcut(first_spikes if self.spike_driven else x)
        return self.attn(residual, shortcut, x)


class Down(nn.Module):
    """Halves height and width, doubles channels."""

    def __init__(self, channels: int, config: ESDNetConfig) -> None:
        super().__init__()
        # the published name; there is no pooling
        self.maxpool_conv = nn.Sequential(*scu(config, channels, 2 * channels, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Doubles height and width (bilinear, corners not aligned), halves channels."""

    def __init__(self, channels: int, config: ESDNetConfig) -> None:
        super().__init__()
        self.up = nn.Sequential(*scu(config, channels, channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        larger = F.interpolate(folded(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.up(unfolded(larger, len(x)))


class FeatureRefinement(nn.Module):
    """(1 - f) a + f x with channel attention a and pixel attention f, both of x [N, C, H, W]; not spiking.

    The result has the dtype of the convolutions, as the output convolution wants it.

    uniform: f is the same at every pixel, since of its last convolution only the bias is left; then the three are not
    computed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 8, 1)
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )
        self.sa = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(),
            nn.Conv2d(hidden, channels, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip
        self.uniform = False

    def leave_out_idle(self) -> None:
        """From now on, and for weights that stay as they are: compute no convolution that changes nothing."""
        last = self.sa[3]
        assert isinstance(last, nn.Conv2d)
        self.uniform = not last.weight.any()

    def forward(self, x: Tensor) -> Tensor:
        *convolutions, gate = self.sa
        first, last = convolutions[0], convolutions[-1]
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
        if self.uniform:
            assert last.bias is not None
            pixels = last.bias.view(1, -1, 1, 1)
        else:
            pixels = x.to(first.weight.dtype)
            for layer in convolutions:
                pixels = layer(pixels)
        channels = self.ca(x).to(x.dtype)
        if torch.is_grad_enabled():
            return torch.lerp(channels, x, gate(pixels).to(x.dtype)).to(first.weight.dtype)
        result = torch.empty_like(x, dtype=first.weight.dtype)
        group = max(cached_piece(x) // x[0].numel(), 1)  # on a CPU a few tiles at a time, which its cache holds
        of_tiles = (y.split(group) for y in (x, channels, pixels.expand(len(x), -1, -1, -1), result))
        for tile, channel, pixel, blended in zip(*of_tiles):
            if self.uniform:
                blended.copy_(torch.lerp(channel, tile, pixel.to(x.dtype).sigmoid()))
            else:
                f = pixel.to(x.dtype).sigmoid_()  # the gate, which needs no memory of its own
                blended.copy_(torch.lerp(channel, tile, f, out=f))
        return result


def joined(x: Tensor, y: Tensor) -> Tensor:
    """The channels of both [T, N, C, H, W], in the layout of their planes (five dimensions have none of their own)."""
    return unfolded(torch.cat((folded(x).to(y.dtype), folded(y)), dim=1), len(x))


class ESDNet(nn.Module):
    """The network.

    forward: rainy [N, 3, H, W], RGB in [0, 1], H and W multiples of `config.multiple` -> derained, same shape, not
    clamped. With patches of p pixels everything between runs at H/p x W/p.
    """

    def __init__(self, config: ESDNetConfig) -> None:
        super().__init__()
        self.config = config
        d = config.dim

        def level(channels: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(SpikingResidualBlock(channels, config) for _ in range(blocks)))

        encoder, decoder = config.encoder_blocks, config.decoder_blocks
        self.patch_embed = OverlapPatchEmbed(config)
        self.encoder_level1 = level(d, encoder[0])
        self.down1_2 = Down(d, config)
        self.encoder_level2 = level(2 * d, encoder[1])
        self.down2_3 = Down(2 * d, config)
        self.encoder_level3 = level(4 * d, encoder[2])
        self.decoder_level3 = level(4 * d, decoder[2])
        self.up3_2 = Up(4 * d, config)
        self.reduce_chan_level2 = nn.Sequential(*scu(config, 4 * d, 2 * d, kernel_size=1))
        self.decoder_level2 = level(2 * d, decoder[1])
        self.up2_1 = Up(2 * d, config)
        self.decoder_level1 = level(2 * d, decoder[0])
        self.refinement = FeatureRefinement(2 * d)
        self.output = nn.Sequential(nn.Conv2d(2 * d, 3 * config.patch**2, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image).expand(self.config.timesteps, -1, -1, -1, -1)  # [T, N, d, H, W]
        level1 = self.encoder_level1(x)
        level2 = self.encoder_level2(self.down1_2(level1))  # [T, N, 2d, H/2, W/2]
        x = self.encoder_level3(self.down2_3(level2))  # [T, N, 4d, H/4, W/4]
        x = self.up3_2(self.decoder_level3(x))
        x = joined(x, level2)
        del level2  # so that its memory is free for what comes
        x = joined(self.up2_1(self.decoder_level2(self.reduce_chan_level2(x))), level1)
        del level1
        x = self.decoder_level1(x)  # [T, N, 2d, H, W]
        x = sum(x[1:], start=x[0]) / len(x) if len(x) > 1 else x[0]  # [N, 2d, H, W]
        return F.pixel_shuffle(self.output(self.refinement(x)), self.config.patch) + image

    def spiking_convs(self) -> dict[str, tuple[str, ...]]:
        """Which convolutions the spikes of each neuron layer drive, by module name; all others are real-valued.

        A block's joint convolution is named as the two that it stands for.
        """
        driven: dict[str, tuple[str, ...]] = {}
        for name, module in self.named_modules():
            if isinstance(module, LIF):
                parent, _, index = name.rpartition(".")
                driven[name] = (f"{parent}.{int(index) + 1}",)
                block = parent.removesuffix(".residual")
                if index == "0" and block != parent and self.config.shortcut == "spike":
                    driven[name] += (f"{block}.shortcut.0",)
        return driven
