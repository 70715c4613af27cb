"""Clips of one shape or digit that moves, and captions that say so. All of it is generated.

A *scene* is what a caption can say: a colour, a kind of figure, a motion, a background. `tracks` chooses where the figure
is in every frame, `render` draws it, `caption` puts it into words. Figures are signed distance fields (in units of the
figure's radius), so edges are smooth at any size and angle; digits are strokes of our own, no font is used.

Frames are RGB, −1..1, float32 [clips, 3, FRAMES, SIZE, SIZE]; y points down, angles turn clockwise.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

SIZE = 64
FRAMES = 17
FRAME_RATE = 8

COLOURS = {
    "red": (225, 40, 40), "orange": (250, 140, 20), "yellow": (245, 225, 50), "green": (50, 180, 70),
    "cyan": (50, 210, 220), "blue": (50, 80, 230), "purple": (140, 60, 190), "pink": (250, 140, 195),
}
BACKGROUNDS = {"black": (16, 16, 16), "white": (240, 240, 240), "grey": (110, 110, 110)}
FIGURES = ("circle", "square", "triangle", "star", "cross", "ring")
KINDS = FIGURES + tuple("0123456789")
ROUND = {"circle", "ring"}
MOTIONS = ("left", "right", "up", "down", "up left", "up right", "down left", "down right",
           "bounce", "turn", "grow", "shrink", "still")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "up left": (-1, -1),
              "up right": (1, -1), "down left": (-1, 1), "down right": (1, 1)}
TURN_DEGREES = 180.0
HELD_OUT = 200
HELD_OUT_SEED = 20

FIELD_SIZE = 96
FIELD_REACH = 1.6  # a field covers −FIELD_REACH..FIELD_REACH radii
STROKE = 0.17


@dataclass(frozen=True)
class Scene:
    """What a clip shows, in the words of the tables above."""

    colour: str
    kind: str
    motion: str
    background: str = "black"

    @property
    def combination(self):
        return self.colour, self.kind, self.motion


def combinations():
    """All (colour, kind, motion) that can be seen: a round figure that turns looks still."""
    return [(colour, kind, motion) for colour in COLOURS for kind in KINDS for motion in MOTIONS
            if not (motion == "turn" and kind in ROUND)]


def split():
    """Combinations to train on, and HELD_OUT others that training never sees."""
    known = combinations()
    order = np.random.default_rng(HELD_OUT_SEED).permutation(len(known))
    return [known[i] for i in order[HELD_OUT:]], [known[i] for i in order[:HELD_OUT]]


# Figures


def polygon(points, x, y):
    """Signed distance to a closed polygon, negative inside."""
    points = np.asarray(points, np.float64)
    distance, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0)):
        distance = np.minimum(distance, segment(ax, ay, bx, by, x, y))
        crosses = (ay > y) != (by > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return np.where(inside, -distance, distance)


def segment(ax, ay, bx, by, x, y):
    length2 = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-12)
    along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length2, 0, 1)
    return np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))


def arc(cx, cy, rx, ry, start, end, points=24):
    """Points of an elliptic arc, degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, points))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


DIGITS = {
    "0": [arc(0, 0, 0.42, 0.74, 0, 360, 48)],
    "1": [[(-0.32, -0.45), (0.02, -0.76), (0.02, 0.76)], [(-0.32, 0.76), (0.36, 0.76)]],
    "2": [arc(0, -0.34, 0.42, 0.42, 190, 385) + [(-0.42, 0.76), (0.44, 0.76)]],
    "3": [arc(-0.02, -0.38, 0.40, 0.38, 205, 450), arc(-0.02, 0.36, 0.44, 0.40, 270, 515)],
    "4": [[(0.20, 0.76), (0.20, -0.76), (-0.48, 0.30), (0.50, 0.30)]],
    "5": [[(0.38, -0.76), (-0.30, -0.76), (-0.36, -0.10)] + arc(-0.02, 0.30, 0.45, 0.46, 225, 510)],
    "6": [arc(0, 0.33, 0.43, 0.43, 0, 360, 32), [(-0.43, 0.33), (-0.36, -0.15), (-0.12, -0.55), (0.24, -0.78)]],
    "7": [[(-0.44, -0.76), (0.44, -0.76), (-0.12, 0.78)]],
    "8": [arc(0, -0.40, 0.35, 0.36, 0, 360, 32), arc(0, 0.36, 0.43, 0.40, 0, 360, 32)],
}
DIGITS["9"] = [[(-x, -y) for x, y in stroke] for stroke in DIGITS["6"]]


