"""The parts of the clip model.

Text encoder and denoiser are transformers' and diffusers' own classes with small configurations; to LTX's transformer, which
knows only relative positions, `Denoiser` adds features of the absolute one, and it turns the predicted clean clip into the
velocity that schedulers want. The autoencoder is our own: two cores do not train a convolutional one in an hour (README).
"""

import math
from types import SimpleNamespace

import torch
from diffusers import LTXVideoTransformer3DModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import T5Config, T5EncoderModel

import shapes

LATENT_CHANNELS = 128
SPATIAL_COMPRESSION = 32
TEMPORAL_COMPRESSION = 4
PATCH_VALUES = 3 * TEMPORAL_COMPRESSION * SPATIAL_COMPRESSION**2
LATENT_FRAMES = (shapes.FRAMES - 1) // TEMPORAL_COMPRESSION + 1
LATENT_SIDE = shapes.SIZE // SPATIAL_COMPRESSION
FRAME_TOKENS = LATENT_SIDE**2
TOKENS = LATENT_FRAMES * FRAME_TOKENS

PROMPT_TOKENS = 24  # what every prompt is padded to
TEXT_WIDTH = 128
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"

REFINER_CHANNELS, REFINER_FOLD = 64, 4
TIME_MIN = 0.05  # below it, noise is taken to be this much when the velocity is computed

FACT_SIZES = [len(shapes.COLOURS), len(shapes.KINDS), len(shapes.MOTIONS), len(shapes.BACKGROUNDS)]
SEEN_AFTER = 1

POSITION_WAVES = 4
POSITION_FEATURES = 3 * 2 * POSITION_WAVES
# What video_coords are at most, for waves that fit the clip: seconds, pixels, pixels.
POSITION_REACH = ((shapes.FRAMES - 1) / shapes.FRAME_RATE, shapes.SIZE, shapes.SIZE)


def tokenizer():
    """Whole words, lower case; a comma is a word; every text ends with `END`."""
    vocabulary = {token: index for index, token in enumerate([PAD, END, UNKNOWN, *shapes.words()])}
    result = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    result.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[.!?;:\"'()]"), "removed"), pre_tokenizers.Split(",", "isolated"),
        pre_tokenizers.WhitespaceSplit()])
    result.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])])
    result.enable_truncation(PROMPT_TOKENS)
    return result


