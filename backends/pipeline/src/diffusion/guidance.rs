//! What a prompt adds to a denoiser's output.

/// How the outputs with and without the prompt become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// Weight of the prompt, as `guidance_scale` of diffusers: 1 is the output with the prompt alone,
    /// more goes beyond it.
    pub scale: f32,
    /// How far the guided output's spread is brought back to that of the output with the prompt:
    /// not at all at 0, wholly at 1. `guidance_rescale` of diffusers.
    pub rescale: f32,
}

impl Guidance {
    /// The prompt alone: the denoiser need not be asked without it.
    pub const NONE: Self = Self {
        scale: 1.0,
        rescale: 0.0,
    };

    /// Whether the output without the prompt (or with the negative prompt) makes a difference.
    /// Scales up to 1 are taken for none, as diffusers' pipelines do.
    pub fn needs_unconditional(self) -> bool {
        self.scale > 1.0
    }

    /// Makes `conditional`, the output with the prompt, the guided output.
    ///
    /// Classifier-free guidance: `u + scale * (c - u)` (Ho and Salimans 2022, in diffusers' scale),
    /// then rescaling to the deviation of `c` (Lin et al. 2023, section 3.4, equations 15 and 16),
    /// of all values of one sample. A guided output whose values are all the same has no spread
    /// to rescale and is left alone.
    pub fn combine(self, conditional: &mut [f32], unconditional: &[f32]) {
        if self.needs_unconditional() {
            self.mix(conditional, unconditional);
        }
    }

    fn mix(self, conditional: &mut [f32], unconditional: &[f32]) {
        debug_assert_eq!(conditional.len(), unconditional.len());
        let wanted = (self.rescale > 0.0).then(|| deviation(conditional));
        for (value, &without) in conditional.iter_mut().zip(unconditional) {
            *value = without + self.scale * (*value - without);
        }
        let Some(wanted) = wanted else { return };
        let spread = deviation(conditional);
        if spread > 0.0 {
            let rescale = f64::from(self.rescale);
            let factor = rescale * (wanted / spread) + (1.0 - rescale);
            for value in conditional {
                *value = (f64::from(*value) * factor) as f32;
            }
        }
    }
}

impl Guidance {
    /// As [`Self::combine`], where the denoiser gives the velocity of a flow and its spread is that of the clean
    /// `sample` that it stands for at noise level `sigma`, as diffusers' LTX-2 has it. There, a scale below 1 counts
    /// where the other of clip and sound has the output without the prompt computed anyway.
    pub fn combine_flow(
        self,
        conditional: &mut [f32],
        unconditional: &[f32],
        (sample, sigma): (&[f32], f64),
    ) {
        if self.scale == 1.0 {
            return;
        }
        if self.rescale == 0.0 || sigma == 0.0 {
            return self.mix(conditional, unconditional);
        }
        let clean = |velocity: &[f32]| -> Vec<f32> {
            let pairs = velocity.iter().zip(sample);
            pairs
                .map(|(&velocity, &noisy)| (f64::from(noisy) - f64::from(velocity) * sigma) as f32)
                .collect()
        };
        let mut guided = clean(conditional);
        self.mix(&mut guided, &clean(unconditional));
        for ((velocity, &clean), &noisy) in conditional.iter_mut().zip(&guided).zip(sample) {
            *velocity = ((f64::from(noisy) - f64::from(clean)) / sigma) as f32;
        }
    }
}

/// The standard deviation, with Bessel's correction; 0 of fewer than two values.
fn deviation(values: &[f32]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let numbers = || values.iter().map(|&value| f64::from(value));
    let mean = numbers().sum::<f64>() / values.len() as f64;
    let squares: f64 = numbers().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}
