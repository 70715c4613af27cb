"""Prompt agreement on the HELD_OUT prompts, whose combinations of colour, kind and motion were never trained.

    python evaluate.py VAE.pt DENOISER.pt FEW.pt [--sheet SHEET.png]

Prints how often check.py sees what the prompt says: on true clips (what the check itself can do), on true clips that went
through the autoencoder, on the trained model's clips in 20 guided steps and in 4, and on the distilled model's in 4.
`--graphs FOLDER` measures the exported graphs instead, run by onnxruntime.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import shapes
from check import Checker
from distil import GUIDANCE, STEPS, guided
from networks import TOKENS, LATENT_CHANNELS, Autoencoder, ClipModel, coordinates, sample, schedule, tokenize, tokenizer, unpack
from sheet import contact_sheet
from train_denoiser import TIME_SHIFT
from training import use_average

NOISE_SEED = 7
ASPECTS = ("colour", "kind", "motion")
SHEET_CLIPS = 24


def agreement(clips, scenes, checker):
    """Share of clips that show the scene's colour, kind, motion, all three; and what was seen."""
    seen = [checker.look(clip) for clip in clips]
    right = np.array([[got == getattr(scene, aspect) for got, aspect in zip(look, ASPECTS)] for look, scene in zip(seen, scenes)])
    return [*right.mean(0), right.all(1).mean()], seen


def show(name, shares):
    print(f"{name:34}" + "".join(f"{aspect} {100 * share:5.1f} %  " for aspect, share in zip((*ASPECTS, "all"), shares)),
          flush=True)


def noise(count):
    return torch.randn(count, TOKENS, LATENT_CHANNELS, generator=torch.Generator().manual_seed(NOISE_SEED))


@torch.no_grad()
def generate(path, vae, captions, steps, guidance, first=None):
    """Clips for captions. `first`: clean tokens of the first latent frame, for image to video."""
    state = torch.load(path, map_location="cpu")
    model = use_average(ClipModel(**state["size"]), path)
    words, times, clips = tokenizer(), schedule(steps, TIME_SHIFT), []
    start = noise(len(captions))
    given = torch.zeros(len(captions), TOKENS, dtype=torch.bool)
    if first is not None:
        start[:, : first.shape[1]], given[:, : first.shape[1]] = first, True
    for part in torch.arange(len(captions)).split(40):
        ids, mask = tokenize(words, [captions[i] for i in part])
        none, none_mask = tokenize(words, [""] * len(part))
        velocity = guided(model, model.encode(ids, mask), mask, model.encode(none, none_mask), none_mask, given[part], guidance)
        latents = sample(velocity, start[part], times) * state["deviation"] + state["mean"]
        clips.append(vae.decode(unpack(latents)))
    return torch.cat(clips)


def generate_by_graphs(folder, captions):
    """The exported model in onnxruntime, as LTXPipeline runs it."""
    import onnxruntime

    folder = Path(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = {part: onnxruntime.InferenceSession(folder / part / "model.onnx", options)
               for part in ("text_encoder", "transformer", "vae_decoder")}
    config = json.loads((folder / "vae_decoder" / "config.json").read_text())
    mean, deviation = (np.float32(config[key]) for key in ("latents_mean", "latents_std"))
    words, times, clips = tokenizer(), schedule(STEPS, TIME_SHIFT).numpy(), []
    for caption, tokens in zip(captions, noise(len(captions)).numpy()):
        ids, mask = (part.numpy() for part in tokenize(words, [caption]))
        text, = session["text_encoder"].run(None, {"input_ids": ids, "attention_mask": np.ones_like(mask)})
        tokens = tokens[None]
        for now, then in zip(times, times[1:]):
            velocity, = session["transformer"].run(None, {
                "hidden_states": tokens, "encoder_hidden_states": text, "encoder_attention_mask": mask,
                "timestep": np.full((1, TOKENS), now * 1000, np.float32), "video_coords": coordinates().numpy()})
            tokens = tokens + (then - now) * velocity
        latents = unpack(torch.from_numpy(tokens * deviation + mean)).numpy()
        clips.append(torch.from_numpy(session["vae_decoder"].run(None, {"latent_sample": latents})[0]))
    return torch.cat(clips)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", nargs="?")
    parser.add_argument("trained", nargs="?")
    parser.add_argument("few", nargs="?")
    parser.add_argument("--graphs")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--count", type=int, default=shapes.HELD_OUT, help="only the first of the prompts, for a glance")
    parser.add_argument("--misses", action="store_true", help="say which clips show something else")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prompts, checker = shapes.held_out_prompts()[: options.count], Checker()
    scenes, captions = [scene for scene, _ in prompts], [caption for _, caption in prompts]
    rng = np.random.default_rng(NOISE_SEED)
    true = shapes.render(scenes, np.stack([shapes.tracks(scene, rng) for scene in scenes]))
    made = {"true clips": lambda: true}
    if options.graphs:
        made["exported graphs, 4 steps"] = lambda: generate_by_graphs(options.graphs, captions)
    elif options.vae:
        vae = use_average(Autoencoder(), options.vae)
        made["true clips, autoencoder"] = lambda: torch.cat([vae.decode(vae.encode(part)) for part in true.split(20)])
    if options.trained:
        for name, steps, guidance in (("20 guided steps", 20, options.guidance), ("4 guided steps", STEPS, options.guidance),
                                      ("4 steps, no guidance", STEPS, 1)):
            made[f"trained, {name}"] = lambda how=(steps, guidance): generate(options.trained, vae, captions, *how)
    if options.few:
        made["distilled, 4 steps"] = lambda: generate(options.few, vae, captions, STEPS, 1)
    for name, make in made.items():
        with torch.no_grad():
            clips = make()
        shares, seen = agreement(clips, scenes, checker)
        show(name, shares)
        if options.misses:
            for scene, caption, look in zip(scenes, captions, seen):
                if look[:3] != scene.combination:
                    print(f"    {caption!r}: {scene.combination} looks like {look[:3]}")
        if options.sheet:
            path = options.sheet.with_stem(f"{options.sheet.stem}-{name.replace(',', '').replace(' ', '-')}")
            contact_sheet(clips[:SHEET_CLIPS], captions[:SHEET_CLIPS], path=path)


if __name__ == "__main__":
    main()
