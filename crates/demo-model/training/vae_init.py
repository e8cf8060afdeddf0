"""Linear initialisation of a diffusers AutoencoderKL, which makes the untrained network a working codec.

A small auto-encoder started from random weights spends hours learning to carry plain colours, because every GroupNorm
divides amplitudes away.
Here latents 0..2 start as the mean colour of each 8x8 block and the decoder paints them back:
residual branches and the mid attention start at zero, shortcuts copy channels, down is a 2x2 mean and up is nearest, so
the trunk is linear; colours travel as +f/-f pairs, since silu(f) - silu(-f) == f; and every group of the output layers'
GroupNorm also holds a constant +K/-K pair, so that its deviation is about K and amplitudes survive.
It needs norm_num_groups = block_out_channels[0] / 4; all of it stays trainable.
"""
import torch

K = 2.0  # amplitude of the constant pairs


@torch.no_grad()
def linear_init(vae, seed=0, logvar=-7.0):
    """Initialises `vae` in place and returns it; `logvar` is the fixed log-variance of the posterior."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    for m in vae.modules():
        kind = type(m).__name__
        if kind == "ResnetBlock2D":
            m.conv2.weight.zero_()
            m.conv2.bias.zero_()
            if m.conv_shortcut is not None:
                m.conv_shortcut.weight.copy_(shortcut(*m.conv_shortcut.weight.shape[:2], random)[..., None, None])
                m.conv_shortcut.bias.zero_()
        elif kind == "Attention":
            m.to_out[0].weight.zero_()
            m.to_out[0].bias.zero_()
        elif kind in ("Downsample2D", "Upsample2D"):
            m.conv.weight.zero_()
            m.conv.bias.zero_()
            for c in range(m.conv.weight.shape[0]):
                if kind == "Downsample2D":
                    m.conv.weight[c, c, :2, :2] = .25
                else:
                    m.conv.weight[c, c, 1, 1] = 1.
    pairs_in(vae.encoder.conv_in, random)
    pairs_in(vae.decoder.conv_in, random)
    pairs_out(vae.encoder.conv_out, 1.1, 4)
    pairs_out(vae.decoder.conv_out, 1.48, 3)
    for conv, n in ((vae.quant_conv, 8), (vae.post_quant_conv, 4)):
        conv.weight.copy_(torch.eye(n)[..., None, None])
        conv.bias.zero_()
    vae.quant_conv.weight[4:] = 0
    vae.quant_conv.bias[4:] = logvar
    return vae


def shortcut(outputs, inputs, random):
    """Copies the input channels, or the first 12 (the pairs) where the width shrinks; the rest are small mixtures."""
    w = torch.zeros(outputs, inputs)
    if outputs > inputs:
        w[:inputs] = torch.eye(inputs)
        w[inputs:] = random(outputs - inputs, inputs) * .5 / inputs ** .5
    else:
        w[:12, :12] = torch.eye(12)
        w[12:] = random(outputs - 12, inputs) / inputs ** .5
    return w


def pairs_in(conv, random):
    """Input channel k becomes (+f, -f, +K, -K) in group k; the other channels are small random features."""
    w, b = conv.weight, conv.bias
    w.copy_(random(*w.shape) * .5 / (w.shape[1] * 9) ** .5)
    b.zero_()
    for k in range(3):
        w[4 * k:4 * k + 4] = 0
        w[4 * k, k, 1, 1], w[4 * k + 1, k, 1, 1] = 1., -1.
        b[4 * k + 2], b[4 * k + 3] = K, -K


def pairs_out(conv, gain, outputs):
    """Reads the pairs back into the first three output channels."""
    conv.weight.mul_(.1)
    conv.bias.zero_()
    for k in range(3):
        conv.weight[k] = 0
        conv.weight[k, 4 * k, 1, 1], conv.weight[k, 4 * k + 1, 1, 1] = gain, -gain
    conv.weight[outputs:] = 0
