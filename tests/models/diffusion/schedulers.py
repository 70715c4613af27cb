"""Runs the schedulers of diffusers over small samples and writes what they compute.

The denoiser is a fixed function of sample and timestep without any transcendental function, so
that it gives the same bits in every language:

    output = 0.55 * x / (1 + |x|) + 0.3 * pattern * (t / train) + 0.1 * x      (all in f32)

where x is the model input and `pattern` a tensor of the file. Noise is drawn once, one tensor a
step, and given to both sides. A case is a name, and tensors `NAME/timesteps` f64 [n], `NAME/sigmas`
f64 (the scheduler's own, where it has any), `NAME/samples` f32 [n + 1, values] (the first is what
the loop began with), `NAME/estimates` f32 [n, values] (of the clean sample, at each step) and
`NAME/init_noise_sigma` f64 [1]; `cases` in the metadata is a JSON list of {name, config, steps,
timing}. `guidance` there lists {name, scale, rescale}, with results `guidance/NAME`, and `gaussian`
{name, seed (a string), stream}, with values `gaussian/NAME` of our own noise.

    pip install torch diffusers scipy safetensors   # made with torch 2.15, diffusers 0.42.1, scipy 1.17.1
    python schedulers.py
"""

import contextlib
import json
import pathlib

import diffusers
import numpy as np
import torch
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.utils import logging
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
SEED = 20_261_128
SHAPE = (1, 2, 3, 2, 2)
VALUES = 24
STEPS_MAX = 30

FLOW = "FlowMatchEulerDiscreteScheduler"
LCM = "LCMScheduler"
DDIM = "DDIMScheduler"
EULER = "EulerDiscreteScheduler"
DPM = "DPMSolverMultistepScheduler"
UNIPC = "UniPCMultistepScheduler"

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
ZERO_SNR = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
LTX = dict(
    use_dynamic_shifting=True,
    base_shift=0.95,
    max_shift=2.05,
    base_image_seq_len=1024,
    max_image_seq_len=4096,
    shift_terminal=0.1,
)
LTX_DISTILLED = [1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219]
WAN = dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
SVD = dict(
    **SD,
    prediction_type="v_prediction",
    timestep_type="continuous",
    timestep_spacing="leading",
    use_karras_sigmas=True,
    sigma_min=0.002,
    sigma_max=700.0,
    steps_offset=1,
)
CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
TRAINED = (np.linspace(0.01, 0.03, 100) ** 1.1).tolist()


def even(steps):
    return np.linspace(1.0, 1.0 / steps, steps).tolist()


