"""Writes a diffusers pipeline of the LTX, LTX-2 or Wan kind as a folder of ONNX graphs that Mote serves.

`export_pipeline(pipeline, folder)` does all of it; the functions for single parts take modules that
need not be diffusers' own, as long as their `forward` has the same arguments.

    model_index.json  tokenizer/  scheduler/scheduler_config.json
    text_encoder/model.onnx   input_ids, attention_mask i64 [b, s] -> last_hidden_state [b, s, d]
    transformer/model.onnx    LTX: hidden_states [b, tokens, c], encoder_hidden_states [b, s, d],
                              timestep [b, tokens], encoder_attention_mask i64 [b, s],
                              video_coords [b, 3, tokens] -> sample [b, tokens, c]
                              Wan: hidden_states [b, c, f, h, w], timestep [b] (or [b, tokens]),
                              encoder_hidden_states [b, s, d] -> sample [b, c, f, h, w];
                              where it looks at pictures encoder_hidden_states_image [b, n, e], and
                              where it is steered (VACE) control_hidden_states [b, v, f, h, w]
                              LTX-2: as LTX, with audio_hidden_states [b, m, a], audio_encoder_hidden_states
                              [b, s, e], audio_encoder_attention_mask, sigma [b], audio_timestep [b],
                              audio_coords [b, 1, m, 2] -> audio_sample [b, m, a] as well; video_coords are
                              [b, 3, tokens, 2], where each token begins and ends
    connectors/model.onnx     LTX-2: text_encoder_hidden_states [1, s, d], attention_mask i64 [1, s] ->
                              video_text_embedding, audio_text_embedding and, unless all counts,
                              text_attention_mask i64 [1, s]
    image_encoder/model.onnx  pixel_values [b, 3, h, w] -> image_embeds [b, n, e] (the layer before the last)
    audio_vae_decoder/model.onnx  latent_sample [1, c, l, m] -> sample [1, channels, time, mel bins]
    vocoder/model.onnx        mel_spectrogram [1, channels, time, mel bins] -> waveform [1, channels, samples]
    vae_decoder/model.onnx    latent_sample [1, c, f, h, w] -> sample [1, 3, frames, H, W], -1..1
    vae_encoder/model.onnx    sample [1, 3, frames, H, W] -> latent_sample [1, c, f, h, w] (the mode)
    */config.json             as diffusers writes them

`video_coords` are the pixel coordinates (in seconds, rows, columns) that rotary embeddings are made of:
with them as an input one graph serves every size and frame rate, and tokens of further pictures.

Wan's autoencoder loops over latent frames and carries what its convolutions saw, so its graphs hold one
frame count each; `frames` says which.

    pip install torch diffusers transformers onnx onnxruntime    # made with torch 2.15, diffusers 0.42.1
"""

import contextlib
import json
import pathlib
import unittest.mock
import warnings

import onnx
import onnxruntime
import torch

OPSET = 20
FILE = "model.onnx"


def rms_norm(sample, normalized_shape, weight=None, eps=None):
    """`torch.nn.functional.rms_norm` in operators that the tracing exporter knows."""
    eps = torch.finfo(sample.dtype).eps if eps is None else eps
    axes = tuple(range(-len(normalized_shape), 0))
    normed = sample * torch.rsqrt(sample.pow(2).mean(axes, keepdim=True) + eps)
    return normed if weight is None else normed * weight


def repeat_interleave(tensor, repeats, dim=0, of=torch.Tensor.repeat_interleave):
    """`torch.Tensor.repeat_interleave` by an axis from the front: one of -1 makes the exporter put what
    it stands for in the place of every other -1 in the graph, those of reshapes included."""
    return of(tensor, repeats, dim=dim % tensor.dim())