def tokenize(words, texts):
    """Ids and mask, int64 [n, PROMPT_TOKENS]."""
    encoded = words.encode_batch(texts)
    ids = torch.zeros(len(texts), PROMPT_TOKENS, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(encoded):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        mask[row, : len(text.ids)] = 1
    return ids, mask


def text_encoder():
    config = T5Config(vocab_size=3 + len(shapes.words()), d_model=TEXT_WIDTH, d_kv=32, num_heads=4, num_layers=2,
                      d_ff=256, dropout_rate=0.0, pad_token_id=0, eos_token_id=1, initializer_factor=1.0)
    encoder = T5EncoderModel(config)
    with torch.no_grad():  # T5's embeddings start at a deviation of 1, which is much for words that learn slowly
        encoder.shared.weight.mul_(0.5)
    return encoder


class Refiner(nn.Module):
    """Sharpens frames [n, 3, f, h, w]: convolutions over each frame and its neighbours, of which the change is added."""

    def __init__(self):
        super().__init__()
        inner = 3 * REFINER_FOLD**2
        self.first = nn.Conv2d(3 * inner, REFINER_CHANNELS, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(REFINER_CHANNELS, REFINER_CHANNELS, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(REFINER_CHANNELS, inner, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, frames):
        n = frames.shape[0]
        # pixel_unshuffle, in operators that keep sizes open when they are exported.
        folded = frames.transpose(1, 2).unflatten(4, (-1, REFINER_FOLD)).unflatten(3, (-1, REFINER_FOLD))
        folded = folded.permute(0, 1, 2, 4, 6, 3, 5).flatten(2, 4)
        before = torch.cat([folded[:, :1], folded[:, :-1]], 1)
        after = torch.cat([folded[:, 1:], folded[:, -1:]], 1)
        hidden = nn.functional.silu(self.first(torch.cat([before, folded, after], 2).flatten(0, 1)))
        for layer in self.middle:
            hidden = hidden + nn.functional.silu(layer(hidden))
        change = nn.functional.pixel_shuffle(self.last(hidden), REFINER_FOLD)
        return frames + change.unflatten(0, (n, -1)).transpose(1, 2)


class Autoencoder(nn.Module):
    """Clips [n, 3, 4k + 1, 32h, 32w] to latents [n, LATENT_CHANNELS, k + 1, h, w] and back.

    Encoding is linear: the leading principal components of blocks of 4 frames × 32 × 32 pixels, the first frame being a
    block of its own, repeated. Decoding is their sum, sharpened by a small network.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(PATCH_VALUES))
        self.register_buffer("basis", torch.zeros(PATCH_VALUES, LATENT_CHANNELS))
        self.refiner = Refiner()

    def encode(self, clips):
        return ((blocks(clips) - self.mean) @ self.basis).permute(0, 4, 1, 2, 3)

    def linear(self, latents):
        return frames(latents.permute(0, 2, 3, 4, 1) @ self.basis.T + self.mean)

    def decode(self, latents):
        return self.refiner(self.linear(latents))


def blocks(clips):
    """[n, 3, 4k + 1, 32h, 32w] to [n, k + 1, h, w, PATCH_VALUES]."""
    time, side = TEMPORAL_COMPRESSION, SPATIAL_COMPRESSION
    clips = torch.cat([clips[:, :, :1].repeat(1, 1, time - 1, 1, 1), clips], 2)
    clips = clips.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, time))
    return clips.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def frames(values):
    """What `blocks` was made of; the first frame is the mean of its repetitions."""
    time, side = TEMPORAL_COMPRESSION, SPATIAL_COMPRESSION
    values = values.unflatten(4, (3, time, side, side)).permute(0, 4, 1, 5, 2, 6, 3, 7)
    clips = values.flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return torch.cat([clips[:, :, :time].mean(2, keepdim=True), clips[:, :, time:]], 2)


def pack(latents):
    """[n, c, f, h, w] to tokens [n, f·h·w, c], as LTXPipeline packs them."""
    return latents.flatten(2).transpose(1, 2)


def unpack(tokens):
    n, _, c = tokens.shape
    return tokens.transpose(1, 2).reshape(n, c, LATENT_FRAMES, LATENT_SIDE, LATENT_SIDE)


def coordinates(clips=1):
    """LTX's video_coords for a clip of the trained size, float32 [clips, 3, TOKENS]: seconds, then pixels down and right."""
    axes = [torch.arange(LATENT_FRAMES) * (TEMPORAL_COMPRESSION / shapes.FRAME_RATE),
            torch.arange(LATENT_SIDE) * SPATIAL_COMPRESSION, torch.arange(LATENT_SIDE) * SPATIAL_COMPRESSION]
    grid = torch.stack(torch.meshgrid(*[axis.float() for axis in axes], indexing="ij"))
    return grid.reshape(1, 3, -1).repeat(clips, 1, 1)


def stretched(video_coords):
    """Coordinates with the last latent frame at the time that it was trained with, whatever the frame rate."""
    seconds = video_coords[:, :1]
    last = seconds.amax(-1, keepdim=True).clamp(min=1e-3)
    return torch.cat([seconds / last * POSITION_REACH[0], video_coords[:, 1:]], 1)


class Denoiser(nn.Module):
    """LTX's transformer, by its own argument names; the velocity noise − clean is `sample`.

    The network itself predicts the clean tokens: those lie near a surface of few dimensions, noise does not (Li and He 2025,
    "Back to Basics: Let Denoising Generative Models Denoise").
    """

    def __init__(self, width=256, layers=5, heads=8):
        super().__init__()
        self.inner = LTXVideoTransformer3DModel(
            in_channels=LATENT_CHANNELS + POSITION_FEATURES, out_channels=LATENT_CHANNELS, num_layers=layers,
            num_attention_heads=heads, attention_head_dim=width // heads, cross_attention_dim=width,
            caption_channels=TEXT_WIDTH)
        waves = math.pi / 2 * 2.0 ** torch.arange(POSITION_WAVES)
        self.register_buffer("waves", waves[None, None, None] / torch.tensor(POSITION_REACH)[None, None, :, None],
                             persistent=False)

    def forward(self, hidden_states, encoder_hidden_states, timestep, encoder_attention_mask, video_coords,
                return_dict=False):
        video_coords = stretched(video_coords)
        phase = (video_coords.transpose(1, 2)[..., None] * self.waves).flatten(2)
        inputs = torch.cat([hidden_states, phase.sin(), phase.cos()], -1)
        clean = self.inner(inputs, encoder_hidden_states, timestep, encoder_attention_mask,
                           video_coords=video_coords, return_dict=False)[0]
        share = (timestep / 1000).clamp(min=TIME_MIN)
        share = share[..., None] if timestep.dim() == 2 else share[:, None, None]
        velocity = (hidden_states - clean) / share
        return SimpleNamespace(sample=velocity) if return_dict else (velocity,)


class Guesses(nn.Module):
    """What every token knows of the scene, as guesses at the facts of `facts_of`; for training only."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, sum(FACT_SIZES))

    def loss(self, hidden, facts):
        """Mean cross entropy of the guesses of all tokens [n, t, width] at `facts` [n, 4], −100 being unknown."""
        facts = facts[:, None].expand(-1, hidden.shape[1], -1)
        guesses = self.linear(hidden).split(FACT_SIZES, -1)
        return sum(nn.functional.cross_entropy(guess.flatten(0, 1), fact.flatten())
                   for guess, fact in zip(guesses, facts.unbind(-1))) / len(FACT_SIZES)


def facts_of(scenes):
    """Colour, kind, motion and background as numbers, int64 [n, 4]."""
    return torch.tensor([[list(shapes.COLOURS).index(s.colour), shapes.KINDS.index(s.kind),
                          shapes.MOTIONS.index(s.motion), list(shapes.BACKGROUNDS).index(s.background)] for s in scenes])


class ClipModel(nn.Module):
    """Text encoder and denoiser: what learns together. Times are 0 (clean) to 1 (noise).

    `said` and `seen` are guesses from the tokens of the text and, after the block SEEN_AFTER, of the clip.
    """

    def __init__(self, width=256, **denoiser):
        super().__init__()
        self.text = text_encoder()
        self.denoiser = Denoiser(width, **denoiser)
        self.said, self.seen = Guesses(TEXT_WIDTH), Guesses(width)

    def encode(self, ids, mask, told=False):
        """The encoder is not told which tokens are padding: LTXPipeline does not say it, LTXConditionPipeline does."""
        return self.text(input_ids=ids, attention_mask=mask if told else torch.ones_like(mask)).last_hidden_state

    def velocity(self, tokens, times, text, mask):
        """`times` is [n], or [n, TOKENS] where some tokens are clean."""
        return self.denoiser(tokens, text, times * 1000, mask,
                             coordinates(len(tokens)).to(tokens.device))[0]


def shift(u, by):
    """Spends more of 0..1 near 1, as FlowMatchEulerDiscreteScheduler's `shift`."""
    return by * u / (1 + (by - 1) * u)


def schedule(steps, by):
    """Times of LTXPipeline's steps, falling from 1, with the final 0: [steps + 1]."""
    return torch.cat([shift(torch.linspace(1, 1 / steps, steps), by), torch.zeros(1)])


@torch.no_grad()
def sample(velocity, tokens, times):
    """Euler's method from `tokens` at times[0] to times[-1]; velocity(tokens, time)."""
    for now, then in zip(times, times[1:]):
        tokens = tokens + (then - now) * velocity(tokens, now.expand(len(tokens)).to(tokens.device))
    return tokens
