"""Makes tiny random pipelines of the LTX, the LTX-2 and the Wan kind, and what diffusers computes with them.

Each folder is a pipeline as `export.py` writes them. `golden.json` lists cases: what was asked for, of
which folder and class, and in which file of `golden/` the clip is: u16 little-endian
`[frames, height, width, 3]`, 65535 for 1; sound is f32 `[samples, channels]` beside it. Noise is Mote's own (`gaussian` in
backends/pipeline/src/diffusion/noise.rs), computed here with numpy and handed to diffusers.

    pip install torch diffusers transformers onnx numpy
    python pipelines.py [ltx] [ltx2] [wan] [wan-pictures]    # made with torch 2.15, diffusers 0.42.1, transformers 5.24, onnx 1.23.2
"""

import contextlib
import json
import pathlib
import sys
import unittest.mock

import numpy as np
import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
    WanVideoToVideoPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel
from transformers import UMT5Config, UMT5EncoderModel

import export
from noise import gaussian

HERE = pathlib.Path(__file__).parent
SEED = 20_261_128
PROMPT_TOKENS = 12
# Clips that are all grey, or the same whatever is asked for, would prove nothing.
SPREAD_MIN = 0.12
WORDS = "a red green blue square circle triangle moves left right up down turns grows".split()


# Streams of backends/pipeline/src/diffusion/job: those of the first segment.
INITIAL, DECODE, AUDIO = 0, 1, 2


@contextlib.contextmanager
def noise_of(seed, module, streams=(INITIAL,)):
    """Calls of `randn_tensor` in a module of diffusers get the seed's noise, stream after stream."""
    left = list(streams)

    def randn_tensor(shape, **_):
        stream = left.pop(0) if left else INITIAL
        values = gaussian(seed, stream, int(np.prod(shape)))
        return torch.from_numpy(values.reshape(tuple(shape)))

    with unittest.mock.patch.object(module, "randn_tensor", randn_tensor):
        yield


# Pictures that the tests make by the same rule.


def picture(width, height, number):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    values = x * (3 + number) + y * 5 + c * 60 + number * 40
    return Image.fromarray((values % 256).astype(np.uint8))


def video(width, height, frames):
    return [picture(width, height, n) for n in range(frames)]


# Parts.


def tokenizer():
    words = ["<pad>", "</s>", "<unk>", *WORDS]
    fast = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=PROMPT_TOKENS,
    )


def drawn(module, factor=1.0):
    """Weights large enough that every input shows in what comes out."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.dim() > 1:
                fan = value[0].numel()
                value.copy_(torch.randn_like(value) * factor / fan**0.5)
            elif name.endswith("bias"):
                value.copy_(torch.randn_like(value) * 0.1)
    return module.eval()


def text_encoder(kind, config):
    sizes = dict(
        vocab_size=len(WORDS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return drawn(kind(config(**sizes)), 1.5)


def ltx_transformer():
    return drawn(
        LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12,
            cross_attention_dim=24, num_layers=1, caption_channels=16,
        ),
        1.2,
    )


def ltx_vae(timestep_conditioning=False):
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True), decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3, upsample_residual=(False, False), upsample_factor=(1, 1),
        patch_size=2, timestep_conditioning=timestep_conditioning,
        encoder_causal=True, decoder_causal=False,
    )
    drawn(vae, 1.5)
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    vae.latents_std.copy_(torch.linspace(0.7, 1.4, 8))
    return vae


def ltx_scheduler(dynamic=True):
    """As LTX-Video's; LTXConditionPipeline's takes no shift by length."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=dynamic, base_shift=0.95, max_shift=2.05, shift_terminal=0.1 if dynamic else None,
        base_image_seq_len=1024, max_image_seq_len=4096,
    )


def to_u16(frames):
    return np.round(np.clip(frames, 0, 1) * 65535).astype("<u2")


