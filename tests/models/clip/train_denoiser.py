"""Train text encoder and denoiser by flow matching on cached latents.

    python train_denoiser.py LATENTS.pt DENOISER.pt --minutes 50 [--resume]

The model learns the velocity noise − clean at a random time between (Lipman et al. 2022, "Flow Matching for Generative
Modeling"; Liu et al. 2022, "Rectified Flow"). Captions are said anew each time a clip is seen; one in ten is left out, for
guidance. In part of the clips the first latent frame is clean and says so by time 0: image to video.

Two helps, without which words for kinds and motions are learnt late: all tokens of the text, and those of the clip after the
denoiser's second block, are to know colour, kind, motion and background, so that what is said gets to where it is drawn early
(in the spirit of Yu et al. 2024, "Representation Alignment for Generation").
"""

import argparse

import numpy as np
import torch

import shapes
from networks import FRAME_TOKENS, SEEN_AFTER, TOKENS, ClipModel, facts_of, shift, tokenize, tokenizer
from training import Trainer, arguments, multiply_in_bfloat16

TIME_SHIFT = 2.0
TIME_FLOOR = 0.25
DROPPED_SHARE = 0.1
GIVEN_SHARE = 0.1
GUESS_WEIGHT = 0.1
UNKNOWN = -100


class Batches:
    """Random batches of cached clips: clean tokens, ids, mask, which tokens are given [n, TOKENS], and facts [n, 4]."""

    def __init__(self, path, device, rng):
        cache = torch.load(path)
        self.latents, self.free = cache["latents"], cache["free"]
        self.scenes = [shapes.Scene(*scene) for scene in cache["scenes"]]
        self.facts = facts_of(self.scenes)
        self.normalisation = {"mean": cache["mean"], "deviation": cache["deviation"]}
        self.words, self.device, self.rng, self.order = tokenizer(), device, rng, []

    def draw(self, count, dropped=DROPPED_SHARE):
        if len(self.order) < count:
            self.order = list(self.rng.permutation(len(self.scenes)))
        index = [self.order.pop() for _ in range(count)]
        texts = ["" if self.rng.random() < dropped else shapes.caption(self.scenes[i], self.rng) for i in index]
        ids, mask = tokenize(self.words, texts)
        given = torch.zeros(count, TOKENS, dtype=torch.bool)
        given[self.free[index] | torch.from_numpy(self.rng.random(count) < GIVEN_SHARE), :FRAME_TOKENS] = True
        return [part.to(self.device) for part in (self.latents[index].float(), ids, mask, given, self.facts[index])]


def mixed(clean, noise, times, given):
    """Tokens at `times` [n], the given ones clean, and the times of all tokens [n, TOKENS]."""
    times = torch.where(given, torch.zeros_like(times)[:, None], times[:, None])
    return clean + times[..., None] * (noise - clean), times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latents")
    parser.add_argument("out")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=8)
    arguments(parser)
    parser.set_defaults(minutes=50, rate=1e-3, batch=32)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    device, size = options.device, {"width": options.width, "layers": options.layers, "heads": options.heads}
    model = ClipModel(**size).to(device)
    trainer = Trainer(model, options.out, options)
    batches = Batches(options.latents, device, np.random.default_rng([options.seed, trainer.steps]))
    trainer.extra = {"size": size, **batches.normalisation}
    multiply_in_bfloat16(model)
    hidden = []
    model.denoiser.inner.transformer_blocks[SEEN_AFTER].register_forward_hook(lambda *call: hidden.append(call[-1]))
    print(f"seed {options.seed}, {sum(p.numel() for p in model.parameters())} parameters, {device}")
    while trainer.running():
        clean, ids, mask, given, facts = batches.draw(options.batch)
        noise = torch.randn_like(clean)
        spread = (torch.randperm(options.batch, device=device) + torch.rand(options.batch, device=device)) / options.batch
        tokens, times = mixed(clean, noise, shift(spread, TIME_SHIFT), given)
        text = model.encode(ids, mask, told=batches.rng.random() < 0.3)
        velocity = model.velocity(tokens, times, text, mask)
        # Of the clean tokens, errors count by 1 / time², as those of the velocity do, but no more than at TIME_FLOOR.
        weight = (times / TIME_FLOOR).clamp(max=1).square()
        error = (velocity - (noise - clean)).square().mean(-1) * weight
        said = model.said.loss(text, facts.masked_fill(mask.sum(1, keepdim=True) == 1, UNKNOWN))  # 1: the end alone
        seen = model.seen.loss(hidden.pop(), facts)
        error = (error * ~given).sum() / (~given).sum()
        trainer.update(error + GUESS_WEIGHT * (said + seen), error=error, said=said, seen=seen)
    trainer.save()


if __name__ == "__main__":
    main()