# Name, class, options, steps, and what of Timing is set.
CASES = [
    ("flow/default", FLOW, {}, 8, {}),
    ("flow/one-step", FLOW, {}, 1, {}),
    ("flow/shift", FLOW, dict(shift=3.0), 7, {}),
    ("flow/shift-even", FLOW, dict(shift=5.0), 6, dict(sigmas=even(6))),
    ("flow/strength", FLOW, dict(shift=3.0), 10, dict(strength=0.7)),
    ("flow/ltx", FLOW, LTX, 8, dict(sigmas=even(8), sequence_length=2640)),
    ("flow/ltx-strength", FLOW, LTX, 8, dict(sigmas=even(8), sequence_length=2640, strength=0.5)),
    ("flow/ltx-own-sigmas", FLOW, LTX, 8, dict(sequence_length=900)),
    ("flow/ltx-distilled", FLOW, {}, 8, dict(sigmas=LTX_DISTILLED)),
    ("flow/dynamic-linear", FLOW, dict(use_dynamic_shifting=True, time_shift_type="linear"), 6, dict(sequence_length=1024)),
    ("flow/inverted", FLOW, dict(invert_sigmas=True), 6, {}),
    ("flow/stochastic", FLOW, dict(stochastic_sampling=True, shift=3.0), 6, {}),
    ("flow/timesteps", FLOW, dict(shift=3.0), 4, dict(timesteps=[1000.0, 750.0, 500.0, 250.0])),
    ("flow/both-lists", FLOW, {}, 3, dict(timesteps=[1000.0, 600.0, 200.0], sigmas=[1.0, 0.7, 0.3])),
    ("flow/training", FLOW, dict(num_train_timesteps=500, shift=2.0), 5, {}),
    *((f"flow/{curve}", FLOW, {curve: True, "shift": 2.0}, 6, {}) for curve in CURVES),
    ("lcm/default", LCM, {}, 4, {}),
    ("lcm/strength", LCM, {}, 6, dict(strength=0.6)),
    ("lcm/one-step", LCM, {}, 1, {}),
    ("lcm/timesteps", LCM, {}, 3, dict(timesteps=[999, 699, 299])),
    ("lcm/clip", LCM, dict(clip_sample=True, clip_sample_range=0.8, original_inference_steps=100), 5, {}),
    ("lcm/v-threshold", LCM, dict(prediction_type="v_prediction", thresholding=True, sample_max_value=1.5, dynamic_thresholding_ratio=0.8), 4, {}),
    ("lcm/sample", LCM, dict(prediction_type="sample", timestep_scaling=0.01, beta_schedule="squaredcos_cap_v2"), 4, {}),
    ("ddim/default", DDIM, {}, 10, {}),
    ("ddim/sd", DDIM, dict(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1), 10, {}),
    ("ddim/strength", DDIM, dict(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1), 10, dict(strength=0.55)),
    ("ddim/eta", DDIM, dict(**SD, clip_sample=False), 8, dict(eta=1.0)),
    ("ddim/eta-half", DDIM, dict(clip_sample_range=2.0), 8, dict(eta=0.5)),
    ("ddim/zero-snr", DDIM, dict(**SD, **ZERO_SNR, clip_sample=False), 8, {}),
    ("ddim/linspace-sample", DDIM, dict(timestep_spacing="linspace", prediction_type="sample"), 8, {}),
    ("ddim/threshold", DDIM, dict(thresholding=True, sample_max_value=3.0, dynamic_thresholding_ratio=0.7), 8, {}),
    ("ddim/cosine", DDIM, dict(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False), 8, {}),
    ("ddim/trained", DDIM, dict(trained_betas=TRAINED, num_train_timesteps=100, clip_sample=False), 8, {}),
    ("euler/default", EULER, {}, 8, {}),
    ("euler/sd", EULER, dict(**SD, timestep_spacing="leading", steps_offset=1), 8, {}),
    ("euler/strength", EULER, dict(**SD, timestep_spacing="leading", steps_offset=1), 10, dict(strength=0.4)),
    ("euler/trailing", EULER, dict(**SD, timestep_spacing="trailing"), 4, {}),
    ("euler/svd", EULER, SVD, 8, {}),
    ("euler/log-linear", EULER, dict(**SD, interpolation_type="log_linear"), 8, {}),
    ("euler/sample", EULER, dict(prediction_type="sample", final_sigmas_type="sigma_min"), 8, {}),
    ("euler/zero-snr", EULER, dict(**SD, **ZERO_SNR), 8, {}),
    ("euler/timesteps", EULER, SD, 4, dict(timesteps=[999, 749, 499, 249])),
    ("euler/sigmas", EULER, SD, 4, dict(sigmas=[14.0, 5.0, 1.5, 0.4, 0.0])),
    *((f"euler/{curve}", EULER, {curve: True, **SD}, 7, {}) for curve in CURVES),
    ("dpm/default", DPM, {}, 8, {}),
    ("dpm/sd-karras", DPM, dict(**SD, use_karras_sigmas=True, steps_offset=1), 20, {}),
    ("dpm/heun", DPM, dict(**SD, solver_type="heun"), 8, {}),
    ("dpm/first", DPM, dict(**SD, solver_order=1), 6, {}),
    ("dpm/third", DPM, dict(**SD, solver_order=3), 10, {}),
    ("dpm/third-long", DPM, dict(**SD, solver_order=3, euler_at_final=True, final_sigmas_type="sigma_min"), 18, {}),
    ("dpm/third-least", DPM, dict(**SD, solver_order=3, lower_order_final=False, final_sigmas_type="sigma_min"), 10, {}),
    ("dpm/sde", DPM, dict(**SD, algorithm_type="sde-dpmsolver++"), 8, {}),
    ("dpm/sde-heun", DPM, dict(**SD, algorithm_type="sde-dpmsolver++", solver_type="heun", use_karras_sigmas=True), 8, {}),
    ("dpm/sde-third", DPM, dict(**SD, algorithm_type="sde-dpmsolver++", solver_order=3), 10, {}),
    ("dpm/wan", DPM, WAN, 8, {}),
    ("dpm/wan-long", DPM, dict(WAN, flow_shift=3.0), 20, {}),
    ("dpm/wan-strength", DPM, WAN, 10, dict(strength=0.6)),
    ("dpm/wan-sde", DPM, dict(WAN, algorithm_type="sde-dpmsolver++"), 8, {}),
    ("dpm/wan-least", DPM, dict(WAN, final_sigmas_type="sigma_min"), 8, {}),
    ("dpm/strength", DPM, dict(**SD, timestep_spacing="leading", steps_offset=1), 10, dict(strength=0.5)),
    ("dpm/trailing", DPM, dict(**SD, timestep_spacing="trailing"), 9, {}),
    ("dpm/clipped", DPM, dict(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1), 8, {}),
    ("dpm/clipped-trailing", DPM, dict(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-0.5, timestep_spacing="trailing"), 20, {}),
    ("dpm/zero-snr", DPM, dict(**SD, **ZERO_SNR), 8, {}),
    ("dpm/sample", DPM, dict(**SD, prediction_type="sample"), 6, {}),
    ("dpm/threshold", DPM, dict(**SD, thresholding=True, sample_max_value=2.0, dynamic_thresholding_ratio=0.9), 8, {}),
    ("dpm/lu", DPM, dict(**SD, use_lu_lambdas=True), 8, {}),
    ("dpm/timesteps", DPM, SD, 4, dict(timesteps=[999, 749, 499, 249])),
    *((f"dpm/{curve}", DPM, {curve: True, **SD}, 8, {}) for curve in CURVES[1:]),
    ("unipc/default", UNIPC, {}, 8, {}),
    ("unipc/wan", UNIPC, WAN, 10, {}),
    ("unipc/wan-480p", UNIPC, dict(WAN, flow_shift=3.0), 20, {}),
    ("unipc/wan-strength", UNIPC, WAN, 10, dict(strength=0.7)),
    ("unipc/wan-sigmas", UNIPC, WAN, 4, dict(sigmas=[1.0, 0.9, 0.6, 0.2])),
    ("unipc/wan-third", UNIPC, dict(WAN, solver_order=3), 8, {}),
    ("unipc/wan-terminal", UNIPC, dict(WAN, shift_terminal=0.05), 6, {}),
    ("unipc/cosmos", UNIPC, dict(prediction_type="flow_prediction", use_flow_sigmas=True, use_karras_sigmas=True, sigma_max=200.0, sigma_min=0.01, final_sigmas_type="sigma_min"), 8, {}),
    ("unipc/sd-third", UNIPC, dict(**SD, solver_order=3), 10, {}),
    ("unipc/bh1", UNIPC, dict(**SD, solver_type="bh1", final_sigmas_type="sigma_min"), 8, {}),
    ("unipc/noise", UNIPC, dict(**SD, predict_x0=False, final_sigmas_type="sigma_min"), 8, {}),
    ("unipc/noise-v", UNIPC, dict(**SD, predict_x0=False, final_sigmas_type="sigma_min", prediction_type="v_prediction"), 8, {}),
    ("unipc/uncorrected", UNIPC, dict(**SD, disable_corrector=[0, 3]), 8, {}),
    ("unipc/zero-snr", UNIPC, dict(**SD, **ZERO_SNR), 8, {}),
    *((f"unipc/{curve}", UNIPC, {curve: True, **SD}, 8, {}) for curve in CURVES),
]

