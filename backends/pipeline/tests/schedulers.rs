//! Schedulers against what diffusers computed (`tests/models/diffusion/schedulers.py`).

use mote_pipeline::{
    Guidance, Scheduler, SchedulerConfig, SchedulerError, SchedulerKind, Timing, flow_sigmas,
    gaussian,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

const GOLDEN: &[u8] = include_bytes!("../../../tests/models/diffusion/schedulers.safetensors");
/// Largest difference from diffusers, of the larger of 1 and the golden value.
const TOLERANCE: f64 = 5e-6;
/// At a noise level of 4096, f32 arithmetic loses what is here of a sample in the first step of
/// diffusers; ours rounds once and does not.
const LOSSY: (&str, f64) = ("euler/zero-snr", 3e-5);

struct Golden {
    file: SafeTensors<'static>,
    metadata: std::collections::HashMap<String, String>,
}

impl Golden {
    fn open() -> Self {
        let (_, metadata) = SafeTensors::read_metadata(GOLDEN).unwrap();
        Self {
            file: SafeTensors::deserialize(GOLDEN).unwrap(),
            metadata: metadata.metadata().clone().unwrap(),
        }
    }

    fn list(&self, name: &str) -> Vec<Value> {
        serde_json::from_str(&self.metadata[name]).unwrap()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let bytes = self.file.tensor(name).unwrap().data().chunks_exact(4);
        bytes
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    fn f64(&self, name: &str) -> Option<Vec<f64>> {
        let bytes = self.file.tensor(name).ok()?.data().chunks_exact(8);
        let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
        Some(bytes.map(number).collect())
    }

    /// The noise of each step; that of the first sample is the last.
    fn noise(&self) -> Vec<Vec<f32>> {
        let values = self.f32("clean").len();
        self.f32("noise")
            .chunks(values)
            .map(<[f32]>::to_vec)
            .collect()
    }
}

/// One case of the file.
struct Case {
    name: String,
    config: SchedulerConfig,
    steps: u32,
    timing: Timing,
    train: f32,
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    Some(
        value
            .as_array()?
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect(),
    )
}

fn config(config: &Value) -> Result<SchedulerConfig, SchedulerError> {
    SchedulerConfig::parse(config.to_string().as_bytes())
}

impl Case {
    fn new(description: &Value) -> Self {
        let timing = &description["timing"];
        let number = |name: &str| timing[name].as_f64().map(|number| number as f32);
        let name = description["name"].as_str().unwrap().to_owned();
        let config = config(&description["config"]);
        let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            steps: description["steps"].as_u64().unwrap() as u32,
            timing: Timing {
                sequence_length: timing["sequence_length"].as_u64().map(|n| n as usize),
                strength: number("strength"),
                timesteps: numbers(&timing["timesteps"]),
                sigmas: numbers(&timing["sigmas"]),
                eta: number("eta").unwrap_or(0.0),
            },
            train: config.train_timesteps().unwrap() as f32,
            config,
            name,
        }
    }

    fn open(&self) -> Box<dyn Scheduler> {
        let opened = self.config.open(None, self.steps, &self.timing);
        opened.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// The denoiser of the script.
fn denoise(input: &[f32], timestep: f64, pattern: &[f32], train: f32) -> Vec<f32> {
    let share = timestep as f32 / train;
    let value = |(&x, &p): (&f32, &f32)| {
        let bounded = x / (1.0 + x.abs());
        0.55f32 * bounded + 0.3f32 * p * share + 0.1f32 * x
    };
    input.iter().zip(pattern).map(value).collect()
}

/// Runs step `index` on `sample`; what was estimated before.
fn take(
    scheduler: &mut dyn Scheduler,
    index: usize,
    sample: &mut [f32],
    golden: &Golden,
    train: f32,
) -> Vec<f32> {
    let timestep = scheduler.timesteps()[index];
    let mut input = sample.to_vec();
    scheduler.scale_model_input(index, &mut input);
    let output = denoise(&input, timestep, &golden.f32("pattern"), train);
    let estimate = scheduler.estimate(index, &output, sample);
    let noise = golden.noise();
    let mut replay = |drawn: &mut [f32]| drawn.copy_from_slice(&noise[index]);
    scheduler.step(index, &output, sample, &mut replay).unwrap();
    estimate
}

/// The sample that a case begins with.
fn begin(case: &Case, scheduler: &dyn Scheduler, golden: &Golden) -> Vec<f32> {
    let noise = golden.noise().pop().unwrap();
    if case.timing.strength.is_some() {
        let mut sample = golden.f32("clean");
        scheduler.add_noise(0, &mut sample, &noise);
        return sample;
    }
    let scale = scheduler.init_noise_sigma();
    let scaled = |value: &f32| (f64::from(*value) * scale) as f32;
    noise.iter().map(scaled).collect()
}

/// The largest difference, of the larger of 1 and the golden value.
fn difference(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let pairs = got.iter().zip(want);
    let differences = pairs.map(|(got, want)| (got - want).abs() / want.abs().max(1.0));
    // Not `max`, which would pass NaN over.
    differences.fold(0.0, |largest, d| if d <= largest { largest } else { d })
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[test]
fn every_step_is_that_of_diffusers() {
    let golden = Golden::open();
    let cases: Vec<Case> = golden.list("cases").iter().map(Case::new).collect();
    assert!(cases.len() > 80, "{}", cases.len());
    let mut failed = Vec::new();
    let mut largest = (0.0, String::new());
    for case in cases {
        let mut scheduler = case.open();
        let values = golden.f32("clean").len();
        let of = |what: &str| format!("{}/{what}", case.name);
        let mut found = vec![(
            "timesteps",
            difference(
                scheduler.timesteps(),
                &golden.f64(&of("timesteps")).unwrap(),
            ),
        )];
        let steps = scheduler.timesteps().len();
        if let Some(want) = golden.f64(&of("sigmas")) {
            // Levels of an inverted flow are those of the clean sample.
            let inverted = want.last() == Some(&1.0);
            let level = |i| {
                let sigma = scheduler.sigma(i);
                if inverted { 1.0 - sigma } else { sigma }
            };
            let got: Vec<f64> = (0..=steps).map(level).collect();
            found.push(("sigmas", difference(&got, &want[..=steps])));
        }
        let scale = golden.f64(&of("init_noise_sigma")).unwrap();
        found.push(("scale", difference(&[scheduler.init_noise_sigma()], &scale)));
        let (samples, estimates) = (golden.f32(&of("samples")), golden.f32(&of("estimates")));
        let mut sample = begin(&case, &*scheduler, &golden);
        found.push((
            "first",
            difference(&wide(&sample), &wide(&samples[..values])),
        ));
        for index in 0..steps {
            let got = take(&mut *scheduler, index, &mut sample, &golden, case.train);
            let at = |list: &[f32], row: usize| wide(&list[row * values..][..values]);
            found.push(("estimate", difference(&wide(&got), &at(&estimates, index))));
            found.push((
                "sample",
                difference(&wide(&sample), &at(&samples, index + 1)),
            ));
        }
        let tolerance = if case.name == LOSSY.0 {
            LOSSY.1
        } else {
            TOLERANCE
        };
        for (what, difference) in found {
            if difference > largest.0 && case.name != LOSSY.0 {
                largest = (difference, format!("{} {what}", case.name));
            }
            let is_close = difference <= tolerance;
            if !is_close {
                failed.push(format!("{} {what}: {difference:e}", case.name));
            }
        }
    }
    eprintln!("largest difference {:e}: {}", largest.0, largest.1);
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A run that stops after any step and goes on from sample and history has the same bits.
#[test]
fn a_restored_run_is_identical() {
    let golden = Golden::open();
    for case in golden.list("cases").iter().map(Case::new) {
        let mut whole = case.open();
        let mut sample = begin(&case, &*whole, &golden);
        let steps = whole.timesteps().len();
        let mut states = vec![(sample.clone(), whole.history())];
        for index in 0..steps {
            take(&mut *whole, index, &mut sample, &golden, case.train);
            states.push((sample.clone(), whole.history()));
        }
        for (index, (mut restored, history)) in states.into_iter().enumerate() {
            let mut part = case.open();
            part.restore(index, history).unwrap();
            for index in index..steps {
                take(&mut *part, index, &mut restored, &golden, case.train);
            }
            let bits =
                |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
            assert_eq!(bits(&restored), bits(&sample), "{} from {index}", case.name);
        }
    }
}

#[test]
fn multistep_methods_refuse_foreign_history_and_steps_out_of_order() {
    for class in ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"] {
        let config = config(&json!({"_class_name": class})).unwrap();
        let mut scheduler = config.open(None, 5, &Timing::default()).unwrap();
        let mut sample = vec![1.0; 4];
        let step = |scheduler: &mut dyn Scheduler, index, output: &[f32], sample: &mut [f32]| {
            scheduler.step(index, output, sample, &mut |_| {})
        };
        let error = step(&mut *scheduler, 1, &[0.5; 4], &mut sample).unwrap_err();
        assert!(
            matches!(
                error,
                SchedulerError::OutOfOrder {
                    index: 1,
                    expected: 0
                }
            ),
            "{error}"
        );
        let error = step(&mut *scheduler, 0, &[0.5; 3], &mut sample).unwrap_err();
        assert!(
            matches!(error, SchedulerError::Length { got: 3, .. }),
            "{error}"
        );
        assert_eq!(sample, [1.0; 4], "a refused step changes nothing");
        step(&mut *scheduler, 0, &[0.5; 4], &mut sample).unwrap();
        let error = step(&mut *scheduler, 1, &[0.5; 3], &mut sample[..3]).unwrap_err();
        assert!(matches!(error, SchedulerError::Length { .. }), "{error}");
        let history = scheduler.history();
        let error = scheduler.restore(0, history.clone()).unwrap_err();
        assert!(
            matches!(error, SchedulerError::History { expected: 0, .. }),
            "{error}"
        );
        let error = scheduler.restore(6, history.clone()).unwrap_err();
        assert!(
            matches!(error, SchedulerError::NoSuchStep { .. }),
            "{error}"
        );
        let short = history.iter().map(|tensor| tensor[..2].to_vec()).collect();
        scheduler.restore(1, short).unwrap();
        let error = step(&mut *scheduler, 1, &[0.5; 4], &mut sample).unwrap_err();
        assert!(matches!(error, SchedulerError::Length { .. }), "{error}");
    }
}

fn refusal(options: Value, steps: u32, timing: &Timing) -> String {
    let opened = config(&options).and_then(|config| config.open(None, steps, timing).map(drop));
    let error = opened.expect_err(&format!("{options} with {timing:?}"));
    error.to_string()
}

#[test]
fn options_that_would_change_numbers_are_refused_by_name() {
    let flow = "FlowMatchEulerDiscreteScheduler";
    let dpm = "DPMSolverMultistepScheduler";
    let unipc = "UniPCMultistepScheduler";
    for (class, option, value) in [
        (flow, "use_karras_sigma", json!(true)),
        (flow, "snr_shift_scale", json!(3.0)),
        (flow, "shift", json!("3")),
        (flow, "shift", json!(-1.0)),
        (flow, "time_shift_type", json!("cubic")),
        (flow, "shift_terminal", json!(1.0)),
        (flow, "num_train_timesteps", json!(1e9)),
        (flow, "num_train_timesteps", json!(1_000_000)),
        (dpm, "algorithm_type", json!("dpmsolver")),
        (dpm, "variance_type", json!("learned_range")),
        (dpm, "solver_order", json!(4)),
        (dpm, "use_dynamic_shifting", json!(true)),
        (dpm, "prediction_type", json!("flow_prediction")),
        (unipc, "solver_p", json!({})),
        (unipc, "shift_terminal", json!(0.1)),
        (unipc, "disable_corrector", json!([-1])),
        ("DDIMScheduler", "beta_schedule", json!("sigmoid")),
        ("DDIMScheduler", "beta_start", json!(2.0)),
        ("DDIMScheduler", "trained_betas", json!([0.1, 0.2])),
        ("DDIMScheduler", "timestep_spacing", json!("even")),
        ("DDIMScheduler", "clip_sample", json!(1)),
        ("LCMScheduler", "prediction_type", json!("flow_prediction")),
        ("LCMScheduler", "original_inference_steps", json!(0)),
        ("EulerDiscreteScheduler", "final_sigmas_type", json!("one")),
        (
            "EulerDiscreteScheduler",
            "interpolation_type",
            json!("cubic"),
        ),
    ] {
        let message = refusal(
            json!({"_class_name": class, option: value}),
            4,
            &Timing::default(),
        );
        assert!(message.contains(option), "{class} {option}: {message}");
    }
    let both = json!({"_class_name": flow, "use_karras_sigmas": true, "use_beta_sigmas": true});
    assert!(refusal(both, 4, &Timing::default()).contains("use_beta_sigmas"));
    let message = refusal(
        json!({"_class_name": "PNDMScheduler"}),
        4,
        &Timing::default(),
    );
    assert!(message.contains("PNDMScheduler"), "{message}");
}

#[test]
fn a_configuration_is_bounded_json_of_any_length_of_names() {
    assert!(matches!(
        SchedulerConfig::parse(&vec![b' '; mote_pipeline::CONFIG_BYTES_MAX + 1]),
        Err(SchedulerError::TooLarge { .. })
    ));
    for json in [
        "",
        "[]",
        "{",
        "{\"shift\": }",
        "{\"_a\": \"\\",
        "{\"a\": -Infinit}",
    ] {
        let parsed = SchedulerConfig::parse(json.as_bytes());
        assert!(
            matches!(parsed, Err(SchedulerError::Malformed(_))),
            "{json}"
        );
    }
    // As diffusers writes it, with options of other methods and Python's infinity.
    let real = br#"{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.32.0",
        "lambda_min_clipped": -Infinity, "skip_prk_steps": true, "clip_sample": false,
        "trained_betas": null, "solver_p": null, "variance_type": null}"#;
    let config = SchedulerConfig::parse(real).unwrap();
    assert_eq!(config.kind().unwrap(), SchedulerKind::DpmSolverMultistep);
}

#[test]
fn requests_out_of_range_are_refused_before_a_schedule_is_made() {
    let flow = json!({"_class_name": "FlowMatchEulerDiscreteScheduler"});
    let dynamic =
        json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true});
    let ddim = json!({"_class_name": "DDIMScheduler"});
    let small = json!({"_class_name": "DDIMScheduler", "num_train_timesteps": 10});
    let lcm = json!({"_class_name": "LCMScheduler"});
    let karras = json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true});
    let list = |values: &[f64]| Some(values.to_vec());
    let none = Timing::default;
    let strength = |strength| Timing {
        strength: Some(strength),
        ..none()
    };
    let timesteps = |values: &[f64]| Timing {
        timesteps: list(values),
        ..none()
    };
    let sigmas = |values: &[f64]| Timing {
        sigmas: list(values),
        ..none()
    };
    for (options, steps, timing, field) in [
        (&flow, 0, none(), "steps"),
        (&flow, u32::MAX, none(), "steps"),
        (&small, 11, none(), "steps"),
        (&lcm, 51, none(), "steps"),
        (&flow, 4, strength(0.1), "strength"),
        (&flow, 4, strength(0.0), "strength"),
        (&flow, 4, strength(1.5), "strength"),
        (&flow, 4, strength(f32::NAN), "strength"),
        (&flow, 3, timesteps(&[900.0, 500.0]), "timesteps"),
        (&flow, 2, timesteps(&[500.0, 900.0]), "timesteps"),
        (&flow, 2, timesteps(&[1001.0, 900.0]), "timesteps"),
        (&flow, 2, timesteps(&[f64::NAN, 900.0]), "timesteps"),
        (&flow, 2, sigmas(&[1.5, 0.5]), "sigmas"),
        (&flow, 2, sigmas(&[0.5, -0.5]), "sigmas"),
        (&ddim, 2, timesteps(&[900.0, 500.0]), "timesteps"),
        (&lcm, 2, sigmas(&[0.9, 0.5]), "sigmas"),
        (&karras, 2, timesteps(&[900.0, 500.0]), "timesteps"),
        (&dynamic, 4, none(), "sequence_length"),
        (
            &dynamic,
            4,
            Timing {
                sequence_length: Some(usize::MAX),
                ..none()
            },
            "sequence_length",
        ),
        (&flow, 4, Timing { eta: 0.5, ..none() }, "eta"),
        (&ddim, 4, Timing { eta: 1.5, ..none() }, "eta"),
    ] {
        let config = config(options).unwrap();
        match config.open(None, steps, &timing).map(drop) {
            Err(SchedulerError::Timing { field: got, .. }) => assert_eq!(got, field),
            other => panic!("{options} {steps} {timing:?}: {other:?}"),
        }
    }
    // Without signal at the last step, noise does not tell what the sample was.
    let blind = json!({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true,
        "timestep_spacing": "trailing"});
    let opened = config(&blind).unwrap().open(None, 4, &Timing::default());
    assert!(matches!(
        opened.map(drop),
        Err(SchedulerError::Undefined { index: 0, .. })
    ));
}