def write(module, inputs, outputs, dynamic, file, tolerance=1e-4):
    """Traces `module` with `inputs` (name -> tensor) and writes it to `file`.

    `dynamic` names open dimensions: tensor -> {axis: name}. The tracing exporter is used, as the
    newer one fixes what it finds to be equal (a batch of one, a latent frame of one)."""
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    module = module.eval()
    for part in module.modules():
        # The same for whole factors, and known to the exporter.
        if isinstance(part, torch.nn.Upsample) and part.mode == "nearest-exact":
            part.mode = "nearest"
        # ONNX Runtime takes no dilation with a padding that it is to find itself.
        if isinstance(part, torch.nn.Conv1d) and part.padding == "same":
            around = [d * (k - 1) for d, k in zip(part.dilation, part.kernel_size)]
            assert not any(count % 2 for count in around)
            part.padding = tuple(count // 2 for count in around)
    norm = unittest.mock.patch("torch.nn.functional.rms_norm", rms_norm)
    axes = unittest.mock.patch("torch.Tensor.repeat_interleave", repeat_interleave)
    with torch.no_grad(), warnings.catch_warnings(), norm, axes:
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(str(file))
    # Where in the exporter's source each node came from is of no use, and depends on the machine.
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            # ONNX counts axes of a transposition from the front only.
            if node.op_type == "Transpose" and attribute.name == "perm":
                rank = len(attribute.ints)
                attribute.ints[:] = [axis % rank for axis in attribute.ints]
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    with torch.no_grad():
        compare(inputs, module(*inputs.values()), file, tolerance)


def compare(inputs, want, file, tolerance=1e-4):
    """That ONNX Runtime computes with the file what torch did."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    taken = {it.name for it in session.get_inputs()}
    have = session.run(None, {k: v.numpy() for k, v in inputs.items() if k in taken})
    want = [want] if isinstance(want, torch.Tensor) else want
    for have, want in zip(have, want, strict=True):
        want = want.numpy()
        difference = float(abs(have - want).max())
        size = float(abs(want).max())
        assert difference <= tolerance * max(size, 1.0), f"{file}: {difference} of {size}"


def write_config(part, file, **more):
    """diffusers' config of `part`, and `more`, as `file`."""
    config = {k: v for k, v in dict(part.config).items() if not k.startswith("_")}
    config["_class_name"] = type(part).__name__
    config.update(more)
    text = json.dumps(config, indent=2, sort_keys=True, default=list)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


class TextEncoder(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        return self.encoder(input_ids, attention_mask=attention_mask)[0]


class LayeredTextEncoder(TextEncoder):
    """What all layers say of a token, side by side, as LTX-2 takes it."""

    def forward(self, input_ids, attention_mask):
        told = self.encoder(input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return torch.stack(told.hidden_states, dim=-1).flatten(2, 3)


def export_text_encoder(encoder, folder, tokens=8, wrapper=TextEncoder):
    """Any encoder of transformers whose first output is `last_hidden_state`."""
    ids = torch.ones(2, tokens, dtype=torch.long)
    mask = torch.ones(2, tokens, dtype=torch.long)
    axes = {0: "batch", 1: "sequence"}
    write(
        wrapper(encoder),
        dict(input_ids=ids, attention_mask=mask),
        ["last_hidden_state"],
        dict(input_ids=axes, attention_mask=axes, last_hidden_state=axes),
        pathlib.Path(folder) / FILE,
    )


class ImageEncoder(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values):
        return self.encoder(pixel_values, output_hidden_states=True).hidden_states[-2]


def export_image_encoder(encoder, processor, folder):
    """A CLIP vision model, and the processor of pictures that stands in front of it."""
    folder = pathlib.Path(folder)
    side = encoder.config.image_size
    write(
        ImageEncoder(encoder),
        dict(pixel_values=torch.randn(1, 3, side, side)),
        ["image_embeds"],
        {},
        folder / "image_encoder" / FILE,
    )
    processor.save_pretrained(folder / "image_processor")


class LtxTransformer(torch.nn.Module):
    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(
        self,
        hidden_states,
        encoder_hidden_states,
        timestep,
        encoder_attention_mask,
        video_coords,
    ):
        return self.transformer(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            timestep=timestep,
            encoder_attention_mask=encoder_attention_mask,
            video_coords=video_coords,
            return_dict=False,
        )[0]


def export_ltx_transformer(transformer, folder, channels, caption, text_tokens=8):
    """`channels` of a token, `caption`: elements of the text encoder's vectors."""
    b, n, s = 2, 12, text_tokens
    inputs = dict(
        hidden_states=torch.randn(b, n, channels),
        encoder_hidden_states=torch.randn(b, s, caption),
        timestep=torch.full((b, n), 500.0),
        encoder_attention_mask=torch.ones(b, s, dtype=torch.long),
        video_coords=torch.rand(b, 3, n),
    )
    dynamic = dict(
        hidden_states={0: "batch", 1: "tokens"},
        encoder_hidden_states={0: "batch", 1: "sequence"},
        timestep={0: "batch", 1: "tokens"},
        encoder_attention_mask={0: "batch", 1: "sequence"},
        video_coords={0: "batch", 2: "tokens"},
        sample={0: "batch", 1: "tokens"},
    )
    file = pathlib.Path(folder) / FILE
    write(LtxTransformer(transformer), inputs, ["sample"], dynamic, file)


def rotate(hidden_states, cos, sin):
    """Wan's rotary embedding: diffusers writes into slices, which the exporter fixes to one size."""
    first, second = hidden_states.unflatten(3, (-1, 2)).unbind(4)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    turned = [first * cos - second * sin, first * sin + second * cos]
    return torch.stack(turned, dim=4).flatten(3)


class WanAttention:
    """What `WanAttnProcessor` computes; of what is attended to, the first `image_tokens` are a picture's."""

    image_tokens = 0

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None
    ):
        of = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        image = None
        if attn.add_k_proj is not None:
            image, of = of[:, : self.image_tokens], of[:, self.image_tokens :]
        heads = lambda tensor: tensor.unflatten(2, (attn.heads, -1))
        query, key = heads(attn.norm_q(attn.to_q(hidden_states))), heads(attn.norm_k(attn.to_k(of)))
        if rotary_emb is not None:
            query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
        mixed = self.mix(query, key, heads(attn.to_v(of)))
        if image is not None:
            key = heads(attn.norm_added_k(attn.add_k_proj(image)))
            mixed = mixed + self.mix(query, key, heads(attn.add_v_proj(image)))
        return attn.to_out[1](attn.to_out[0](mixed))

    @staticmethod
    def mix(*heads):
        heads = (t.transpose(1, 2) for t in heads)
        mixed = torch.nn.functional.scaled_dot_product_attention(*heads)
        return mixed.transpose(1, 2).flatten(2, 3)


class WanTransformer(torch.nn.Module):
    """Takes what it is given further by the names in `further`."""

    def __init__(self, transformer, further=()):
        super().__init__()
        self.transformer, self.further = transformer, further

    def forward(self, hidden_states, timestep, encoder_hidden_states, *further):
        further = dict(zip(self.further, further, strict=True))
        image = further.get(IMAGE)
        if image is not None and self.transformer.config.pos_embed_seq_len is not None:
            # Two pictures, which diffusers has as two items.
            further[IMAGE] = image.unflatten(1, (2, -1)).flatten(0, 1)
        return self.transformer(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            return_dict=False,
            **further,
        )[0]


IMAGE, CONTROL = "encoder_hidden_states_image", "control_hidden_states"


def export_wan_transformer(transformer, folder, expand_timesteps=False, text_tokens=8, image_tokens=0):
    """`expand_timesteps`: a timestep for each token, as Wan 2.2 TI2V wants. `image_tokens`: vectors of
    all pictures that it looks at, where it looks at any."""
    config = transformer.config
    control = getattr(config, "vace_in_channels", None)

    def inputs(b, f, h, w, s):
        tokens = f * h * w // (config.patch_size[1] * config.patch_size[2])
        shape = (b, tokens) if expand_timesteps else (b,)
        given = dict(
            hidden_states=torch.randn(b, config.in_channels, f, h, w),
            timestep=torch.full(shape, 500.0),
            encoder_hidden_states=torch.randn(b, s, config.text_dim),
        )
        if image_tokens:
            given[IMAGE] = torch.randn(b, image_tokens, config.image_dim)
        if control:
            given[CONTROL] = torch.randn(b, control, f, h, w)
        return given

    video = {0: "batch", 2: "frames", 3: "height", 4: "width"}
    dynamic = dict(
        hidden_states=video,
        timestep={0: "batch", 1: "tokens"} if expand_timesteps else {0: "batch"},
        encoder_hidden_states={0: "batch", 1: "sequence"},
        sample=video,
    )
    traced = inputs(2, 2, 4, 6, text_tokens)
    dynamic |= {IMAGE: {0: "batch"}, CONTROL: video}
    dynamic = {name: axes for name, axes in dynamic.items() if name in traced or name == "sample"}
    file = pathlib.Path(folder) / FILE
    module = WanTransformer(transformer, list(traced)[3:])
    # diffusers' own attention takes texts of 512 tokens where it looks at pictures.
    other = inputs(1, 3, 8, 4, 512 if image_tokens else text_tokens + 1)
    with torch.no_grad():
        want = module(*other.values())
    processors = transformer.attn_processors
    attention = WanAttention()
    attention.image_tokens = image_tokens
    transformer.set_attn_processor(attention)
    write(module, traced, ["sample"], dynamic, file)
    transformer.set_attn_processor(processors)
    compare(other, want, file)


def rotate_split(tensor, angles):
    """LTX-2's rotary embedding of split halves, without writing into slices."""
    cos, sin = angles
    flat = tensor.ndim != 4 and cos.ndim == 4
    heads = tensor.unflatten(2, (cos.shape[1], -1)).transpose(1, 2) if flat else tensor
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.transpose(1, 2).flatten(2) if flat else turned


def argsort(values, dim=-1, stable=True):
    """`torch.argsort` of 0 and 1 along the last of two axes, where equal ones keep their order."""
    places = torch.arange(values.shape[1])
    keys = values.float() * values.shape[1] + places
    return keys.topk(values.shape[1], dim=1, largest=False).indices


def squeeze(tensor, *axis, of=torch.Tensor.squeeze):
    """`torch.Tensor.squeeze`; where it does nothing, it is not in the graph."""
    return tensor if axis and tensor.shape[axis[0]] != 1 else of(tensor, *axis)


def without_slices():
    """diffusers' LTX-2 with [`rotate_split`], [`argsort`] and [`squeeze`]."""
    stack = contextlib.ExitStack()
    name = "diffusers.models.transformers.transformer_ltx2.apply_split_rotary_emb"
    stack.enter_context(unittest.mock.patch(name, rotate_split))
    stack.enter_context(unittest.mock.patch("torch.argsort", argsort))
    stack.enter_context(unittest.mock.patch("torch.Tensor.squeeze", squeeze))
    return stack


class Connectors(torch.nn.Module):
    def __init__(self, connectors, padding_side):
        super().__init__()
        self.connectors, self.padding_side = connectors, padding_side

    def forward(self, text_encoder_hidden_states, attention_mask):
        made = self.connectors(
            text_encoder_hidden_states, attention_mask, padding_side=self.padding_side
        )
        # With learned registers in the place of padding, all counts.
        return made[:2] if has_registers(self.connectors) else made


def has_registers(connectors):
    return connectors.config.video_connector_num_learnable_registers is not None


def export_connectors(connectors, folder, tokens, padding_side="left"):
    """`tokens`: those that prompts are padded to; learned registers make the graph one of so many, and of
    one prompt."""
    config = connectors.config
    width = config.caption_channels * config.text_proj_in_factor

    def inputs(padding):
        mask = torch.ones(1, tokens, dtype=torch.long)
        mask[0, :padding] = 0
        return dict(text_encoder_hidden_states=torch.randn(1, tokens, width), attention_mask=mask)

    outputs = ["video_text_embedding", "audio_text_embedding"]
    outputs += [] if has_registers(connectors) else ["text_attention_mask"]
    file = pathlib.Path(folder) / FILE
    module = Connectors(connectors, padding_side)
    with without_slices():
        write(module, inputs(tokens // 2), outputs, {}, file)
    for padding in (0, 1, tokens - 1):
        other = inputs(padding)
        with torch.no_grad():
            compare(other, module(**other), file)


class Ltx2Transformer(torch.nn.Module):
    def __init__(self, transformer, use_cross_timestep):
        super().__init__()
        self.transformer, self.use_cross_timestep = transformer, use_cross_timestep

    def forward(
        self,
        hidden_states,
        audio_hidden_states,
        encoder_hidden_states,
        audio_encoder_hidden_states,
        timestep,
        audio_timestep,
        sigma,
        encoder_attention_mask,
        audio_encoder_attention_mask,
        video_coords,
        audio_coords,
    ):
        return self.transformer(
            hidden_states=hidden_states,
            audio_hidden_states=audio_hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            audio_encoder_hidden_states=audio_encoder_hidden_states,
            timestep=timestep,
            audio_timestep=audio_timestep,
            sigma=sigma,
            encoder_attention_mask=encoder_attention_mask,
            audio_encoder_attention_mask=audio_encoder_attention_mask,
            video_coords=video_coords,
            audio_coords=audio_coords,
            use_cross_timestep=self.use_cross_timestep,
            return_dict=False,
        )


def export_ltx2_transformer(transformer, folder, text_widths, use_cross_timestep=True, text_tokens=8):
    """`text_widths`: elements of the connectors' vectors for the clip and for its sound.
    `use_cross_timestep`: as the pipeline is called with; False for LTX-2.0. Guidance by perturbed blocks
    and by isolated modalities is not in the graph."""
    config = transformer.config

    def inputs(b, n, m, s):
        given = dict(
            hidden_states=torch.randn(b, n, config.in_channels),
            audio_hidden_states=torch.randn(b, m, config.audio_in_channels),
            encoder_hidden_states=torch.randn(b, s, text_widths[0]),
            audio_encoder_hidden_states=torch.randn(b, s, text_widths[1]),
            timestep=torch.rand(b, n) * 500,
            audio_timestep=torch.full((b,), 500.0),
            sigma=torch.full((b,), 500.0),
            encoder_attention_mask=torch.ones(b, s, dtype=torch.long),
            audio_encoder_attention_mask=torch.ones(b, s, dtype=torch.long),
            video_coords=torch.rand(b, 3, n, 2),
            audio_coords=torch.rand(b, 1, m, 2),
        )
        return given

    dynamic = dict(
        hidden_states={0: "batch", 1: "tokens"},
        audio_hidden_states={0: "batch", 1: "audio_tokens"},
        encoder_hidden_states={0: "batch", 1: "sequence"},
        audio_encoder_hidden_states={0: "batch", 1: "sequence"},
        timestep={0: "batch", 1: "tokens"},
        audio_timestep={0: "batch"},
        sigma={0: "batch"},
        encoder_attention_mask={0: "batch", 1: "sequence"},
        audio_encoder_attention_mask={0: "batch", 1: "sequence"},
        video_coords={0: "batch", 2: "tokens"},
        audio_coords={0: "batch", 2: "audio_tokens"},
        sample={0: "batch", 1: "tokens"},
        audio_sample={0: "batch", 1: "audio_tokens"},
    )
    # Its fastest rotary angles are thousands of turns, of which 32 bits leave that much to chance.
    tolerance = 1e-3
    file = pathlib.Path(folder) / FILE
    module = Ltx2Transformer(transformer, use_cross_timestep)
    with without_slices():
        outputs = ["sample", "audio_sample"]
        write(module, inputs(2, 12, 5, text_tokens), outputs, dynamic, file, tolerance)
    other = inputs(1, 7, 9, text_tokens + 1)
    with torch.no_grad():
        compare(other, module(**other), file, tolerance)


class AudioDecoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decode(latent_sample, return_dict=False)[0]


class Vocoder(torch.nn.Module):
    def __init__(self, vocoder):
        super().__init__()
        self.vocoder = vocoder

    def forward(self, mel_spectrogram):
        return self.vocoder(mel_spectrogram)


def export_audio(vae, vocoder, folder, latents=6):
    """The decoder of sound's latents, and what makes waves of its spectrograms. `latents`: to trace with."""
    folder = pathlib.Path(folder)
    config = vae.config
    bins = config.mel_bins // vae.mel_compression_ratio
    sample = torch.randn(1, config.latent_channels, latents, bins)
    write(
        AudioDecoder(vae),
        dict(latent_sample=sample),
        ["sample"],
        dict(latent_sample={2: "latents"}, sample={2: "time"}),
        folder / "audio_vae_decoder" / FILE,
    )
    write_config(
        vae,
        folder / "audio_vae_decoder" / "config.json",
        # What its config does not hold.
        latents_mean=vae.latents_mean.tolist(),
        latents_std=vae.latents_std.tolist(),
        temporal_compression_ratio=vae.temporal_compression_ratio,
        mel_compression_ratio=vae.mel_compression_ratio,
    )
    with torch.no_grad():
        spectrogram = AudioDecoder(vae)(sample)
    write(
        Vocoder(vocoder),
        dict(mel_spectrogram=spectrogram),
        ["waveform"],
        dict(mel_spectrogram={2: "time"}, waveform={2: "samples"}),
        folder / "vocoder" / FILE,
    )
    write_config(vocoder, folder / "vocoder" / "config.json")


class Decoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decode(latent_sample, return_dict=False)[0]


class TimedDecoder(Decoder):
    def forward(self, latent_sample, timestep):
        return self.vae.decode(latent_sample, timestep, return_dict=False)[0]


class Encoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        return self.vae.encode(sample).latent_dist.mode()


VIDEO = {3: "height", 4: "width"}


def export_vae_decoder(vae, folder, latents, frames_open=True):
    """`latents`: a shape `[1, c, f, h, w]` to trace with."""
    inputs = dict(latent_sample=torch.randn(*latents))
    module = Decoder(vae)
    if getattr(vae.config, "timestep_conditioning", False):
        module = TimedDecoder(vae)
        inputs["timestep"] = torch.full((latents[0],), 0.05)
    axes = {2: "latent_frames", **VIDEO} if frames_open else VIDEO
    out = {2: "frames", **VIDEO} if frames_open else VIDEO
    dynamic = dict(latent_sample=axes, sample=out)
    write(module, inputs, ["sample"], dynamic, pathlib.Path(folder) / FILE)


def export_vae_encoder(vae, folder, sample, frames_open=True):
    """`sample`: a shape `[1, 3, frames, H, W]` to trace with."""
    axes = {2: "frames", **VIDEO} if frames_open else VIDEO
    out = {2: "latent_frames", **VIDEO} if frames_open else VIDEO
    write(
        Encoder(vae),
        dict(sample=torch.randn(*sample)),
        ["latent_sample"],
        dict(sample=axes, latent_sample=out),
        pathlib.Path(folder) / FILE,
    )


def export_vae(vae, folder, frames, encoder_frames=None):
    """Both graphs and their configs. `frames` only matters for Wan's, whose graphs are fixed to it."""
    folder = pathlib.Path(folder)
    config = vae.config
    is_wan = hasattr(config, "z_dim")
    if is_wan:
        channels, time, space = config.z_dim, config.scale_factor_temporal, config.scale_factor_spatial
        more = {}
    else:
        channels = config.latent_channels
        time, space = vae.temporal_compression_ratio, vae.spatial_compression_ratio
        # Buffers of LTX's, which its config does not hold.
        more = dict(
            latents_mean=vae.latents_mean.tolist(),
            latents_std=vae.latents_std.tolist(),
            spatial_compression_ratio=space,
            temporal_compression_ratio=time,
        )
    latents = (1, channels, (frames - 1) // time + 1, 2, 3)
    export_vae_decoder(vae, folder / "vae_decoder", latents, frames_open=not is_wan)
    sample = (1, 3, encoder_frames or frames, 2 * space, 3 * space)
    export_vae_encoder(vae, folder / "vae_encoder", sample, frames_open=not is_wan)
    for part in ("vae_decoder", "vae_encoder"):
        write_config(vae, folder / part / "config.json", **more)


def export_pipeline(pipeline, folder, frames=17, encoder_frames=None, prompt_tokens=1024):
    """A whole pipeline of diffusers, of one of the classes LTXPipeline, LTXImageToVideoPipeline,
    LTXConditionPipeline, LTX2Pipeline, LTX2ImageToVideoPipeline, WanPipeline, WanImageToVideoPipeline,
    WanVACEPipeline. `prompt_tokens`: those that prompts are padded to, for LTX-2's connectors."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = type(pipeline).__name__
    index = dict(_class_name=name)
    for key in ("boundary_ratio", "expand_timesteps"):
        if pipeline.config.get(key):
            index[key] = pipeline.config[key]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    is_ltx2 = name.startswith("LTX2")
    wrapper = LayeredTextEncoder if is_ltx2 else TextEncoder
    export_text_encoder(pipeline.text_encoder, folder / "text_encoder", wrapper=wrapper)
    encoder = pipeline.text_encoder.config.to_dict()
    encoder = encoder.get("text_config", encoder)
    keys = ("d_model", "hidden_size", "vocab_size")
    (folder / "text_encoder" / "config.json").write_text(
        json.dumps({k: encoder[k] for k in keys if k in encoder}) + "\n"
    )
    image_tokens = 0
    if getattr(pipeline, "image_encoder", None) is not None:
        export_image_encoder(pipeline.image_encoder, pipeline.image_processor, folder)
        vision = pipeline.image_encoder.config
        image_tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    for part in ("transformer", "transformer_2"):
        denoiser = getattr(pipeline, part, None)
        if denoiser is None:
            continue
        config = denoiser.config
        if is_ltx2:
            connectors = pipeline.connectors
            export_connectors(
                connectors, folder / "connectors", prompt_tokens, pipeline.tokenizer.padding_side
            )
            told = connectors.config
            widths = [told.caption_channels] * 2
            if told.per_modality_projections:
                widths = [told.video_hidden_dim, told.audio_hidden_dim]
            # LTX-2.0 projects the text itself, and knows no timestep of the other modality.
            crossed = not config.use_prompt_embeddings
            export_ltx2_transformer(denoiser, folder / part, widths, crossed)
        elif name.startswith("LTX"):
            export_ltx_transformer(
                denoiser, folder / part, config.in_channels, config.caption_channels
            )
        else:
            expand = bool(pipeline.config.get("expand_timesteps"))
            looks = getattr(config, "image_dim", None) is not None
            pair = 2 if getattr(config, "pos_embed_seq_len", None) else 1
            export_wan_transformer(
                denoiser, folder / part, expand, image_tokens=image_tokens * pair if looks else 0
            )
        write_config(denoiser, folder / part / "config.json")
    export_vae(pipeline.vae, folder, frames, encoder_frames)
    if is_ltx2:
        export_audio(pipeline.audio_vae, pipeline.vocoder, folder)
