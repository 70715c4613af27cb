"""What `tests/bench/clip` measures Mote against: the same graphs in plain loops of Python, onnxruntime and numpy.

A process of its own, started by that program. The first line of standard input says what to load, every further
one asks for a clip, and each is answered with one line. Inputs and outputs are bound to memory that stays, so
that nothing is copied which need not be.
"""

import json
import os
import sys
import time
import tomllib
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "models/diffusion"))
from noise import gaussian  # noqa: E402

FILE = "model.onnx"
# Stream of the noise that the first shot begins from.
INITIAL = 0
RIFE_MULTIPLE, ANIMESR_MULTIPLE, ANIMESR_SCALE, ANIMESR_STATE = 32, 4, 4, 64


class Session:
    """A graph whose inputs and outputs stay where they are for as long as their shapes do."""

    seconds = 0.0

    def __init__(self, path, said):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = said["threads"], 1
        if not said["library_defaults"]:
            # As the daemon has it.
            options.enable_mem_pattern = False
            spins = "1" if said["threads"] > 1 else "0"
            options.add_session_config_entry("session.intra_op.allow_spinning", spins)
            options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
            options.add_session_config_entry("session.force_spinning_stop", "1")
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self.binding = self.session.io_binding()
        self.input_names = [one.name for one in self.session.get_inputs()]
        self.bound = {}

    def bind(self, name, array, is_output=False):
        bind = self.binding.bind_output if is_output else self.binding.bind_input
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self.bound[name] = array
        return array

    def zeros(self, name, shape, dtype=np.float32, is_output=False):
        """Memory of this shape that `name` is bound to."""
        have = self.bound.get(name)
        if have is not None and have.shape == tuple(shape):
            return have
        return self.bind(name, np.zeros(shape, dtype), is_output)

    def run(self):
        began = time.monotonic()
        self.session.run_with_iobinding(self.binding)
        Session.seconds += time.monotonic() - began


class Clip:
    """Raw frames on their way to a file, and when the first that was computed was there."""

    def __init__(self, path):
        self.file = open(path, "wb", buffering=0)
        self.first, self.frames, self.write_seconds = None, 0, 0.0

    def write(self, frame, is_computed=True):
        began = time.monotonic()
        self.file.write(frame)
        now = time.monotonic()
        self.write_seconds += now - began
        self.frames += 1
        if is_computed and self.first is None:
            self.first = now

    def figures(self, began, media_seconds):
        self.file.close()
        now = time.monotonic()
        return {
            "clip_s": now - began,
            "first_frame_s": self.first - began,
            "library_s": Session.seconds,
            "media_s": media_seconds + self.write_seconds,
            "frames": self.frames,
        }


def bytes_of(planes):
    """u8 `[h, w, 3]` of planes `[3, h, w]`, 0..1."""
    scaled = np.clip(planes, 0, 1) * np.float32(255)
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8).transpose(1, 2, 0))


class Generation:
    """A pipeline of LTX's kind, without guidance."""

    def __init__(self, said):
        from tokenizers import Tokenizer

        folder = Path(said["folder"])
        read = lambda *names: json.loads(folder.joinpath(*names).read_text())
        manifest = folder / "mote.toml"
        self.spec = tomllib.loads(manifest.read_text()).get("generation", {}) if manifest.exists() else {}
        if read("model_index.json")["_class_name"] != "LTXPipeline":
            sys.exit(f"{folder} is no LTXPipeline")
        parts = ["text_encoder", "transformer", "vae_decoder"]
        self.text, self.denoiser, self.decoder = (Session(folder / part / FILE, said) for part in parts)
        self.scheduler, self.vae = read("scheduler", "scheduler_config.json"), read("vae_decoder", "config.json")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer/tokenizer.json"))
        self.tokens = self.spec.get("prompt_tokens", 128)

    def sigmas(self, steps, elements):
        own = self.spec.get("sigmas", [])
        config = self.scheduler
        sigmas = np.array(own) if len(own) == steps else np.linspace(1, 1 / steps, steps)
        if config["use_dynamic_shifting"]:
            spread = config["max_image_seq_len"] - config["base_image_seq_len"]
            slope = (config["max_shift"] - config["base_shift"]) / spread
            shift = np.exp(elements * slope + config["base_shift"] - slope * config["base_image_seq_len"])
            sigmas = shift / (shift + 1 / sigmas - 1)
        else:
            sigmas = config["shift"] * sigmas / (1 + (config["shift"] - 1) * sigmas)
        if terminal := config.get("shift_terminal"):
            sigmas = 1 - (1 - sigmas) / ((1 - sigmas[-1]) / (1 - terminal))
        return np.append(sigmas, 0).astype(np.float32)

    def encode(self, prompt):
        encoded = self.tokenizer.encode(prompt).ids
        ids = self.text.zeros("input_ids", (1, self.tokens), np.int64)
        pad = self.tokenizer.token_to_id("<pad>") or 0
        ids[0] = encoded + [pad] * (self.tokens - len(encoded))
        if "attention_mask" in self.text.input_names:
            self.text.zeros("attention_mask", (1, self.tokens), np.int64)[...] = 1
        width = self.text.session.get_outputs()[0].shape[2]
        vectors = self.text.zeros("last_hidden_state", (1, self.tokens, width), is_output=True)
        self.text.run()
        mask = np.zeros((1, self.tokens), np.int64)
        mask[0, : len(encoded)] = 1
        return vectors, mask

    def clip(self, asked):
        channels, space = self.vae["latent_channels"], self.vae["spatial_compression_ratio"]
        time_ratio = self.vae["temporal_compression_ratio"]
        latent = (asked["frames"] - 1) // time_ratio + 1, asked["height"] // space, asked["width"] // space
        tokens = int(np.prod(latent))
        noise = gaussian(asked["seed"], INITIAL, channels * tokens)
        clip = Clip(asked["out"])
        began = time.monotonic()
        vectors, mask = self.encode(asked["prompt"])
        bind = self.denoiser.bind
        sample = self.denoiser.zeros("hidden_states", (1, tokens, channels))
        sample[0] = noise.reshape(channels, tokens).T
        output = self.denoiser.zeros("sample", sample.shape, is_output=True)
        bind("encoder_hidden_states", vectors)
        bind("encoder_attention_mask", mask)
        axes = [np.arange(side, dtype=np.float32) for side in latent]
        grid = np.meshgrid(axes[0] * time_ratio / asked["frame_rate"], axes[1] * space, axes[2] * space, indexing="ij")
        bind("video_coords", np.stack([axis.ravel() for axis in grid])[None].astype(np.float32))
        timestep = self.denoiser.zeros("timestep", self.timestep_shape(tokens))
        sigmas = self.sigmas(asked["steps"], tokens)
        for sigma, following in zip(sigmas[:-1], sigmas[1:]):
            timestep[...] = sigma * np.float32(self.scheduler["num_train_timesteps"])
            self.denoiser.run()
            sample += (following - sigma) * output
        self.decode(sample, latent, clip, asked)
        return clip.figures(began, 0.0)

    def timestep_shape(self, tokens):
        inputs = self.denoiser.session.get_inputs()
        rank = next(len(one.shape) for one in inputs if one.name == "timestep")
        return (1, tokens)[:rank]

    def decode(self, sample, latent, clip, asked):
        mean, std = (np.array(self.vae[key], np.float32) for key in ("latents_mean", "latents_std"))
        video = self.decoder.zeros("latent_sample", (1, mean.size, *latent))
        video.reshape(mean.size, -1)[...] = (sample[0] * (std / np.float32(self.vae["scaling_factor"])) + mean).T
        shape = (1, 3, asked["frames"], asked["height"], asked["width"])
        pixels = self.decoder.zeros("sample", shape, is_output=True)
        self.decoder.run()
        for frame in range(asked["frames"]):
            clip.write(bytes_of(pixels[0, :, frame] * np.float32(0.5) + np.float32(0.5)))


