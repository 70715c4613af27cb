"""Says what a clip shows, by looking at its pixels: an independent check of prompt agreement.

Nothing is learnt and no model is asked. The colour is the palette's nearest to the figure's pixels; the motion follows from
where the figure's centre of mass is, how large it is, and which angle fits best; the kind is the best template.
"""

import math

import numpy as np
import torch

import shapes

FIGURE_DISTANCE = 0.25  # of the way from the background to the figure's colour: a pixel counts as figure
MOVED_PIXELS = 9.0
GROWN_RATIO = 1.45
BOUNCE_PIXELS = 9.0
TEMPLATE_SIDE = 40
ANGLE_STEP = 15


def figure(frames):
    """How much of each pixel is figure [frames, h, w], its colour [3], and the background's. Frames [3, frames, h, w]."""
    border = torch.cat([frames[:, :, 0], frames[:, :, -1], frames[:, :, :, 0], frames[:, :, :, -1]], -1)
    background = border.flatten(1).median(1).values
    away = (frames - background[:, None, None, None]).square().sum(0).sqrt()
    strong = away > 0.75 * away.flatten().kthvalue(int(away.numel() * 0.995)).values
    colour = frames[:, strong].median(1).values
    direction = colour - background
    share = ((frames - background[:, None, None, None]) * direction[:, None, None, None]).sum(0)
    return (share / direction.square().sum().clamp(min=1e-6)).clamp(0, 1), colour, background


def nearest(value, table):
    names = list(table)
    return names[int((shapes.rgb(names, table) - value).square().sum(1).argmin())]


def moments(cover):
    """Area in pixels and centre (x, y) of every frame."""
    cover = torch.where(cover > FIGURE_DISTANCE, cover, torch.zeros_like(cover))
    area = cover.sum((1, 2)).clamp(min=1e-3)
    axis = torch.arange(cover.shape[-1]) + 0.5
    return area.numpy(), ((cover.sum(1) * axis).sum(1) / area).numpy(), ((cover.sum(2) * axis).sum(1) / area).numpy()


class Templates:
    """Every kind at every angle, cut to its box: what `kind` and `angles` compare with."""

    def __init__(self):
        self.angles = np.arange(0, 360, ANGLE_STEP)
        kinds = torch.arange(len(shapes.KINDS)).repeat_interleave(len(self.angles))
        track = torch.tensor([[32.0, 32.0, 18.0, math.radians(angle)] for angle in self.angles]).repeat(len(shapes.KINDS), 1)
        drawn = shapes.coverage(kinds, track[:, None])[:, 0]
        self.all = normalised(drawn).reshape(len(shapes.KINDS), len(self.angles), -1)

    def scores(self, cover):
        """Correlation with every template [frames, kinds, angles]."""
        return torch.einsum("fp,kap->fka", normalised(cover), self.all)


def normalised(cover):
    """Moved and scaled by centre and spread to one size, then to mean 0 and length 1: [n, pixels]."""
    cover = torch.where(cover > FIGURE_DISTANCE, cover, torch.zeros_like(cover))
    area = cover.sum((1, 2)).clamp(min=1e-3)
    axis = torch.arange(cover.shape[-1]) + 0.5
    x, y = (cover.sum(1) * axis).sum(1) / area, (cover.sum(2) * axis).sum(1) / area
    spread = (cover * ((axis[None, None, :] - x[:, None, None]) ** 2 + (axis[None, :, None] - y[:, None, None]) ** 2))
    radius = (spread.sum((1, 2)) / area).sqrt().clamp(min=1.0)
    line = torch.linspace(-2.2, 2.2, TEMPLATE_SIDE)
    gy, gx = torch.meshgrid(line, line, indexing="ij")
    half = cover.shape[-1] / 2
    grid = torch.stack([(x[:, None, None] + gx * radius[:, None, None]) / half - 1,
                        (y[:, None, None] + gy * radius[:, None, None]) / half - 1], -1)
    cut = torch.nn.functional.grid_sample(cover[:, None], grid, align_corners=False)[:, 0].flatten(1)
    cut = cut - cut.mean(1, keepdim=True)
    return cut / cut.norm(dim=1, keepdim=True).clamp(min=1e-6)


class Checker:
    def __init__(self):
        self.templates = Templates()

    def look(self, frames):
        """(colour, kind, motion, background) of one clip [3, frames, h, w] in −1..1, as best as pixels tell."""
        frames = frames.float().clamp(-1, 1)
        cover, colour, background = figure(frames)
        scores = self.templates.scores(cover)
        # Figures start upright, so the first frame tells a 6 from a 9; one that does not turn stays so.
        turning = self.turns(scores)
        upright = scores[:1, :, 0] if turning else scores[:, :, 0]
        kind = shapes.KINDS[int(upright.mean(0).argmax())]
        motion = self.motion(cover)
        if motion == "still" and turning and kind not in shapes.ROUND:
            motion = "turn"
        return nearest(colour, shapes.COLOURS), kind, motion, nearest(background, shapes.BACKGROUNDS)

    def turns(self, scores):
        """Whether some kind that turns as training clips do fits the clip better than the best that stays upright."""
        frames = scores.shape[0]
        ideal = shapes.TURN_DEGREES * np.arange(frames) / (frames - 1)
        at = np.round(ideal / ANGLE_STEP).astype(int) % len(self.templates.angles)
        turned = scores[torch.arange(frames), :, at]
        return bool(turned.mean(0).max() > scores[:, :, 0].mean(0).max())

    def motion(self, cover):
        area, x, y = moments(cover)
        ratio = math.sqrt(area[-2:].mean() / area[:2].mean())
        if ratio > GROWN_RATIO or ratio < 1 / GROWN_RATIO:
            return "grow" if ratio > 1 else "shrink"
        dx, dy = x[-1] - x[0], y[-1] - y[0]
        side = "right" if dx > 0 else "left"
        vertical = "down" if dy > 0 else "up"
        # A figure that bounces comes back up: down, up, down, up.
        middle = len(y) // 2
        dips = max(y[: middle + 1]) - max(y[0], y[middle]), max(y[middle:]) - max(y[middle], y[-1])
        if min(dips) > BOUNCE_PIXELS and abs(dx) < MOVED_PIXELS:
            return "bounce"
        if abs(dx) < MOVED_PIXELS and abs(dy) < MOVED_PIXELS:
            return "still"
        if min(abs(dx), abs(dy)) > 0.4 * max(abs(dx), abs(dy)):
            return f"{vertical} {side}"
        return side if abs(dx) > abs(dy) else vertical