GUIDANCE = [
    ("none", 1.0, 0.7),
    ("plain", 7.5, 0.0),
    ("rescaled", 3.0, 0.7),
    ("wholly", 5.0, 1.0),
]

# Name, seed, stream: values that our noise must have.
GAUSSIAN = [
    ("zero", 0, 0),
    ("stream", 0, 7),
    ("large", 0xFEDC_BA98_7654_3210, 0xFFFF_FFFF),
]


def denoise(x, t, pattern, train):
    share = torch.tensor(float(t), dtype=torch.float32) / torch.tensor(float(train))
    bounded = x / (1 + x.abs())
    return torch.tensor(0.55) * bounded + torch.tensor(0.3) * pattern * share + torch.tensor(0.1) * x


@contextlib.contextmanager
def replayed(noise):
    """Makes every scheduler draw `noise`."""
    names = [
        "scheduling_flow_match_euler_discrete",
        "scheduling_lcm",
        "scheduling_ddim",
        "scheduling_dpmsolver_multistep",
    ]
    modules = [getattr(diffusers.schedulers, name) for name in names]
    kept = [module.randn_tensor for module in modules]
    for module in modules:
        module.randn_tensor = lambda *_, **__: noise
    yield
    for module, function in zip(modules, kept):
        module.randn_tensor = function