#[test]
fn another_method_can_be_asked_for_within_a_models_family() {
    let shifted = |class: &str, option: &str| json!({"_class_name": class, option: 5.0});
    let flow = config(&shifted("FlowMatchEulerDiscreteScheduler", "shift")).unwrap();
    let wan = json!({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true,
        "prediction_type": "flow_prediction", "flow_shift": 5.0});
    let wan = config(&wan).unwrap();
    let timing = Timing {
        strength: Some(0.7),
        ..Timing::default()
    };
    for kind in [
        SchedulerKind::FlowMatchEuler,
        SchedulerKind::DpmSolverMultistep,
        SchedulerKind::UniPcMultistep,
    ] {
        let [a, b] = [&flow, &wan].map(|config| config.open(Some(kind), 10, &timing).unwrap());
        assert_eq!(a.timesteps(), b.timesteps(), "{kind}");
        assert_eq!(a.timesteps().len(), 7);
    }
    let noise = config(&json!({"_class_name": "DDIMScheduler", "clip_sample": false})).unwrap();
    for kind in SchedulerKind::ALL {
        assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
        let opened = noise.open(Some(kind), 10, &Timing::default()).map(drop);
        assert_eq!(
            opened.is_ok(),
            kind != SchedulerKind::FlowMatchEuler,
            "{kind}"
        );
        let opened = flow.open(Some(kind), 10, &Timing::default()).map(drop);
        let straight = [
            SchedulerKind::FlowMatchEuler,
            SchedulerKind::DpmSolverMultistep,
            SchedulerKind::UniPcMultistep,
        ];
        assert_eq!(opened.is_ok(), straight.contains(&kind), "{kind}");
    }
}