def field(kind):
    """Signed distance of a figure in radii, float32 [FIELD_SIZE, FIELD_SIZE]."""
    axis = (np.arange(FIELD_SIZE) + 0.5) / FIELD_SIZE * 2 * FIELD_REACH - FIELD_REACH
    x, y = np.meshgrid(axis, axis)
    if kind in DIGITS:
        distance = np.full(x.shape, np.inf)
        for stroke in DIGITS[kind]:
            for (ax, ay), (bx, by) in zip(stroke, stroke[1:]):
                distance = np.minimum(distance, segment(ax, ay, bx, by, x, y))
        return (distance - STROKE).astype(np.float32)
    if kind == "circle":
        result = np.hypot(x, y) - 0.92
    elif kind == "ring":
        result = np.abs(np.hypot(x, y) - 0.72) - 0.22
    elif kind == "square":
        result = polygon([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], x, y)
    elif kind == "triangle":
        result = polygon(arc(0, 0.1, 1.08, 1.08, -90, 150, 3), x, y)
    elif kind == "star":
        outer, inner = arc(0, 0, 1.1, 1.1, -90, 198, 5), arc(0, 0, 0.48, 0.48, -54, 234, 5)
        result = polygon([point for pair in zip(outer, inner) for point in pair], x, y)
    else:
        arm, reach = 0.3, 0.98
        result = polygon([(-arm, -reach), (arm, -reach), (arm, -arm), (reach, -arm), (reach, arm), (arm, arm),
                          (arm, reach), (-arm, reach), (-arm, arm), (-reach, arm), (-reach, -arm), (-arm, -arm)], x, y)
    return result.astype(np.float32)


FIELDS = torch.from_numpy(np.stack([field(kind) for kind in KINDS]))[:, None]


# Motion


def tracks(scene, rng, free=False):
    """Where the figure is: float32 [FRAMES, 4] of x, y, radius (pixels) and angle (radians).

    A free clip starts anywhere, at any angle, and stops at the walls: what follows when another clip's last frame is the
    first of this one. The others start where their motion has room.
    """
    u = np.linspace(0, 1, FRAMES)
    radius = np.full(FRAMES, rng.uniform(11, 14))
    x, y = (np.full(FRAMES, SIZE / 2 + rng.uniform(-3, 3)) for _ in range(2))
    angle = np.zeros(FRAMES)
    if free:
        radius[:] = rng.uniform(9, 15)
        reach = SIZE / 2 - radius[0] - 3
        x[:], y[:] = (SIZE / 2 + rng.uniform(-reach, reach) for _ in range(2))
        if rng.random() < 0.3:
            angle[:] = math.radians(rng.uniform(0, 360))
    if scene.motion in DIRECTIONS:
        dx, dy = DIRECTIONS[scene.motion]
        way = rng.uniform(19, 24)
        offset = u if free else u - 0.5
        x, y = x + dx * way * offset, y + dy * way * offset
    elif scene.motion == "bounce":
        floor, phase = SIZE - radius[0] - 4, (2 * u + 0.5) % 1
        height = floor - y[0] if free else rng.uniform(21, 26)
        y = floor - max(height, 12) * (1 - (2 * phase - 1) ** 2)
    elif scene.motion == "turn":
        angle = angle + math.radians(TURN_DEGREES) * u
    elif scene.motion in ("grow", "shrink"):
        small, large = (radius[0] * 0.5, radius[0]) if free else (rng.uniform(6, 8), rng.uniform(17, 20))
        if free and scene.motion == "grow":
            small, large = radius[0], min(radius[0] * 2, 22)
        part = u if scene.motion == "grow" else 1 - u
        radius = small + (large - small) * part
    margin = radius + 2
    x, y = np.clip(x, margin, SIZE - margin), np.clip(y, margin, SIZE - margin)
    return np.stack([x, y, radius, angle], 1).astype(np.float32)


def coverage(kinds, track, size=SIZE):
    """How much of each pixel the figure covers, 0..1: [clips, frames, size, size] from kinds [clips] and tracks."""
    clips, frames = track.shape[:2]
    centre = torch.arange(size, dtype=torch.float32) + 0.5
    x, y, radius, angle = track.reshape(-1, 4).T[:, :, None, None]
    dx, dy = centre[None, None, :] - x, centre[None, :, None] - y
    cos, sin = angle.cos() / (radius * FIELD_REACH), angle.sin() / (radius * FIELD_REACH)
    grid = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin], -1).reshape(clips, frames * size, size, 2)
    distance = torch.nn.functional.grid_sample(FIELDS[kinds], grid, padding_mode="border", align_corners=False)
    distance = distance.reshape(-1, size, size) * radius
    return (0.5 - distance).clamp(0, 1).reshape(clips, frames, size, size)


def rgb(names, table):
    return torch.tensor([table[name] for name in names], dtype=torch.float32) / 127.5 - 1