class Goldens:
    def __init__(self):
        """Cases that are added replace those of the same name."""
        file = HERE / "golden.json"
        cases = json.loads(file.read_text()) if file.exists() else []
        self.cases = {case["name"]: case for case in cases}
        (HERE / "golden").mkdir(exist_ok=True)

    def add(self, name, folder, clip, sound=None, **request):
        """`clip`: `[f, h, w, 3]` in 0..1; `sound`: `[channels, samples]` in -1..1."""
        spread = float(clip.std())
        print(f"{name}: {clip.shape}, deviation {spread:.3f}")
        assert spread > SPREAD_MIN, "grey"
        (HERE / "golden" / f"{name}.u16").write_bytes(to_u16(clip).tobytes())
        shape = list(clip.shape)
        if sound is not None:
            sound = sound.float().numpy()
            print(f"  sound: {sound.shape}, deviation {sound.std():.3f}")
            assert sound.std() > SPREAD_MIN, "silence"
            # Samples of all channels side by side.
            file = HERE / "golden" / f"{name}.f32"
            file.write_bytes(np.ascontiguousarray(sound.T).astype("<f4").tobytes())
            request["sound"] = list(sound.T.shape)
        self.cases[name] = dict(name=name, folder=folder, shape=shape, **request)

    def write(self):
        lines = ",\n".join(json.dumps(case) for case in self.cases.values())
        (HERE / "golden.json").write_text(f"[\n{lines}\n]\n")


def mode(distribution, generator=None):
    return distribution.mode()


def run(pipe, request, streams=(INITIAL,), whole=False, **more):
    """The frames of diffusers' pipeline for a case's request, or all that it gives."""
    module = sys.modules[type(pipe).__module__]
    pipe.set_progress_bar_config(disable=True)
    keys = dict(prompt="prompt", negative_prompt="negative_prompt", steps="num_inference_steps",
                guidance="guidance_scale", guidance_low="guidance_scale_2", frame_rate="frame_rate")
    arguments = {to: request[of] for of, to in keys.items() if of in request}
    width, height, frames = request["width"], request["height"], request["frames"]
    patches = [
        noise_of(request["seed"], module, streams),
        # Mote's encoders give the mode of what diffusers' LTX pipelines draw from.
        unittest.mock.patch.object(DiagonalGaussianDistribution, "sample", mode),
    ]
    if "wan" in module.__name__:
        # What it cleans prompts with is not there without a further package; these need none.
        clean = lambda text: " ".join(text.split())
        patches.append(unittest.mock.patch.object(module, "prompt_clean", clean))
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        made = pipe(
            **arguments, width=width, height=height, output_type="np",
            **{"max_sequence_length": PROMPT_TOKENS, **more},
            **({} if "video" in more and not hasattr(pipe, "prepare_masks") else dict(num_frames=frames)),
        )
        return made if whole else made.frames[0]


def ltx(goldens):
    torch.manual_seed(SEED)
    parts = dict(
        text_encoder=text_encoder(T5EncoderModel, T5Config),
        tokenizer=tokenizer(), transformer=ltx_transformer(), vae=ltx_vae(),
    )
    pipe = LTXPipeline(scheduler=ltx_scheduler(), **parts)
    export.export_pipeline(pipe, HERE / "ltx")
    plain = dict(prompt="a red square moves left", seed=7, steps=4, guidance=1.0, width=32,
                 height=32, frames=9, frame_rate=25)
    other = dict(prompt="a blue circle turns", negative_prompt="green triangle", seed=2**40 + 3,
                 steps=5, guidance=3.0, width=64, height=32, frames=5, frame_rate=24)
    clips = {}
    for name, request in [
        ("ltx-plain", plain),
        ("ltx-guided", other),
        ("ltx-other-prompt", plain | dict(prompt="a blue circle grows")),
        ("ltx-other-seed", plain | dict(seed=8)),
    ]:
        clips[name] = run(pipe, request)
        goldens.add(name, "ltx", clips[name], **{"class": "LTXPipeline"}, **request)
    for other_name in ("ltx-other-prompt", "ltx-other-seed"):
        difference = np.abs(clips[other_name] - clips["ltx-plain"]).mean()
        print(f"  {other_name}: {difference:.3f} from ltx-plain")
        assert difference > 0.02
    image = LTXImageToVideoPipeline(scheduler=ltx_scheduler(), **parts)
    first = plain | dict(seed=9, guidance=2.0)
    frames = run(image, first, image=picture(32, 32, 0))
    goldens.add("ltx-image", "ltx", frames, **{"class": "LTXImageToVideoPipeline"},
                **first, first_image=0)
    condition = LTXConditionPipeline(scheduler=ltx_scheduler(False), **parts)
    both = plain | dict(seed=10, steps=6)
    conditions = [
        LTXVideoCondition(image=picture(32, 32, 0), frame_index=0),
        LTXVideoCondition(image=picture(32, 32, 1), frame_index=8),
    ]
    frames = run(condition, both, conditions=conditions, image_cond_noise_scale=0.0)
    goldens.add("ltx-first-and-last", "ltx", frames, **{"class": "LTXConditionPipeline"},
                **both, first_image=0, last_image=1)
    source = plain | dict(seed=11, steps=8, strength=0.6)
    latents = encoded(parts["vae"], video(32, 32, 9))
    frames = run(condition, source, latents=latents, denoise_strength=0.6)
    goldens.add("ltx-video", "ltx", frames, **{"class": "LTXConditionPipeline"}, **source, source=9)


