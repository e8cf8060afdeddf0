//! The quantile function of a symmetric Beta distribution, for `use_beta_sigmas` (scipy's `stats.beta.ppf`).

/// The x in 0..1 with I_x(a, a) = p, by bisection on the regularised incomplete beta function.
pub(crate) fn beta_quantile(p: f64, a: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    // Below one half the continued fraction converges fast, and the distribution is symmetric.
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p, a);
    }
    let (mut low, mut high) = (0.0_f64, 0.5_f64);
    let half = incomplete_beta(0.5, a);
    while high - low > f64::EPSILON * high {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        // I_1/2(a, a) is exactly one half, so the ratio needs no gamma functions.
        if 0.5 * incomplete_beta(middle, a) / half < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The incomplete beta function B_x(a, a) up to a constant factor: the continued fraction of DLMF 8.17.22,
/// evaluated with the modified Lentz method.
fn incomplete_beta(x: f64, a: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - 2.0 * a * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (a - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (2.0 * a + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for numerator in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + numerator * d);
            c = away_from_zero(1.0 + numerator / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    x.powf(a) * (1.0 - x).powf(a) * fraction / a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.beta.ppf(p, 0.6, 0.6)
        for (p, expected) in [
            (0.0, 0.0),
            (0.01, SCIPY[0]),
            (0.25, SCIPY[1]),
            (0.5, 0.5),
            (0.9, SCIPY[2]),
            (1.0, 1.0),
        ] {
            let found = beta_quantile(p, 0.6);
            assert!((found - expected).abs() < 1e-9, "{p}: {found} {expected}");
        }
    }

    const SCIPY: [f64; 3] = [
        0.000_861_238_821_542_905_9,
        0.175_680_378_652_694_98,
        0.960_415_594_411_219_2,
    ];
}