def render(scenes, track, size=SIZE):
    """Frames [clips, 3, frames, size, size], −1..1."""
    kinds = torch.tensor([KINDS.index(scene.kind) for scene in scenes])
    alpha = coverage(kinds, torch.as_tensor(track), size)[:, None]
    front = rgb([scene.colour for scene in scenes], COLOURS)[:, :, None, None, None]
    back = rgb([scene.background for scene in scenes], BACKGROUNDS)[:, :, None, None, None]
    return back + alpha * (front - back)


# Words

NOUNS = {
    "circle": ("circle", "circle", "disc", "ball"), "square": ("square", "square", "box", "block"),
    "triangle": ("triangle",), "star": ("star",), "cross": ("cross", "plus"), "ring": ("ring", "ring", "hoop"),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOUR_WORDS = {"purple": ("purple", "purple", "violet"), "cyan": ("cyan", "cyan", "turquoise"), "grey": ("grey", "gray")}
# How a motion is said: (it moves, moving)
MOTION_WORDS = {
    "bounce": [("bounces", "bouncing"), ("bounces", "bouncing"), ("bounces up and down", "bouncing up and down"),
               ("hops", "hopping"), ("jumps", "jumping")],
    "turn": [("turns", "turning"), ("rotates", "rotating"), ("spins", "spinning"), ("turns around", "turning around")],
    "grow": [("grows", "growing"), ("gets bigger", "getting bigger"), ("gets larger", "getting larger"),
             ("becomes bigger", "becoming bigger")],
    "shrink": [("shrinks", "shrinking"), ("gets smaller", "getting smaller"), ("becomes smaller", "becoming smaller")],
    "still": [("stands still", "standing still"), ("stays still", "staying still"), ("does not move", "not moving"),
              ("rests", "resting")],
}
GOING = [("moves", "moving"), ("moves", "moving"), ("goes", "going"), ("slides", "sliding"), ("travels", "travelling")]


def going(direction, rng):
    verb, participle = GOING[rng.integers(len(GOING))]
    if direction in ("left", "right"):
        where = (direction, direction, f"to the {direction}")[rng.integers(3)]
    elif direction in ("up", "down"):
        where = (direction, direction, f"{direction}wards")[rng.integers(3)]
    else:
        vertical, side = direction.split()
        where = (f"{vertical} and {side}", f"{vertical} {side}", f"{vertical} and to the {side}")[rng.integers(3)]
    return f"{verb} {where}", f"{participle} {where}"


def pick(options, rng):
    return options[rng.integers(len(options))]


def caption(scene, rng):
    """One of the ways to say what the scene shows, lower case. A black background may go without saying."""
    if scene.kind in NOUNS:
        noun = pick(NOUNS[scene.kind], rng)
    else:
        digit = pick((scene.kind, scene.kind, NUMBERS[int(scene.kind)]), rng)
        noun = pick((digit, f"digit {digit}", f"digit {digit}", f"number {digit}"), rng)
    colour = pick(COLOUR_WORDS.get(scene.colour, (scene.colour,)), rng)
    does, doing = going(scene.motion, rng) if scene.motion in DIRECTIONS else pick(MOTION_WORDS[scene.motion], rng)
    article = pick(("a", "a", "the"), rng)
    article = "an" if article == "a" and colour[0] == "o" else article
    thing = f"{article} {colour} {noun}"
    text = pick((f"{thing} {does}", f"{thing} {does}", f"{thing} {does}", f"{thing} {doing}", f"{doing}, {thing}",
                 f"there is {thing} that {does}", f"{thing} which is {doing}" if scene.motion != "still" else f"{thing} {doing}",
                 f"a clip of {thing} {doing}"), rng)
    if scene.background == "black" and rng.random() < 0.6:
        return text
    back = pick(COLOUR_WORDS.get(scene.background, (scene.background,)), rng)
    where = pick((f"on a {back} background", f"on a {back} background", f"on {back}", f"in front of a {back} background"), rng)
    return pick((f"{text} {where}", f"{text} {where}", f"{where}, {text}"), rng)


def sample(known, rng):
    """A scene of a combination from `known`; half of all backgrounds are black."""
    colour, kind, motion = known[rng.integers(len(known))]
    return Scene(colour, kind, motion, pick(("black", "black", "white", "grey"), rng))


def held_out_prompts():
    """The HELD_OUT prompts of the measurements: [(scene, caption)], the same every time."""
    rng = np.random.default_rng(HELD_OUT_SEED + 1)
    scenes = [Scene(*combination, pick(("black", "black", "white", "grey"), rng)) for combination in split()[1]]
    return [(scene, caption(scene, rng)) for scene in scenes]


def words():
    """Every word that a caption can hold, sorted: the tokenizer's vocabulary."""
    rng = np.random.default_rng(0)
    found = set()
    for combination in combinations():
        for background in BACKGROUNDS:
            for _ in range(8):
                found.update(caption(Scene(*combination, background), rng).replace(",", " ,").split())
    return sorted(found)