def ltx2_parts():
    torch.manual_seed(SEED + 3)
    encoder = text_encoder(T5EncoderModel, T5Config)
    heads = dict(
        video_connector_num_attention_heads=2, video_connector_attention_head_dim=8,
        audio_connector_num_attention_heads=2, audio_connector_attention_head_dim=8,
    )
    connectors = LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=2, **heads, video_connector_num_layers=1,
        audio_connector_num_layers=1, video_connector_num_learnable_registers=4,
        audio_connector_num_learnable_registers=4, rope_type="split",
    )
    transformer = LTX2VideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12,
        cross_attention_dim=24, vae_scale_factors=(4, 8, 8), audio_in_channels=4,
        audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=8,
        audio_cross_attention_dim=16, num_layers=1, caption_channels=16, rope_type="split",
    )
    vae = AutoencoderKLLTX2Video(
        latent_channels=8, block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        down_block_types=("LTX2VideoDownBlock3D",) * 2,
        layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True), decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3, downsample_type=("spatiotemporal",) * 2,
        upsample_type=("spatiotemporal",) * 2, upsample_residual=(False, False),
        upsample_factor=(1, 1), patch_size=2,
    )
    drawn(vae, 1.5)
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    vae.latents_std.copy_(torch.linspace(0.7, 1.4, 8))
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=2, mel_bins=8,
    )
    drawn(audio_vae, 1.5)
    audio_vae.latents_mean.copy_(torch.linspace(-0.4, 0.4, 4))
    audio_vae.latents_std.copy_(torch.linspace(0.8, 1.3, 4))
    # 100 columns of a spectrogram a second become 8,000 samples.
    vocoder = LTX2Vocoder(
        in_channels=16, hidden_channels=16, upsample_kernel_sizes=[11, 8, 8], upsample_factors=[5, 4, 4],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], output_sampling_rate=8000,
    )
    return dict(
        tokenizer=tokenizer(), text_encoder=encoder, connectors=drawn(connectors, 1.5),
        transformer=drawn(transformer, 1.2), vae=vae, audio_vae=audio_vae,
        vocoder=drawn(vocoder, 1.15),
    )


def ltx2(goldens):
    parts = ltx2_parts()
    pipe = LTX2Pipeline(scheduler=ltx_scheduler(), **parts)
    pipe.tokenizer.padding_side = "left"
    export.export_pipeline(pipe, HERE / "ltx2", prompt_tokens=PROMPT_TOKENS)
    plain = dict(prompt="a red square moves left", seed=27, steps=4, guidance=1.0, width=32,
                 height=32, frames=9, frame_rate=25)
    # Without perturbed blocks and isolated modalities, as distilled models are run.
    alone = dict(stg_scale=0.0, modality_scale=1.0, audio_stg_scale=0.0, audio_modality_scale=1.0,
                 use_cross_timestep=False)
    off = dict(guidance_rescale=0.0, audio_guidance_rescale=0.0)
    streams = (INITIAL, AUDIO)
    guided = plain | dict(prompt="a blue circle turns", negative_prompt="green triangle", seed=28,
                          steps=5, guidance=3.0, width=64, frames=5, frame_rate=24)
    kind = {"class": "LTX2Pipeline"}
    sounds = {}
    for name, request, more in [
        ("ltx2-plain", plain, dict(audio_guidance_scale=1.0, **off)),
        ("ltx2-guided", guided, dict(audio_guidance_scale=5.0, **off)),
        ("ltx2-rescaled", guided, dict(audio_guidance_scale=5.0, guidance_rescale=0.7,
                                       audio_guidance_rescale=0.7)),
    ]:
        made = run(pipe, request, streams, whole=True, **alone, **more)
        keys = dict(guidance_audio="audio_guidance_scale", guidance_rescale="guidance_rescale")
        goldens.add(name, "ltx2", made.frames[0], made.audio[0], **kind, **request,
                    **{to: more[of] for to, of in keys.items()})
        sounds[name] = made.audio[0]
    other = run(pipe, plain | dict(prompt="a blue circle grows"), streams, whole=True,
                audio_guidance_scale=1.0, **alone, **off).audio[0]
    difference = float((other - sounds["ltx2-plain"]).abs().mean())
    print(f"  another prompt sounds {difference:.3f} different")
    assert difference > 0.02
    image = LTX2ImageToVideoPipeline(scheduler=ltx_scheduler(), **parts)
    first = plain | dict(seed=31, guidance=2.0)
    more = dict(audio_guidance_scale=2.0, **off)
    made = run(image, first, streams, whole=True, image=picture(32, 32, 0), image_crf=0, **alone, **more)
    goldens.add("ltx2-image", "ltx2", made.frames[0], made.audio[0], guidance_audio=2.0,
                guidance_rescale=0.0, **{"class": "LTX2ImageToVideoPipeline"}, **first, first_image=0)