def shift_of(scheduler, length):
    """As the pipelines of Flux and LTX-Video have it."""
    c = scheduler.config
    slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
    return length * slope + c.base_shift - slope * c.base_image_seq_len


def set_timesteps(scheduler, steps, timing):
    lists = {key: timing[key] for key in ("timesteps", "sigmas") if key in timing}
    more = {}
    if "sequence_length" in timing:
        more["mu"] = shift_of(scheduler, timing["sequence_length"])
    if isinstance(scheduler, diffusers.UniPCMultistepScheduler):
        lists = {key: np.array(value) for key, value in lists.items()}
    if lists:
        scheduler.set_timesteps(**lists, **more)
    else:
        scheduler.set_timesteps(steps, **more)


def clean_of(scheduler, output, result, sample, index):
    """What the scheduler estimates; where it does not say, from its own conversion of outputs."""
    for name in ("denoised", "pred_original_sample"):
        if getattr(result, name, None) is not None:
            return getattr(result, name)
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        return sample + (scheduler.sigmas[-1] - scheduler.sigmas[index]) * output
    if getattr(scheduler, "predict_x0", True):
        return scheduler.model_outputs[-1]
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index])
    if scheduler.config.prediction_type == "epsilon":
        return (sample - sigma * output) / alpha
    return alpha * sample - sigma * output


