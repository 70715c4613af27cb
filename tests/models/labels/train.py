"""Train two small models that label generated clips, and write their graphs and goldens.

    python train.py [SECONDS]

* `shapes/shapes.onnx`: a detector. Frames of 64 x 64 with one to three coloured shapes (circle, square,
  triangle) on a background; `images` f32 [1, 3, 64, 64] in 0..1 -> `candidates` f32 [1, 7, 64]: for each
  8 x 8 cell the box (cxcywh in pixels) and a score for each shape.
* `motion/motion.onnx`: a classifier with a state. One frame a run, what moved before is in the state:
  `frame` f32 [1, 3, 32, 32], `state` f32 [1, 8, 16, 16] -> `logits` f32 [1, 5] (still, left, right, up,
  down), `next_state`.

Both are this project's own, trained on nothing but what this file draws; SEED and the versions
(torch 2.15.0, onnx 1.23.2, onnxruntime 1.31.1, numpy 2.4.6, one thread) are printed. Goldens are what
onnxruntime and the decoding below make of a held-out clip.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
SEED = 20260101
SHAPES = ["circle", "square", "triangle"]
MOTIONS = ["still", "left", "right", "up", "down"]
SIDE, CELL = 64, 8
CELLS = SIDE // CELL
STEPS_OF = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}


def coverage(shape, x, y, radius, side):
    """How much of each pixel a shape covers, anti-aliased: [side, side]."""
    v, u = np.mgrid[:side, :side] + 0.5
    if shape == 0:
        distance = np.hypot(u - x, v - y) - radius
    elif shape == 1:
        distance = np.maximum(abs(u - x), abs(v - y)) - radius
    else:  # isosceles, its box as wide and high as the square's
        slope = (2 * abs(u - x) + (v - y) - radius) / np.sqrt(5)
        distance = np.maximum(slope, (v - y) - radius)
    return np.clip(0.5 - distance, 0, 1)


def scene(rng, side=SIDE):
    """(u8 [side, side, 3], boxes [(class, cx, cy, w, h)])."""
    image = np.ones((side, side, 3)) * rng.uniform(0, 0.35, 3) + rng.normal(0, 0.02, (side, side, 3))
    taken, boxes = [], []
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(5, 11)
        x, y = rng.uniform(radius + 1, side - radius - 1, 2)
        if any(abs(x - a) < radius + r and abs(y - b) < radius + r for a, b, r in taken):
            continue
        taken.append((x, y, radius))
        shape = int(rng.integers(3))
        cover = coverage(shape, x, y, radius, side)[..., None]
        image = image * (1 - cover) + cover * rng.uniform(0.45, 1.0, 3)
        boxes.append((shape, x, y, 2 * radius, 2 * radius))
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), boxes


def moving(rng, frames, side=32):
    """(u8 [frames, side, side, 3], motion) of one shape."""
    motion = int(rng.integers(5))
    step = np.array(STEPS_OF[MOTIONS[motion]]) * rng.uniform(0.8, 2.0)
    radius, shape = rng.uniform(3, 6), int(rng.integers(3))
    at = rng.uniform(radius + 2, side - radius - 2, 2) - step * frames / 2
    back, colour = rng.uniform(0, 0.35, 3), rng.uniform(0.45, 1.0, 3)
    out = []
    for t in range(frames):
        x, y = at + step * t
        cover = coverage(shape, x, y, radius, side)[..., None]
        image = back * (1 - cover) + cover * colour + rng.normal(0, 0.01, (side, side, 3))
        out.append(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.stack(out), motion


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [3, 12, 24, 32]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(sizes, sizes[1:]))
        self.body = nn.ModuleList(nn.Conv2d(32, 32, 3, 1, 1) for _ in range(3))
        self.head = nn.Conv2d(32, 4 + len(SHAPES), 1)
        y, x = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
        self.register_buffer("cells", torch.stack([x, y])[None] * float(CELL))

    def raw(self, x):
        for layer in self.down:
            x = F.relu(layer(x))
        for layer in self.body:
            x = x + F.relu(layer(x))
        return self.head(x)

    def decode(self, raw):
        middle = self.cells + torch.sigmoid(raw[:, :2]) * CELL
        size = torch.sigmoid(raw[:, 2:4]) * SIDE / 2
        return torch.cat([middle, size, torch.sigmoid(raw[:, 4:])], 1).flatten(2)

    def forward(self, x):
        return self.decode(self.raw(x))


class Motion(nn.Module):
    def __init__(self):
        super().__init__()
        self.see = nn.Conv2d(3, 8, 3, 2, 1)
        self.compare = nn.Conv2d(16, 24, 5, 2, 2)
        self.look = nn.Conv2d(24, 32, 3, 2, 1)
        self.head = nn.Linear(32, len(MOTIONS))

    def forward(self, frame, state):
        seen = F.relu(self.see(frame))
        x = F.relu(self.look(F.relu(self.compare(torch.cat([seen, state], 1)))))
        return self.head(x.mean((2, 3))), seen * 0.8 + state * 0.2


def planes(frames):
    return torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def detector_loss(model, batch):
    raw = model.raw(planes([image for image, _ in batch]))
    made = model.decode(raw).view(len(batch), 7, CELLS, CELLS)
    scores, box_loss, count = torch.zeros(len(batch), 3, CELLS, CELLS), 0.0, 0
    for at, (_, boxes) in enumerate(batch):
        for shape, x, y, w, h in boxes:
            i, j = int(y // CELL), int(x // CELL)
            scores[at, shape, i, j] = 1
            box_loss = box_loss + (made[at, :4, i, j] - torch.tensor([x, y, w, h])).abs().sum()
            count += 1
    found = F.binary_cross_entropy_with_logits(raw[:, 4:], scores, reduction="sum")
    return (found + 0.3 * box_loss) / count


def train(model, seconds, loss_of):
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    began, step = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - spent / seconds) + 1e-5
        loss = loss_of(model)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 200 == 0:
            print(f"  step {step}, {spent:.0f} s, loss {loss.item():.3f}", flush=True)
    return step


def motion_loss(model, rng):
    clips, motions = zip(*[moving(rng, 6) for _ in range(24)])
    clips, state, loss = np.stack(clips), torch.zeros(24, 8, 16, 16), 0.0
    for t in range(6):
        logits, state = model(planes(clips[:, t]), state)
        if t > 0:
            loss = loss + F.cross_entropy(logits, torch.tensor(motions))
    return loss


def export(model, path, inputs, names, outputs):
    options = dict(input_names=names, output_names=outputs, opset_version=17, dynamo=False)
    torch.onnx.export(model, inputs, path, **options)
    graph = onnx.load(path)
    graph.producer_name, graph.producer_version = "mote", ""
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    print(f"{path.name}: {path.stat().st_size} bytes, {sum(p.numel() for p in model.parameters())} weights")


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def overlap(a, b):
    across, down = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(across, 0) * max(down, 0)
    area = lambda it: (it[2] - it[0]) * (it[3] - it[1])
    return both / (area(a) + area(b) - both)


def decoded(candidates, size, score_min=0.5, overlap_max=0.45):
    """Boxes [(class, score, x0, y0, x1, y1)] in a frame of `size` (width, height) that was letterboxed."""
    width, height = size
    ratio = min(SIDE / width, SIDE / height)
    sides = [max(round(side * ratio), 1) for side in size]
    starts = [(SIDE - side) // 2 for side in sides]
    rows = []
    for x, y, w, h, *scores in candidates.T:
        shape = int(np.argmax(scores))
        if scores[shape] >= score_min:
            rows.append((shape, float(scores[shape]), x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    kept = []
    for row in sorted(rows, key=lambda row: -row[1]):
        if all(row[0] != it[0] or overlap(row[2:], it[2:]) <= overlap_max for it in kept):
            kept.append(row)
    limits = [width, height] * 2
    factors = [sides[0] / width, sides[1] / height] * 2
    at = lambda row, i: float(np.clip((row[2 + i] - (starts * 2)[i]) / factors[i], 0, limits[i]))
    return [(row[0], row[1], *(at(row, i) for i in range(4))) for row in kept]


def letterboxed(image):
    """[3, SIDE, SIDE] as Mote makes it: triangle filter, grey beside."""
    height, width = image.shape[:2]
    ratio = min(SIDE / width, SIDE / height)
    sides = [max(round(side * ratio), 1) for side in (height, width)]
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    x = F.interpolate(x, sides, mode="bilinear", antialias=True, align_corners=False)[0].numpy()
    out = np.full((3, SIDE, SIDE), 114, np.float32)
    top, left = (SIDE - sides[0]) // 2, (SIDE - sides[1]) // 2
    out[:, top : top + sides[0], left : left + sides[1]] = x
    return out / np.float32(255)


def measure_detector(path):
    """Recall and precision at IoU 0.5, over held-out scenes."""
    model, rng = session(path), np.random.default_rng(SEED + 1)
    right = found = there = 0
    for _ in range(500):
        image, boxes = scene(rng)
        made = decoded(model.run(None, {"images": planes([image]).numpy()})[0][0], (SIDE, SIDE))
        found, there = found + len(made), there + len(boxes)
        for shape, x, y, w, h in boxes:
            truth = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            right += any(row[0] == shape and overlap(row[2:], truth) >= 0.5 for row in made)
    print(f"detector: recall {right / there:.3f}, precision {right / found:.3f} of {there} shapes")


def measure_motion(path):
    model, rng = session(path), np.random.default_rng(SEED + 2)
    right = 0
    for _ in range(500):
        clip, motion = moving(rng, 6)
        state = np.zeros((1, 8, 16, 16), np.float32)
        for frame in planes(clip).numpy():
            logits, state = model.run(None, {"frame": frame[None], "state": state})
        right += int(np.argmax(logits)) == motion
    print(f"motion: {right / 500:.3f} of 500 clips right after 6 frames")


def goldens():
    from safetensors.numpy import save_file

    rng = np.random.default_rng(SEED + 3)
    model = session(HERE / "shapes/shapes.onnx")
    frames, rows = {}, []
    for at in range(6):
        image, _ = scene(rng)
        # Frames of other sizes and shapes than the model's.
        big = np.kron(image, np.ones((2, 2, 1), np.uint8))
        image = [image, big, big[:, :100], big[10:90], image[:, 4:60], big][at]
        frames[f"frame{at}"] = np.ascontiguousarray(image)
        made = decoded(model.run(None, {"images": letterboxed(image)[None]})[0][0], image.shape[1::-1])
        rows.append(made)
    save_file(frames, HERE / "shapes/frames.safetensors")
    (HERE / "shapes/boxes.json").write_text(json.dumps(rows, indent=0) + "\n")
    model = session(HERE / "motion/motion.onnx")
    clip = np.concatenate([moving(rng, 6)[0] for _ in range(2)])
    state, scores = np.zeros((1, 8, 16, 16), np.float32), []
    for frame in planes(clip).numpy():
        logits, state = model.run(None, {"frame": frame[None], "state": state})
        scores.append(torch.softmax(torch.from_numpy(logits[0]), 0).numpy())
    save_file({"frames": clip, "scores": np.stack(scores)}, HERE / "motion/scores.safetensors")


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 80
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    print(f"seed {SEED}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    rng = np.random.default_rng(SEED)
    for folder in ("shapes", "motion"):
        (HERE / folder).mkdir(exist_ok=True)
    detector = Detector()
    train(detector, seconds, lambda model: detector_loss(model, [scene(rng) for _ in range(24)]))
    detector.eval()
    export(detector, HERE / "shapes/shapes.onnx", torch.rand(1, 3, SIDE, SIDE), ["images"], ["candidates"])
    motion = Motion()
    train(motion, seconds / 2, lambda model: motion_loss(model, rng))
    motion.eval()
    inputs = torch.rand(1, 3, 32, 32), torch.zeros(1, 8, 16, 16)
    export(motion, HERE / "motion/motion.onnx", inputs, ["frame", "state"], ["logits", "next_state"])
    measure_detector(HERE / "shapes/shapes.onnx")
    measure_motion(HERE / "motion/motion.onnx")
    goldens()


if __name__ == "__main__":
    main()