#[test]
fn trailing_schedules_have_the_steps_that_were_asked_for() {
    let euler = json!({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"});
    let config = config(&euler).unwrap();
    for steps in 1..=1000 {
        let scheduler = config.open(None, steps, &Timing::default()).unwrap();
        assert_eq!(scheduler.timesteps().len(), steps as usize);
    }
}

#[test]
fn even_levels_are_those_of_the_pipelines() {
    assert_eq!(flow_sigmas(4), [1.0, 0.75, 0.5, 0.25]);
}

#[test]
fn guidance_is_that_of_diffusers_pipelines() {
    let golden = Golden::open();
    let noise = golden.noise();
    let list = golden.list("guidance");
    assert_eq!(list.len(), 4);
    for description in list {
        let number = |name: &str| description[name].as_f64().unwrap() as f32;
        let guidance = Guidance {
            scale: number("scale"),
            rescale: number("rescale"),
        };
        let mut guided = noise[0].clone();
        guidance.combine(&mut guided, &noise[1]);
        let name = description["name"].as_str().unwrap();
        let want = golden.f32(&format!("guidance/{name}"));
        let difference = difference(&wide(&guided), &wide(&want));
        assert!(difference <= 1e-6, "{name}: {difference:e}");
    }
    let mut still = [2.0, 2.0];
    let guidance = Guidance {
        scale: 3.0,
        rescale: 1.0,
    };
    guidance.combine(&mut still, &[2.0, 2.0]);
    assert_eq!(still, [2.0, 2.0], "what has no spread stays finite");
}

#[test]
fn noise_is_a_function_of_seed_stream_and_place() {
    let golden = Golden::open();
    for description in golden.list("gaussian") {
        let name = description["name"].as_str().unwrap();
        let seed: u64 = description["seed"].as_str().unwrap().parse().unwrap();
        let stream = description["stream"].as_u64().unwrap() as u32;
        let want = golden.f32(&format!("gaussian/{name}"));
        for count in 0..=want.len() {
            let mut got = vec![f32::NAN; count];
            gaussian(seed, stream, &mut got);
            let difference = difference(&wide(&got), &wide(&want[..count]));
            assert!(difference <= 1e-7, "{name}: {got:?} {want:?}");
        }
    }
}

#[test]
fn noise_is_normal() {
    let mut values = vec![0.0; 1 << 18];
    gaussian(20_261_128, 3, &mut values);
    let count = values.len() as f64;
    let moment = |power| wide(&values).iter().map(|v| v.powi(power)).sum::<f64>() / count;
    for (power, want, tolerance) in [
        (1, 0.0, 0.01),
        (2, 1.0, 0.015),
        (3, 0.0, 0.04),
        (4, 3.0, 0.1),
    ] {
        let got = moment(power);
        assert!((got - want).abs() < tolerance, "moment {power}: {got}");
    }
    // Neighbours, and streams, are independent.
    let mut other = vec![0.0; values.len()];
    gaussian(20_261_128, 4, &mut other);
    let product =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>() / count;
    for correlation in [product(&values, &values[1..]), product(&values, &other)] {
        assert!(correlation.abs() < 0.01, "{correlation}");
    }
}

/// A small generator for [`no_configuration_panics`].
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Whatever options say, a schedule is refused, or has timesteps that are numbers and steps that
/// can be taken.
#[test]
fn no_configuration_panics() {
    const SEED: u64 = 20_261_128;
    eprintln!("seed {SEED}");
    let mut random = Random(SEED);
    let flags = json!([true, false, null]);
    let numbers = json!([
        0, 1, 0.5, 1e-12, 3, -2, 20, 700, 1e9, -1e300, "Infinity", null
    ]);
    let words = json!([
        "linear",
        "scaled_linear",
        "squaredcos_cap_v2",
        "epsilon",
        "sample",
        "v_prediction",
        "flow_prediction",
        "leading",
        "trailing",
        "linspace",
        "zero",
        "sigma_min",
        "heun",
        "bh1",
        "sde-dpmsolver++",
        "log_linear",
        "continuous",
        "exponential"
    ]);
    let names = [
        (
            "clip_sample rescale_betas_zero_snr thresholding use_karras_sigmas use_beta_sigmas \
          use_exponential_sigmas use_flow_sigmas use_lu_lambdas lower_order_final predict_x0 \
          euler_at_final set_alpha_to_one invert_sigmas stochastic_sampling use_dynamic_shifting",
            flags,
        ),
        (
            "beta_start beta_end shift flow_shift base_shift max_shift shift_terminal sigma_min \
          sigma_max steps_offset solver_order clip_sample_range sample_max_value \
          num_train_timesteps original_inference_steps timestep_scaling lambda_min_clipped \
          dynamic_thresholding_ratio base_image_seq_len max_image_seq_len",
            numbers,
        ),
        (
            "beta_schedule prediction_type timestep_spacing final_sigmas_type solver_type \
          algorithm_type interpolation_type timestep_type time_shift_type",
            words,
        ),
    ];
    let mut opened = 0;
    for _ in 0..4_000 {
        let kind = random.of(&SchedulerKind::ALL);
        let mut options = json!({"_class_name": kind.class()});
        for _ in 0..random.below(6) {
            let (names, values) = random.of(&names);
            let names: Vec<&str> = names.split_whitespace().collect();
            let name = random.of(&names);
            options[name] = random.of(values.as_array().unwrap());
        }
        let steps = random.of(&[1, 2, 3, 7, 20, 61, 1000]);
        let timing = Timing {
            sequence_length: random.of(&[None, Some(1), Some(3000)]),
            strength: random.of(&[None, Some(0.3)]),
            ..Timing::default()
        };
        let scheduler = config(&options).and_then(|c| c.open(None, steps as u32, &timing));
        let Ok(mut scheduler) = scheduler else {
            continue;
        };
        opened += 1;
        let taken = scheduler.timesteps().len();
        assert!(
            (1..=steps).contains(&taken),
            "{options}: {taken} of {steps}"
        );
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        assert!(finite(scheduler.timesteps()), "{options}");
        let mut sample = vec![0.5, -1.0];
        for index in 0..taken {
            scheduler.scale_model_input(index, &mut sample.clone());
            scheduler.add_noise(index, &mut sample.clone(), &[1.0, 2.0]);
            let output = [0.1, f32::NAN];
            let stepped = scheduler.step(index, &output, &mut sample, &mut |_| {});
            stepped.unwrap_or_else(|error| panic!("{options}: {error}"));
        }
        let _ = (scheduler.sigma(taken), scheduler.history());
    }
    eprintln!("{opened} opened");
    assert!(opened > 1_000, "{opened}");
}

#[test]
fn methods_are_known_by_class_and_by_a_short_name() {
    for kind in SchedulerKind::ALL {
        assert_eq!(kind.class().parse::<SchedulerKind>().unwrap(), kind);
        assert_eq!(kind.short().parse::<SchedulerKind>().unwrap(), kind);
    }
    assert!("no such method".parse::<SchedulerKind>().is_err());
}
