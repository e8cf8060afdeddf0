"""The demo model's networks: Stable Diffusion 1.5's architecture, only narrower and shallower.

They are plain diffusers and transformers classes, so that what they save is the genuine diffusers layout.
"""
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

CONTEXT = 77      # tokens of a prompt, as in CLIP
HIDDEN = 128      # width of the text states = the UNet's cross_attention_dim
NATIVE = 128      # native picture size in pixels


def make_vae(channels=(32, 64, 96, 128)):
    """KL auto-encoder with 4 latent channels and a factor of 8; vae_init.py needs channels[0] / 4 norm groups."""
    levels = len(channels)
    return AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4, sample_size=NATIVE,
                         block_out_channels=channels, layers_per_block=1, norm_num_groups=channels[0] // 4,
                         down_block_types=("DownEncoderBlock2D",) * levels,
                         up_block_types=("UpDecoderBlock2D",) * levels, scaling_factor=0.18215)


def make_unet(channels=(64, 96, 192, 256)):
    """Three cross-attention levels and a plain one, as in SD 1.5, with heads of width 32; the deeper ones cost little, since they see few latents.

    `attention_head_dim` is the NUMBER of heads there.
    """
    crossed = len(channels) - 1
    return UNet2DConditionModel(sample_size=NATIVE // 8, in_channels=4, out_channels=4, layers_per_block=1,
                                block_out_channels=channels, norm_num_groups=16, cross_attention_dim=HIDDEN,
                                attention_head_dim=tuple(c // 32 for c in channels),
                                down_block_types=("CrossAttnDownBlock2D",) * crossed + ("DownBlock2D",),
                                up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * crossed)


def make_text(vocabulary):
    """CLIP text encoder; trained with a compact vocabulary, exported with CLIP's 49,408 rows."""
    return CLIPTextModel(CLIPTextConfig(vocab_size=vocabulary, hidden_size=HIDDEN, intermediate_size=4 * HIDDEN,
                                        num_hidden_layers=4, num_attention_heads=4,
                                        max_position_embeddings=CONTEXT, hidden_act="quick_gelu",
                                        projection_dim=HIDDEN, bos_token_id=vocabulary - 2,
                                        eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1))
