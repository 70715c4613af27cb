"""Encode clips once, for the denoiser to train on.

    python cache_latents.py VAE.pt LATENTS.pt --clips 16000

The file holds `latents` f16 [clips, TOKENS, LATENT_CHANNELS] (normalised), `scenes`, `free` [clips] (true: only to be
trained with its first frame given), and the normalisation `mean` and `deviation` [LATENT_CHANNELS].
"""

import argparse
import time

import numpy as np
import torch

import shapes
from networks import Autoencoder, pack
from training import use_average

FREE_SHARE = 0.2
BATCH = 32


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae")
    parser.add_argument("out")
    parser.add_argument("--clips", type=int, default=16000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vae = use_average(Autoencoder(), options.vae).to(options.device)
    known, rng, started = shapes.split()[0], np.random.default_rng(options.seed), time.time()
    # Every combination equally often, in random order.
    order = np.concatenate([rng.permutation(len(known)) for _ in range(-(-options.clips // len(known)))])[: options.clips]
    scenes = [shapes.Scene(*known[i], shapes.pick(("black", "black", "white", "grey"), rng)) for i in order]
    free = rng.random(options.clips) < FREE_SHARE
    latents = []
    for start in range(0, options.clips, BATCH):
        part = slice(start, min(start + BATCH, options.clips))
        track = np.stack([shapes.tracks(scene, rng, is_free) for scene, is_free in zip(scenes[part], free[part])])
        coded = vae.encode(shapes.render(scenes[part], track).to(options.device))
        latents.append(pack(coded).half().cpu())
        if start % (BATCH * 50) == 0:
            print(f"{start} clips, {time.time() - started:.0f} s", flush=True)
    latents = torch.cat(latents)
    flat = latents.flatten(0, 1).float()
    mean, deviation = flat.mean(0), flat.std(0)
    print(f"deviation of the channels {deviation.min():.3f} to {deviation.max():.3f}")
    # Half way to equal deviations: what matters most for a picture stays largest, and comes out of noise first.
    deviation = deviation.sqrt()
    deviation *= ((flat - mean) / deviation).square().mean().sqrt()
    latents = ((latents.float() - mean) / deviation).half()
    torch.save({"latents": latents, "scenes": [(s.colour, s.kind, s.motion, s.background) for s in scenes],
                "free": torch.from_numpy(free), "mean": mean, "deviation": deviation}, options.out)


if __name__ == "__main__":
    main()
