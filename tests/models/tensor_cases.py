"""Reference cases of models that take and give plain tensors: ONNX Runtime and LiteRT."""

import importlib.util
import json
from importlib.metadata import version

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image, ImageDraw, ImageFont

SEED = 7
SAMPLE_RATE_HZ = 16000
VAD_CHUNKS, VAD_CHUNK_SAMPLES, VAD_CONTEXT_SAMPLES = 50, 512, 64
DETECT_SIZES = [(160, 320), (256, 480)]


def onnx_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_case(path, inputs, outputs, note, **more):
    runtime = f"onnxruntime {onnxruntime.__version__} CPU"
    return dict(model=path.name, runtime=runtime, inputs=inputs, outputs=outputs, note=note, **more)


def speech(seconds, random):
    """A speech-like signal: bursts of a voiced sound with three formants between near silence."""
    time = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch = 120 + 15 * np.sin(2 * np.pi * 1.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        hertz = harmonic * 120
        formants = sum(np.exp(-(((hertz - centre) / 180) ** 2)) for centre in (600, 1200, 2500))
        voice += (formants + 0.02) / np.sqrt(harmonic) * np.sin(harmonic * phase)
    talking = np.sin(2 * np.pi * 0.8 * time) > 0
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)
    signal = 0.25 * voice * talking * syllables + 0.003 * random.standard_normal(len(time))
    return signal.astype(np.float32)


def silero_vad(models):
    path = models.find("silero_vad_16k_op15.onnx")
    signal = speech(VAD_CHUNKS * VAD_CHUNK_SAMPLES / SAMPLE_RATE_HZ, np.random.default_rng(SEED))
    signal = np.concatenate([np.zeros(VAD_CONTEXT_SAMPLES, np.float32), signal])
    starts = np.arange(VAD_CHUNKS) * VAD_CHUNK_SAMPLES
    size = VAD_CONTEXT_SAMPLES + VAD_CHUNK_SAMPLES
    chunks = np.stack([signal[None, start : start + size] for start in starts])
    rate, first = np.array(SAMPLE_RATE_HZ, np.int64), np.zeros((2, 1, 128), np.float32)
    session, state, chances, states = onnx_session(path), first, [], []
    for chunk in chunks:
        chance, state = session.run(None, {"input": chunk, "state": state, "sr": rate})
        chances.append(chance)
        states.append(state)
    return onnx_case(
        path,
        {"input": chunks, "state": first, "sr": rate},
        {"output": np.stack(chances), "stateN": np.stack(states)},
        f"seed {SEED}, speech chance {np.min(chances):.3f}..{np.max(chances):.3f}",
        steps=VAD_CHUNKS,
        constant=["sr"],
        state={"state": "stateN"},
    )


def text_image(height, width):
    """BGR, mean 0.5 and deviation 0.5 taken out, [1,3,h,w]: black words on a light ground."""
    image = Image.new("RGB", (width, height), (235, 232, 220))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(height / 6)
    draw.text((width * 0.05, height * 0.15), "Mote reads text", (20, 20, 30), font)
    draw.text((width * 0.2, height * 0.6), "on any board 42", (90, 20, 20), font)
    pixels = np.asarray(image, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2)
    return np.ascontiguousarray((pixels / 255 - 0.5) / 0.5)


def text_detection(size):
    def case(models):
        path = models.find("ch_PP-OCRv4_det_infer.onnx")
        image = text_image(*size)
        (chance,) = onnx_session(path).run(None, {"x": image})
        share = float((chance > 0.3).mean())
        return onnx_case(path, {"x": image}, {"sigmoid_0.tmp_0": chance}, f"{share:.1%} of pixels are text")

    return case