def wan_transformer(in_channels=4, **more):
    return drawn(
        WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12,
            in_channels=in_channels, out_channels=4, text_dim=16, freq_dim=16, ffn_dim=32,
            num_layers=1, rope_max_seq_len=32, **more,
        ),
        1.2,
    )


def wan_vae():
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1,
        temperal_downsample=[True, True], scale_factor_spatial=4, scale_factor_temporal=4,
        latents_mean=[-0.3, 0.1, 0.2, -0.1], latents_std=[0.8, 1.1, 1.3, 0.9],
    )
    return drawn(vae, 1.5)


def wan_parts():
    torch.manual_seed(SEED + 1)
    encoder = text_encoder(UMT5EncoderModel, UMT5Config)
    return dict(tokenizer=tokenizer(), text_encoder=encoder, vae=wan_vae())


def schedule():
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def wan(goldens):
    parts = wan_parts()
    high, low = wan_transformer(), wan_transformer()
    pipe = WanPipeline(
        scheduler=schedule(), transformer=high, transformer_2=low, boundary_ratio=0.7, **parts
    )
    export.export_pipeline(pipe, HERE / "wan", frames=5)
    pipe.scheduler.set_timesteps(6)
    high_steps = int((pipe.scheduler.timesteps >= 700).sum())
    print(f"  {high_steps} of 6 steps are the high-noise expert's")
    assert 0 < high_steps < 6
    plain = dict(prompt="a red  square moves left", seed=17, steps=6, guidance=1.0, width=32,
                 height=16, frames=5)
    guided = plain | dict(prompt="a blue circle turns", negative_prompt="green triangle",
                          seed=2**63 + 5, guidance=4.0, guidance_low=2.0, width=16, height=32)
    kind = {"class": "WanPipeline"}
    for name, request in [("wan-plain", plain), ("wan-guided", guided)]:
        goldens.add(name, "wan", run(pipe, request), **kind, **request)
    alone = WanPipeline(scheduler=schedule(), transformer=high, **parts)
    one = run(alone, plain)
    assert np.abs(one - run(pipe, plain)).mean() > 0.02, "the second expert makes no difference"
    again = WanVideoToVideoPipeline(scheduler=schedule(), transformer=high, **parts)
    source = plain | dict(seed=18, steps=8, strength=0.6)
    clip = run(again, source, video=video(32, 16, 5), strength=0.6)
    goldens.add("wan-video", "wan", clip, **kind, **source, source=5, experts=1)
    # Pictures as channels: a mask of four and four latents, beside the noise.
    beside = wan_transformer(12)
    export.export_wan_transformer(beside, HERE / "wan-image" / "transformer")
    export.write_config(beside, HERE / "wan-image" / "transformer" / "config.json")
    image = WanImageToVideoPipeline(scheduler=schedule(), transformer=beside, **parts)
    kind = {"class": "WanImageToVideoPipeline", "over": "wan-image", "experts": 1}
    first = plain | dict(seed=19, guidance=3.0)
    clip = run(image, first, image=picture(32, 16, 0))
    goldens.add("wan-image", "wan", clip, **kind, **first, first_image=0)
    clip = run(image, first, image=picture(32, 16, 0), last_image=picture(32, 16, 1))
    goldens.add("wan-first-and-last", "wan", clip, **kind, **first, first_image=0, last_image=1)
    # A timestep for each token: the first frame is held.
    held = WanImageToVideoPipeline(
        scheduler=schedule(), transformer=high, expand_timesteps=True, **parts
    )
    folder = HERE / "wan-held"
    export.export_wan_transformer(high, folder / "transformer", expand_timesteps=True)
    export.write_config(high, folder / "transformer" / "config.json")
    export.export_vae_encoder(parts["vae"], folder / "vae_encoder", (1, 3, 1, 8, 12), frames_open=False)
    kind |= {"over": "wan-held", "expand_timesteps": True}
    clip = run(held, first | dict(seed=20), image=picture(32, 16, 2))
    goldens.add("wan-held", "wan", clip, **kind, **first | dict(seed=20), first_image=2)