class Frames:
    """The frames of a clip file, as f32 planes `[1, 3, h, w]` in 0..1, padded to a multiple."""

    def __init__(self, path, multiple, mode):
        import av

        self.container, self.multiple, self.mode, self.seconds = av.open(path), multiple, mode, 0.0
        self.decoded = self.container.decode(video=0)

    def next(self):
        began = time.monotonic()
        frame = next(self.decoded, None)
        image = None if frame is None else frame.to_ndarray(format="rgb24")
        self.seconds += time.monotonic() - began
        if image is None:
            return None, None
        planes = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        pads = [(0, 0), (0, 0), *((0, -side % self.multiple) for side in image.shape[:2])]
        return np.ascontiguousarray(image), np.pad(planes, pads, self.mode)


class Interpolation:
    """RIFE, twice as many frames."""

    def __init__(self, said):
        self.session = Session(next(Path(said["folder"]).glob("*.onnx")), said)

    def clip(self, asked):
        clip = Clip(asked["out"])
        began = time.monotonic()
        frames, session = Frames(asked["clip"], RIFE_MULTIPLE, "edge"), self.session
        image, before = frames.next()
        height, width = image.shape[:2]
        session.zeros("timestep", (1, 1, 1, 1))[...] = 0.5
        between = session.zeros("mid", before.shape, is_output=True)
        clip.write(image, is_computed=False)
        while True:
            image, after = frames.next()
            if image is None:
                return clip.figures(began, frames.seconds)
            session.bind("img0", before)
            session.bind("img1", after)
            session.run()
            clip.write(bytes_of(between[0, :, :height, :width]))
            clip.write(image, is_computed=False)
            before = after


class Restoration:
    """AnimeSR, its state carried from frame to frame."""

    def __init__(self, said):
        self.session = Session(next(Path(said["folder"]).glob("*.onnx")), said)

    def clip(self, asked):
        clip = Clip(asked["out"])
        began = time.monotonic()
        frames, session = Frames(asked["clip"], ANIMESR_MULTIPLE, "reflect"), self.session
        image, now = frames.next()
        height, width = (side * ANIMESR_SCALE for side in image.shape[:2])
        _, _, rows, columns = now.shape
        large, small = (1, 3, rows * ANIMESR_SCALE, columns * ANIMESR_SCALE), (1, ANIMESR_STATE, rows, columns)
        pairs = [np.zeros(large, np.float32) for _ in range(2)], [np.zeros(small, np.float32) for _ in range(2)]
        around = session.zeros("frames", (1, 9, rows, columns))
        before = now
        while now is not None:
            _, after = frames.next()
            around[0] = np.concatenate([before, now, now if after is None else after], 1)[0]
            for (given, made), (old, new) in zip([("prev_sr", "sr"), ("state", "next_state")], pairs):
                session.bind(given, old)
                session.bind(made, new, is_output=True)
            session.run()
            for pair in pairs:
                pair.reverse()
            clip.write(bytes_of(pairs[0][0][0, :, :height, :width]))
            before, now = now, after
        return clip.figures(began, frames.seconds)


LOOPS = {"generation": Generation, "interpolation": Interpolation, "restoration": Restoration}


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    loop = None
    for line in sys.stdin:
        said = json.loads(line)
        if loop is None:
            loop, answer = LOOPS[said["loop"]](said), "ready"
        else:
            Session.seconds = 0.0
            answer = loop.clip(said)
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
