"""Linear initialisation of a diffusers AutoencoderKL.

A small KL-VAE started from random weights spends hours learning to carry plain colours, because every GroupNorm divides
amplitudes away (measured: after 600 steps it was still no better than one mean colour per crop). Here the untrained
network already IS a working codec: latents 0..2 = 8x8-block mean RGB, and the decoder paints them back. How:
  * residual branches and the mid attention start at zero (conv2 / to_out = 0), shortcuts copy channels, down = 2x2 mean,
    up = nearest -> the trunk is linear;
  * colours travel as +f/-f pairs, since silu(f) - silu(-f) == f exactly;
  * every GroupNorm group of the output layers also holds a +K/-K constant pair, so its std is ~K and amplitudes survive.
Needs norm_num_groups = block_out_channels[0] / 4. All of it stays trainable; the architecture is untouched."""
import torch

K = 2.0  # amplitude of the constant pairs


@torch.no_grad()
def linear_init(vae, seed=0, logvar=-7.0):
    g = torch.Generator().manual_seed(seed)
    rnd = lambda *s: torch.randn(*s, generator=g)
    for m in vae.modules():
        n = type(m).__name__
        if n == "ResnetBlock2D":
            m.conv2.weight.zero_(); m.conv2.bias.zero_()
            if m.conv_shortcut is not None:
                o, i = m.conv_shortcut.weight.shape[:2]
                w = torch.zeros(o, i)
                if o > i:
                    w[:i] = torch.eye(i); w[i:] = rnd(o - i, i) * .5 / i ** .5
                else:
                    w[:12, :12] = torch.eye(12); w[12:] = rnd(o - 12, i) / i ** .5
                m.conv_shortcut.weight.copy_(w[..., None, None]); m.conv_shortcut.bias.zero_()
        elif n == "Attention":
            m.to_out[0].weight.zero_(); m.to_out[0].bias.zero_()
        elif n == "Downsample2D":
            m.conv.weight.zero_(); m.conv.bias.zero_()
            for c in range(m.conv.weight.shape[0]):
                m.conv.weight[c, c, :2, :2] = .25
        elif n == "Upsample2D":
            m.conv.weight.zero_(); m.conv.bias.zero_()
            for c in range(m.conv.weight.shape[0]):
                m.conv.weight[c, c, 1, 1] = 1.

    def pairs(conv):  # input channel k -> (+f, -f, +K, -K) in group k, small random features elsewhere
        w, b = conv.weight, conv.bias
        i = w.shape[1]
        w.copy_(rnd(*w.shape) * .5 / (i * 9) ** .5); b.zero_()
        for k in range(3):
            w[4 * k:4 * k + 4] = 0
            w[4 * k, k, 1, 1], w[4 * k + 1, k, 1, 1] = 1., -1.
            b[4 * k + 2], b[4 * k + 3] = K, -K
    pairs(vae.encoder.conv_in); pairs(vae.decoder.conv_in)

    def unpair(conv, gain, nout):
        conv.weight.mul_(.1); conv.bias.zero_()
        for k in range(3):
            conv.weight[k] = 0
            conv.weight[k, 4 * k, 1, 1], conv.weight[k, 4 * k + 1, 1, 1] = gain, -gain
        conv.weight[nout:] = 0
    unpair(vae.encoder.conv_out, 1.1, 4); unpair(vae.decoder.conv_out, 1.48, 3)
    for q, n in ((vae.quant_conv, 8), (vae.post_quant_conv, 4)):
        q.weight.copy_(torch.eye(n)[..., None, None]); q.bias.zero_()
    vae.quant_conv.weight[4:] = 0
    vae.quant_conv.bias[4:] = logvar  # fixed small posterior noise
    return vae
