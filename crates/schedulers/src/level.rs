//! One noise level, in both parametrisations that samplers use.

/// A noise level: latents are `alpha * image + std * noise` (variance preserving).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    pub(crate) alpha: f64,
    pub(crate) std: f64,
}

impl Level {
    /// The level whose cumulative product is `alpha_bar`.
    pub(crate) fn of_alpha_bar(alpha_bar: f64) -> Self {
        Self {
            alpha: alpha_bar.sqrt(),
            std: (1.0 - alpha_bar).sqrt(),
        }
    }

    /// The level at which the noise is `sigma` times as large as the image is scaled.
    pub(crate) fn of_sigma(sigma: f64) -> Self {
        let alpha = 1.0 / sigma.mul_add(sigma, 1.0).sqrt();
        Self {
            alpha,
            std: sigma * alpha,
        }
    }

    /// Half the logarithm of the signal-to-noise ratio, λ of DPM-Solver. Infinite without noise.
    pub(crate) fn lambda(self) -> f64 {
        self.alpha.ln() - self.std.ln()
    }
}
