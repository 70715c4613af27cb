"""Contact sheets: a row per clip, its caption above, every second frame."""

import numpy as np
import torch
from PIL import Image, ImageDraw

TEXT_HEIGHT = 12
FRAME_STEP = 2


def contact_sheet(clips, captions, columns=2, path=None):
    """Draws clips [n, 3, frames, h, w] in −1..1 into one image; `columns` clips side by side."""
    pixels = ((clips.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()[:, :, ::FRAME_STEP]
    count, _, frames, height, width = pixels.shape
    rows = -(-count // columns)
    cell_width, cell_height = frames * (width + 1) + 8, height + TEXT_HEIGHT + 3
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for index in range(count):
        left, top = index % columns * cell_width, index // columns * cell_height
        draw.text((left + 1, top), captions[index], fill=(0, 0, 0))
        for frame in range(frames):
            image = Image.fromarray(np.ascontiguousarray(pixels[index, :, frame].transpose(1, 2, 0)))
            sheet.paste(image, (left + frame * (width + 1), top + TEXT_HEIGHT))
    if path:
        sheet.save(path, optimize=True)
    return sheet
