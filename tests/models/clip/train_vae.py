"""Make the autoencoder: principal components of blocks of clips, then a network that sharpens what they give back.

    python train_vae.py VAE.pt --minutes 6 [--resume]

Only the sharpening is trained, on true clips whose latents got a little noise: what a denoiser makes is not exact either.
Loss: squared and absolute error, pixels of the figure and its edge counting more (they are few).
"""

import argparse

import numpy as np
import torch

import shapes
from networks import LATENT_CHANNELS, Autoencoder, blocks
from sheet import contact_sheet
from training import Trainer, arguments

FREE_SHARE = 0.4
FIT_CLIPS, FIT_BLOCKS = 1600, 16000
FIGURE_WEIGHT = 4.0
NOISE_MAX = 0.1  # in the units of cache_latents.py's normalisation


def clips(known, count, rng):
    scenes = [shapes.sample(known, rng) for _ in range(count)]
    return scenes, shapes.render(scenes, np.stack([shapes.tracks(scene, rng, rng.random() < FREE_SHARE) for scene in scenes]))


@torch.no_grad()
def fit(model, known, rng):
    """Sets mean and basis to the principal components of FIT_BLOCKS random blocks; says how deviations fall."""
    some = torch.cat([blocks(clips(known, 50, rng)[1]).flatten(0, 3)[torch.randperm(1000)[: FIT_BLOCKS * 50 // FIT_CLIPS]]
                      for _ in range(FIT_CLIPS // 50)])
    model.mean.copy_(some.mean(0))
    _, values, basis = torch.svd_lowrank(some - model.mean, q=LATENT_CHANNELS + 32, niter=3)
    model.basis.copy_(basis[:, :LATENT_CHANNELS])
    deviation = values[:LATENT_CHANNELS] / len(some) ** 0.5
    print(f"deviations of the components fall from {deviation[0]:.2f} to {deviation[-1]:.2f}", flush=True)


def figure_weights(frames):
    """FIGURE_WEIGHT where the figure is, or within two pixels of it, else 1."""
    common = frames[:, :, :, ::4, ::4].flatten(2).median(2).values[:, :, None, None, None]
    figure = ((frames - common).abs().amax(1) > 0.05).float()
    near = torch.nn.functional.max_pool2d(figure, 5, 1, 2)
    return (1 + (FIGURE_WEIGHT - 1) * near)[:, None]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    arguments(parser)
    parser.set_defaults(minutes=6, rate=1e-3, batch=4)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    known, device = shapes.split()[0], options.device
    model = Autoencoder()
    if not options.resume:
        fit(model, known, np.random.default_rng(options.seed))
    trainer = Trainer(model.to(device), options.out, options, decay=0.995)
    rng = np.random.default_rng([options.seed, trainer.steps])
    print(f"seed {options.seed}, {sum(p.numel() for p in model.parameters())} parameters to train, {device}")
    while trainer.running():
        frames = clips(known, options.batch, rng)[1].to(device)
        with torch.no_grad():
            latents = model.encode(frames)
            deviation = latents.std((0, 2, 3, 4), keepdim=True)
            unit = (deviation * deviation.mean()).sqrt()
            spread = NOISE_MAX * torch.rand(len(latents), 1, 1, 1, 1, device=device) * unit
            rough = model.linear(latents + spread * torch.randn_like(latents))
        with torch.autocast(device, torch.bfloat16):
            drawn = model.refiner(rough).float()
        error = drawn - frames
        loss = (figure_weights(frames) * (error.square() + 0.2 * error.abs())).mean()
        trainer.update(loss, before=psnr(rough, frames).mean(), after=psnr(drawn.detach(), frames).mean())
    trainer.save()
    report(trainer.average, known, options)


def psnr(drawn, frames):
    """Of each clip, in dB."""
    return -10 * ((drawn.clamp(-1, 1) - frames).square().mean((1, 2, 3, 4)) / 4).log10()


@torch.no_grad()
def report(model, known, options):
    """PSNR of fresh clips, and a sheet of some beside what became of them."""
    scenes, frames = clips(known, 32, np.random.default_rng(99))
    latents = [model.encode(part.to(options.device)) for part in frames.split(8)]
    rough = psnr(torch.cat([model.linear(part) for part in latents]).cpu(), frames)
    drawn = torch.cat([model.decode(part) for part in latents]).cpu()
    sharp = psnr(drawn, frames)
    print(f"PSNR of the components {rough.mean():.2f} dB, sharpened {sharp.mean():.2f} dB, least {sharp.min():.2f} dB")
    pairs = torch.stack([frames, drawn], 1)[:10].flatten(0, 1)
    contact_sheet(pairs, [f"{s.colour} {s.kind} {s.motion}" for s in scenes[:10] for _ in range(2)], path=f"{options.out}.png")


if __name__ == "__main__":
    main()