def run(case, tensors):
    name, class_name, options, steps, timing = case
    scheduler = getattr(diffusers, class_name)(**options)
    train = scheduler.config.num_train_timesteps
    set_timesteps(scheduler, steps, timing)
    whole = len(scheduler.timesteps)
    strength = timing.get("strength")
    start = 0 if strength is None else steps - min(int(steps * strength), steps)
    timesteps = scheduler.timesteps[start:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
    noise, clean, pattern = tensors["noise"], tensors["clean"], tensors["pattern"]
    first = noise[-1].reshape(SHAPE)
    if strength is None:
        sample = first * torch.tensor(scale)
    elif class_name == FLOW:
        sample = scheduler.scale_noise(clean.reshape(SHAPE), timesteps[:1], first)
    else:
        sample = scheduler.add_noise(clean.reshape(SHAPE), first, timesteps[:1])
    samples, estimates = [sample], []
    for i, t in enumerate(timesteps):
        model_input = sample
        if hasattr(scheduler, "scale_model_input"):
            model_input = scheduler.scale_model_input(sample, t)
        output = denoise(model_input, t, pattern.reshape(SHAPE), train)
        more = dict(eta=timing["eta"]) if "eta" in timing else {}
        with replayed(noise[i].reshape(SHAPE)):
            result = scheduler.step(output, t, sample, **more)
        estimates.append(clean_of(scheduler, output, result, sample, start + i))
        sample = result.prev_sample
        samples.append(sample)
    assert all(torch.isfinite(sample).all() for sample in samples), name
    print(f"{name}: {len(timesteps)} of {whole} steps, |sample| {sample.abs().max():.3f}")
    out = {
        "timesteps": timesteps.to(torch.float64).contiguous(),
        "samples": torch.stack(samples).reshape(-1, VALUES),
        "estimates": torch.stack(estimates).reshape(-1, VALUES),
        "init_noise_sigma": torch.tensor([scale], dtype=torch.float64),
    }
    if class_name not in (LCM, DDIM):
        out["sigmas"] = scheduler.sigmas[start:].to(torch.float64).contiguous()
    config = dict(options, _class_name=class_name, _diffusers_version=diffusers.__version__)
    description = dict(name=name, config=config, steps=steps, timing=timing)
    return description, {f"{name}/{key}": value for key, value in out.items()}


def guide(tensors):
    """As the pipelines of diffusers combine outputs."""
    with_prompt, without = tensors["noise"][0], tensors["noise"][1]
    results = {}
    for name, scale, rescale in GUIDANCE:
        guided = with_prompt
        if scale > 1:
            guided = without + scale * (with_prompt - without)
            if rescale > 0:
                guided = rescale_noise_cfg(guided[None], with_prompt[None], rescale)[0]
        results[f"guidance/{name}"] = guided.clone()
    return results


def philox(counter, key):
    """Philox4x32-10 of Salmon et al. 2011."""
    mask = 0xFFFF_FFFF
    for _ in range(10):
        a, b = 0xD251_1F53 * counter[0], 0xCD9E_8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b & mask, a >> 32 ^ counter[3] ^ key[1], a & mask]
        key = [key[0] + 0x9E37_79B9 & mask, key[1] + 0xBB67_AE85 & mask]
    return counter


def gaussian(seed, stream, count):
    """As `diffusion/noise.rs` says it."""
    key = [seed & 0xFFFF_FFFF, seed >> 32]
    words = [philox([block, 0, stream, 1], key) for block in range(-(-count // 4))]
    uniform = (np.array(words, dtype=np.float64).reshape(-1, 2) + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2 * np.log(uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    return torch.from_numpy(values[:count].astype(np.float32))


def main():
    logging.set_verbosity_error()
    generator = torch.Generator().manual_seed(SEED)
    tensors = {
        "noise": torch.randn(STEPS_MAX, VALUES, generator=generator),
        "clean": torch.randn(VALUES, generator=generator).clamp(-1, 1),
        "pattern": torch.randn(VALUES, generator=generator),
    }
    descriptions = []
    out = dict(tensors)
    for case in CASES:
        description, results = run(case, tensors)
        descriptions.append(description)
        out |= results
    out |= guide(tensors)
    guidance = [dict(name=n, scale=s, rescale=r) for n, s, r in GUIDANCE]
    noises = [dict(name=n, seed=str(seed), stream=stream) for n, seed, stream in GAUSSIAN]
    out |= {f"gaussian/{n}": gaussian(seed, stream, 11) for n, seed, stream in GAUSSIAN}
    metadata = dict(cases=descriptions, guidance=guidance, gaussian=noises)
    metadata = {key: json.dumps(value) for key, value in metadata.items()}
    path = HERE / "schedulers.safetensors"
    save_file(out, path, metadata)
    path.chmod(0o644)
    print(f"{len(CASES)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