def magika(models):
    path = models.find("magika/model.onnx")
    spec = importlib.util.spec_from_file_location("magika_tokens", path.with_name("tokens.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    samples = sorted(path.with_name("samples").iterdir())
    tokens = np.stack([module.tokens(sample.read_bytes()) for sample in samples])
    (scores,) = onnx_session(path).run(None, {"bytes": tokens})
    labels = json.loads(path.with_name("config.min.json").read_text())["target_labels_space"]
    best = [f"{sample.name}: {labels[row.argmax()]} {row.max():.4f}" for sample, row in zip(samples, scores)]
    return onnx_case(path, {"bytes": tokens}, {"target_label": scores}, ", ".join(best))


def moving_pattern(shift, height=256, width=448):
    """A textured picture and a disc that moves `shift` pixels to the right, [1,3,h,w], 0..1."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ground = np.stack([0.5 + 0.3 * np.sin(x / (17 + 5 * c)) * np.cos(y / (11 + 3 * c)) for c in range(3)])
    edge = 40 - np.hypot(x - width / 2 - shift, y - height / 2)
    inside = np.clip(edge / 2 + 0.5, 0, 1)
    disc = np.stack([0.9 - 0.2 * c + 0.1 * np.sin((x - shift) / 5) for c in range(3)])
    return (ground * (1 - inside) + disc * inside)[None].astype(np.float32)


def rife(models):
    path = models.find("rife/rife40_f16.onnx")
    inputs = {
        "img0": moving_pattern(-6),
        "img1": moving_pattern(6),
        "timestep": np.full((1, 1, 1, 1), 0.5, np.float32),
    }
    (middle,) = onnx_session(path).run(None, inputs)
    quality = -10 * np.log10(np.mean((middle - moving_pattern(0)) ** 2))
    return onnx_case(path, inputs, {"mid": middle}, f"PSNR {quality:.2f} dB against the true middle")


def portrait(size):
    """A drawn face on a plain ground, RGB [1,size,size,3], 0..1."""
    image = Image.new("RGB", (size, size), (120, 150, 180))
    draw, at = ImageDraw.Draw(image), lambda *share: [part * size for part in share]
    draw.ellipse(at(0.18, 0.75, 0.82, 1.4), (60, 60, 110))
    draw.ellipse(at(0.3, 0.2, 0.7, 0.8), (224, 180, 150))
    draw.pieslice(at(0.28, 0.14, 0.72, 0.7), 180, 360, (60, 40, 30))
    draw.ellipse(at(0.32, 0.28, 0.68, 0.78), (224, 180, 150))
    for left in (0.38, 0.53):
        draw.ellipse(at(left, 0.42, left + 0.09, 0.47), (250, 250, 250))
        draw.ellipse(at(left + 0.03, 0.42, left + 0.07, 0.47), (40, 30, 20))
        draw.line(at(left - 0.01, 0.39, left + 0.1, 0.385), (70, 50, 40), max(1, size // 64))
    draw.polygon(at(0.5, 0.47, 0.465, 0.58, 0.535, 0.58), (205, 155, 125))
    draw.ellipse(at(0.43, 0.64, 0.57, 0.69), (170, 70, 70))
    return np.asarray(image, np.float32)[None] / 255


def tflite_case(path, calls, **more):
    """A case of one input, called once per array of `calls`, with and without XNNPACK.

    A model with resource variables keeps its state from call to call.
    """
    kernels = {
        "outputs": OpResolverType.AUTO,
        "plain_outputs": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    }
    case = dict(model=path.name, runtime=f"ai-edge-litert {version('ai-edge-litert')} CPU, XNNPACK", **more)
    for side, resolver in kernels.items():
        interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=resolver)
        try:
            interpreter.allocate_tensors()
        except RuntimeError as error:
            # A custom operator that only XNNPACK knows.
            case["no_plain_outputs"] = str(error)
            continue
        (entry,), exits = interpreter.get_input_details(), interpreter.get_output_details()
        answers = []
        for array in calls:
            interpreter.set_tensor(entry["index"], array)
            interpreter.invoke()
            answers.append([interpreter.get_tensor(item["index"]) for item in exits])
        case[side] = {item["name"]: np.stack(call) for item, call in zip(exits, zip(*answers))}
        case["inputs"] = {entry["name"]: np.stack(calls)}
    return case


def single(case):
    """A case of one call, without the axis that counts calls."""
    for side in ("inputs", "outputs", "plain_outputs"):
        if side in case:
            case[side] = {tensor: array[0] for tensor, array in case[side].items()}
    return case


def peaks(outputs):
    return ", ".join(f"{name} {array.min():.3f}..{array.max():.3f}" for name, array in outputs.items())


def tflite_image(file, low, size):
    """A case of one float picture whose values span low..1."""

    def make(models):
        image = (portrait(size) * (1 - low) + low).astype(np.float32)
        case = single(tflite_case(models.find(file), [image]))
        return case | {"note": peaks(case["outputs"])}

    return make


def wake_word(models):
    features = np.load(models.find("wake_word/okay_nabu_features.npy"))
    case = tflite_case(models.find("okay_nabu.tflite"), features, steps=len(features), constant=[], state={})
    return case | {"note": peaks(case["outputs"])}


CASES = {
    "silero_vad": silero_vad,
    "text_detection_small": text_detection(DETECT_SIZES[0]),
    "text_detection_large": text_detection(DETECT_SIZES[1]),
    "magika": magika,
    "rife": rife,
    "face_detection": tflite_image("face_detection_short_range.tflite", -1.0, 128),
    "selfie_segmentation": tflite_image("selfie_segmentation.tflite", 0.0, 256),
    "wake_word": wake_word,
}
