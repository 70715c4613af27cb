"""Distil guidance and steps: what the trained model does in many guided steps, in STEPS without guidance.

    python distil.py LATENTS.pt DENOISER.pt FEW.pt --minutes 15 [--resume]

Progressive distillation (Salimans and Ho 2022) in one go: from a state at one of the student's STEPS times the teacher
takes SUBSTEPS guided Euler steps to the next of them; the student learns the mean velocity of that way. Half of the states are
the student's own, from noise on; the others are clips with noise mixed in.
"""

import argparse

import numpy as np
import torch

from networks import ClipModel, sample, schedule, tokenize
from train_denoiser import TIME_SHIFT, Batches, mixed
from training import Trainer, arguments, multiply_in_bfloat16, use_average

STEPS = 4
SUBSTEPS = 3
GUIDANCE = 2.5
OWN_SHARE = 0.5


def guided(model, text, mask, empty, empty_mask, given, guidance=GUIDANCE):
    """velocity(tokens, time) with classifier-free guidance (Ho and Salimans 2022); zero where tokens are given."""

    def velocity(tokens, times):
        times = torch.where(given, torch.zeros_like(times)[:, None], times[:, None])
        wanted = model.velocity(tokens, times, text, mask)
        if guidance != 1:
            plain = model.velocity(tokens, times, empty, empty_mask)
            wanted = plain + guidance * (wanted - plain)
        return wanted * ~given[..., None]

    return velocity


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latents")
    parser.add_argument("teacher")
    parser.add_argument("out")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    arguments(parser)
    parser.set_defaults(minutes=15, rate=3e-4, batch=48)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    device, size = options.device, torch.load(options.teacher, map_location="cpu")["size"]
    teacher = use_average(ClipModel(**size), options.teacher).to(device)
    model = use_average(ClipModel(**size), options.teacher).to(device).requires_grad_(True)
    trainer = Trainer(model, options.out, options, decay=0.995)
    multiply_in_bfloat16(model)
    multiply_in_bfloat16(teacher)
    batches = Batches(options.latents, device, np.random.default_rng([options.seed, trainer.steps]))
    trainer.extra = {"size": size, **batches.normalisation}
    times = schedule(STEPS, TIME_SHIFT).to(device)
    ids, mask = (part.to(device) for part in tokenize(batches.words, [""]))
    empty = teacher.encode(ids, mask).repeat(options.batch, 1, 1)
    empty_mask = mask.repeat(options.batch, 1)
    while trainer.running():
        clean, ids, mask, given, _ = batches.draw(options.batch, dropped=0.05)
        at = int(batches.rng.integers(STEPS))
        with torch.no_grad():
            tokens = mixed(clean, torch.randn_like(clean), times[0].expand(options.batch), given)[0]
            if at and batches.rng.random() < OWN_SHARE:
                own = guided(model, model.encode(ids, mask), mask, None, None, given, guidance=1)
                tokens = sample(own, tokens, times[: at + 1])
            else:
                tokens = mixed(clean, torch.randn_like(clean), times[at].expand(options.batch), given)[0]
            way = torch.lerp(times[at], times[at + 1], torch.linspace(0, 1, SUBSTEPS + 1, device=device))
            led = guided(teacher, teacher.encode(ids, mask), mask, empty, empty_mask, given, options.guidance)
            target = (sample(led, tokens, way) - tokens) / (times[at + 1] - times[at])
        token_times = torch.where(given, torch.zeros_like(times[at]), times[at])
        velocity = model.velocity(tokens, token_times, model.encode(ids, mask), mask)
        error = (velocity - target).square().mean(-1)
        trainer.update((error * ~given).sum() / (~given).sum())
    trainer.save()


if __name__ == "__main__":
    main()
