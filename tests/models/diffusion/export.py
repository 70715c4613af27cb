"""Writes a diffusers pipeline of the LTX or Wan kind as a folder of ONNX graphs that Mote serves.

`export_pipeline(pipeline, folder)` does all of it; the functions for single parts take modules that
need not be diffusers' own, as long as their `forward` has the same arguments.

    model_index.json  tokenizer/  scheduler/scheduler_config.json
    text_encoder/model.onnx   input_ids, attention_mask i64 [b, s] -> last_hidden_state [b, s, d]
    transformer/model.onnx    LTX: hidden_states [b, tokens, c], encoder_hidden_states [b, s, d],
                              timestep [b, tokens], encoder_attention_mask i64 [b, s],
                              video_coords [b, 3, tokens] -> sample [b, tokens, c]
                              Wan: hidden_states [b, c, f, h, w], timestep [b] (or [b, tokens]),
                              encoder_hidden_states [b, s, d] -> sample [b, c, f, h, w]
    vae_decoder/model.onnx    latent_sample [1, c, f, h, w] -> sample [1, 3, frames, H, W], -1..1
    vae_encoder/model.onnx    sample [1, 3, frames, H, W] -> latent_sample [1, c, f, h, w] (the mode)
    */config.json             as diffusers writes them

`video_coords` are the pixel coordinates (in seconds, rows, columns) that rotary embeddings are made of:
with them as an input one graph serves every size and frame rate, and tokens of further pictures.

Wan's autoencoder loops over latent frames and carries what its convolutions saw, so its graphs hold one
frame count each; `frames` says which.

    pip install torch diffusers transformers onnx onnxruntime    # made with torch 2.15, diffusers 0.42.1
"""

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


def write(module, inputs, outputs, dynamic, file):
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
        compare(inputs, module(*inputs.values()), file)


def compare(inputs, want, file):
    """That ONNX Runtime computes with the file what torch did."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (have,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    want = want.numpy()
    difference = float(abs(have - want).max())
    size = float(abs(want).max())
    assert difference <= 1e-4 * max(size, 1.0), f"{file}: {difference} of {size}"


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


def export_text_encoder(encoder, folder, tokens=8):
    """Any encoder of transformers whose first output is `last_hidden_state`."""
    ids = torch.ones(2, tokens, dtype=torch.long)
    mask = torch.ones(2, tokens, dtype=torch.long)
    axes = {0: "batch", 1: "sequence"}
    write(
        TextEncoder(encoder),
        dict(input_ids=ids, attention_mask=mask),
        ["last_hidden_state"],
        dict(input_ids=axes, attention_mask=axes, last_hidden_state=axes),
        pathlib.Path(folder) / FILE,
    )


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
    """What `WanAttnProcessor` computes, without pictures among the text."""

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None
    ):
        of = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(of))
        query, key, value = (t.unflatten(2, (attn.heads, -1)) for t in (query, key, attn.to_v(of)))
        if rotary_emb is not None:
            query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
        heads = (t.transpose(1, 2) for t in (query, key, value))
        mixed = torch.nn.functional.scaled_dot_product_attention(*heads)
        mixed = mixed.transpose(1, 2).flatten(2, 3)
        return attn.to_out[1](attn.to_out[0](mixed))


class WanTransformer(torch.nn.Module):
    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, hidden_states, timestep, encoder_hidden_states):
        return self.transformer(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            return_dict=False,
        )[0]


def export_wan_transformer(transformer, folder, expand_timesteps=False, text_tokens=8):
    """`expand_timesteps`: a timestep for each token, as Wan 2.2 TI2V wants."""
    config = transformer.config

    def inputs(b, f, h, w, s):
        tokens = f * h * w // (config.patch_size[1] * config.patch_size[2])
        shape = (b, tokens) if expand_timesteps else (b,)
        return dict(
            hidden_states=torch.randn(b, config.in_channels, f, h, w),
            timestep=torch.full(shape, 500.0),
            encoder_hidden_states=torch.randn(b, s, config.text_dim),
        )

    video = {0: "batch", 2: "frames", 3: "height", 4: "width"}
    dynamic = dict(
        hidden_states=video,
        timestep={0: "batch", 1: "tokens"} if expand_timesteps else {0: "batch"},
        encoder_hidden_states={0: "batch", 1: "sequence"},
        sample=video,
    )
    file = pathlib.Path(folder) / FILE
    module = WanTransformer(transformer)
    other = inputs(1, 3, 8, 4, text_tokens + 1)
    with torch.no_grad():
        want = module(*other.values())
    processors = transformer.attn_processors
    transformer.set_attn_processor(WanAttention())
    write(module, inputs(2, 2, 4, 6, text_tokens), ["sample"], dynamic, file)
    transformer.set_attn_processor(processors)
    compare(other, want, file)


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


def export_pipeline(pipeline, folder, frames=17, encoder_frames=None):
    """A whole pipeline of diffusers, of one of the classes LTXPipeline, LTXImageToVideoPipeline,
    LTXConditionPipeline, WanPipeline, WanImageToVideoPipeline."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = dict(_class_name=type(pipeline).__name__)
    for key in ("boundary_ratio", "expand_timesteps"):
        if pipeline.config.get(key):
            index[key] = pipeline.config[key]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    export_text_encoder(pipeline.text_encoder, folder / "text_encoder")
    encoder = pipeline.text_encoder.config
    (folder / "text_encoder" / "config.json").write_text(
        json.dumps({k: getattr(encoder, k) for k in ("d_model", "vocab_size")}) + "\n"
    )
    is_ltx = type(pipeline).__name__.startswith("LTX")
    for name in ("transformer", "transformer_2"):
        part = getattr(pipeline, name, None)
        if part is None:
            continue
        if is_ltx:
            config = part.config
            export_ltx_transformer(
                part, folder / name, config.in_channels, config.caption_channels
            )
        else:
            expand = bool(pipeline.config.get("expand_timesteps"))
            export_wan_transformer(part, folder / name, expand)
        write_config(part, folder / name / "config.json")
    export_vae(pipeline.vae, folder, frames, encoder_frames)