def wan_pictures(goldens):
    """Denoisers in place of `wan/`'s that look at pictures: through an encoder of their own, or as a
    control (VACE). For the encoder, texts of 512 tokens are what diffusers takes."""
    parts = wan_parts()
    torch.manual_seed(SEED + 2)
    plain = dict(prompt="a red square moves left", seed=21, steps=6, guidance=3.0, width=32,
                 height=16, frames=5)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=8, patch_size=4, projection_dim=16,
    )
    looks = drawn(CLIPVisionModel(config), 1.5)
    processor = CLIPImageProcessor(size=dict(shortest_edge=8), crop_size=dict(height=8, width=8))
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    pictures = dict(image=picture(32, 16, 0))
    for folder, count in [("wan-clip", 1), ("wan-clip-pair", 2)]:
        denoiser = wan_transformer(
            12, image_dim=16, added_kv_proj_dim=24,
            pos_embed_seq_len=2 * tokens if count == 2 else None,
        )
        if count == 2:
            pictures["last_image"] = picture(32, 16, 1)
            denoiser.condition_embedder.image_embedder.pos_embed.data.normal_()
        export.export_wan_transformer(
            denoiser, HERE / folder / "transformer", image_tokens=count * tokens
        )
        export.write_config(denoiser, HERE / folder / "transformer" / "config.json")
        export.export_image_encoder(looks, processor, HERE / folder)
        pipe = WanImageToVideoPipeline(
            scheduler=schedule(), transformer=denoiser, image_encoder=looks,
            image_processor=processor, **parts,
        )
        clip = run(pipe, plain, **pictures, max_sequence_length=512)
        # Were the pictures' vectors left out, the clip would be another.
        nothing = lambda *_: torch.zeros(count, tokens, 16)
        with unittest.mock.patch.object(pipe, "encode_image", nothing):
            blind = run(pipe, plain, **pictures, max_sequence_length=512)
        difference = np.abs(clip - blind).mean()
        print(f"  {folder}: {difference:.3f} from a clip without looking")
        assert difference > 0.02
        goldens.add(
            folder, "wan", clip, **{"class": "WanImageToVideoPipeline"}, over=folder, experts=1,
            prompt_tokens=512, **plain, first_image=0, **({"last_image": 1} if count == 2 else {}),
        )
    steered = drawn(
        WanVACETransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
            out_channels=4, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
            vace_layers=[0, 1], vace_in_channels=2 * 4 + 4 * 4,
        ),
        1.2,
    )
    folder = HERE / "wan-vace" / "transformer"
    export.export_wan_transformer(steered, folder)
    export.write_config(steered, folder / "config.json")
    pipe = WanVACEPipeline(scheduler=schedule(), transformer=steered, **parts)
    kind = {"class": "WanVACEPipeline", "over": "wan-vace", "experts": 1}
    goldens.add("wan-vace-plain", "wan", run(pipe, plain), **kind, **plain)
    clip = run(pipe, plain, reference_images=[picture(32, 16, 0)])
    goldens.add("wan-vace-reference", "wan", clip, **kind, **plain, reference=0)
    given = torch.zeros(5, 1, 1, 1, dtype=torch.bool)
    given[[0, 4]] = True
    ends = [torch.from_numpy(np.asarray(picture(32, 16, n)).copy()).permute(2, 0, 1) for n in (0, 1)]
    # Grey but for the ends, which are not to be made.
    video = torch.full((5, 3, 16, 32), 0.5)
    video[0], video[4] = (end.float() / 255 for end in ends)
    mask = (~given).float().expand(5, 3, 16, 32)
    clip = run(pipe, plain, video=[video], mask=[mask], reference_images=[picture(32, 16, 2)])
    goldens.add("wan-vace-all", "wan", clip, **kind, **plain, first_image=0, last_image=1, reference=2)


def encoded(vae, pictures):
    """The latents of a clip as LTXConditionPipeline takes them."""
    pixels = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).float()
    pixels = (pixels / 127.5 - 1).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode()
    mean, std = (v.view(1, -1, 1, 1, 1) for v in (vae.latents_mean, vae.latents_std))
    return (latents - mean) / std


MADE = {"ltx": ltx, "ltx2": ltx2, "wan": wan, "wan-pictures": wan_pictures}


def main(names):
    print(f"seed {SEED}")
    goldens = Goldens()
    for name in names:
        MADE[name](goldens)
    goldens.write()


if __name__ == "__main__":
    main(sys.argv[1:] or list(MADE))
