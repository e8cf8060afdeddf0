//! The web UI's samplers and what they are here, by the table in diffusers' documentation (`api/schedulers/overview`).

use pentimento_types::{AlgorithmType, NoiseSpacing, SchedulerChoice, SchedulerKind, StrengthRule};
use serde_json::{Value, json};

use super::fields::{ETA, SAMPLER_NAME, SCHEDULER};
use crate::dialects::lenient::{FieldError, shorten};

/// One sampler of the web UI.
#[derive(Clone, Copy, Debug)]
struct Sampler {
    name: &'static str,
    aliases: &'static [&'static str],
    kind: SchedulerKind,
    algorithm: Option<AlgorithmType>,
}

const fn sampler(name: &'static str, aliases: &'static [&'static str], kind: SchedulerKind) -> Sampler {
    Sampler {
        name,
        aliases,
        kind,
        algorithm: None,
    }
}

/// Those that diffusers' table has, and the web UI's others whose method one of ours is. Their aliases are the web UI's.
const SAMPLERS: &[Sampler] = &[
    sampler("DPM++ 2M", &["k_dpmpp_2m"], SchedulerKind::DPMSolverMultistep),
    sampler("DPM++ SDE", &["k_dpmpp_sde"], SchedulerKind::DPMSolverSinglestep),
    Sampler {
        algorithm: Some(AlgorithmType::SdeDpmSolverPlusPlus),
        ..sampler(
            "DPM++ 2M SDE",
            &["k_dpmpp_2m_sde"],
            SchedulerKind::DPMSolverMultistep,
        )
    },
    sampler(
        "Euler a",
        &["k_euler_a", "k_euler_ancestral"],
        SchedulerKind::EulerAncestralDiscrete,
    ),
    sampler("Euler", &["k_euler"], SchedulerKind::EulerDiscrete),
    sampler("LMS", &["k_lms"], SchedulerKind::LMSDiscrete),
    sampler("Heun", &["k_heun"], SchedulerKind::HeunDiscrete),
    sampler("DPM2", &["k_dpm_2"], SchedulerKind::KDPM2Discrete),
    sampler("DPM2 a", &["k_dpm_2_a"], SchedulerKind::KDPM2AncestralDiscrete),
    sampler("DDIM", &["ddim"], SchedulerKind::DDIM),
    sampler("PLMS", &["plms"], SchedulerKind::PNDM),
    sampler("UniPC", &["unipc"], SchedulerKind::UniPCMultistep),
    sampler("LCM", &["k_lcm"], SchedulerKind::LCM),
    sampler("DEIS", &["deis"], SchedulerKind::DEISMultistep),
];
/// The word behind a name, and the name of the spacing.
const KARRAS: &str = "karras";
/// What the aliases of such names end with.
const KARRAS_ALIAS: &str = "_ka";
const AUTOMATIC: &str = "automatic";

/// What a sampler's and a scheduler's name mean together.
pub(super) fn choice(name: &str, scheduler: &str) -> Result<SchedulerChoice, FieldError> {
    let (plain, is_karras) = match name.rsplit_once(' ') {
        Some((plain, word)) if word.eq_ignore_ascii_case(KARRAS) => (plain.trim_end(), true),
        _ => match name.strip_suffix(KARRAS_ALIAS) {
            Some(plain) if find(plain).is_some() => (plain, true),
            _ => (name, false),
        },
    };
    let Some(sampler) = find(plain) else {
        let all: Vec<&str> = SAMPLERS.iter().map(|sampler| sampler.name).collect();
        let (found, all) = (shorten(name), all.join(", "));
        let message = format_args!("has no {found:?}; it is one of {all}, some with \" Karras\" behind");
        return Err(FieldError::value(SAMPLER_NAME.name, message));
    };
    let by_scheduler = match scheduler.to_ascii_lowercase().as_str() {
        KARRAS => true,
        "" | AUTOMATIC => false,
        _ => {
            let found = shorten(scheduler);
            let message = format_args!("must be Automatic or Karras, got {found:?}");
            return Err(FieldError::value(SCHEDULER.name, message));
        }
    };
    let is_karras = is_karras || by_scheduler;
    if is_karras && !sampler.kind.supports_karras_sigmas() {
        let (field, name) = if by_scheduler {
            (SCHEDULER.name, sampler.name)
        } else {
            (SAMPLER_NAME.name, sampler.name)
        };
        let message = format_args!("Karras is not for {name} here; send Automatic, or another sampler");
        return Err(FieldError::value(field, message));
    }
    Ok(SchedulerChoice {
        kind: Some(sampler.kind),
        spacing: if is_karras {
            NoiseSpacing::Karras
        } else {
            NoiseSpacing::Checkpoint
        },
        algorithm: sampler.algorithm,
        strength_rule: StrengthRule::OneStepMore,
    })
}

/// Refuses an `eta` that would make another picture with this sampler.
pub(super) fn check_eta(eta: Option<f64>, kind: Option<SchedulerKind>) -> Result<(), FieldError> {
    let (own, of) = match kind {
        Some(SchedulerKind::DDIM) => (0.0, "DDIM"),
        Some(SchedulerKind::EulerAncestralDiscrete | SchedulerKind::KDPM2AncestralDiscrete) => {
            (1.0, "ancestral samplers")
        }
        _ => return Ok(()),
    };
    match eta {
        Some(eta) if eta != own => Err(FieldError::value(
            ETA.name,
            format_args!("must be {own} with {of}, got {eta}; leave it out or send {own}"),
        )),
        _ => Ok(()),
    }
}

/// The web UI's name for what runs, where it has one.
pub(super) fn name_of(choice: &SchedulerChoice) -> String {
    let same =
        |sampler: &&Sampler| Some(sampler.kind) == choice.kind && sampler.algorithm == choice.algorithm;
    let of_kind = |sampler: &&Sampler| Some(sampler.kind) == choice.kind;
    let found = SAMPLERS.iter().find(same);
    let found = found.or_else(|| SAMPLERS.iter().find(of_kind));
    let name = found.map_or_else(
        || choice.kind.map_or("Euler", SchedulerKind::class_name),
        |sampler| sampler.name,
    );
    let karras = if choice.spacing == NoiseSpacing::Karras {
        " Karras"
    } else {
        ""
    };
    format!("{name}{karras}")
}

/// `GET /sdapi/v1/samplers`: those with Karras levels twice, since clients know either spelling.
pub(super) fn list() -> Vec<Value> {
    let plain = SAMPLERS
        .iter()
        .map(|sampler| json!({"name": sampler.name, "aliases": sampler.aliases, "options": {}}));
    let karras = SAMPLERS
        .iter()
        .filter(|sampler| sampler.kind.supports_karras_sigmas());
    let karras = karras.map(|sampler| {
        let aliases: Vec<String> = sampler
            .aliases
            .iter()
            .map(|alias| format!("{alias}{KARRAS_ALIAS}"))
            .collect();
        json!({
            "name": format!("{} Karras", sampler.name),
            "aliases": aliases,
            "options": {"scheduler": KARRAS},
        })
    });
    plain.chain(karras).collect()
}

/// `GET /sdapi/v1/schedulers`.
pub(super) fn schedulers() -> Value {
    let scheduler = |name: &str, label: &str, rho: f64| json!({"name": name, "label": label, "aliases": null, "default_rho": rho, "need_inner_model": false});
    json!([
        scheduler(AUTOMATIC, "Automatic", -1.0),
        scheduler(KARRAS, "Karras", 7.0)
    ])
}

/// By its name or an alias; or one of ours by its name in diffusers, as the parameters in pictures have it.
fn find(name: &str) -> Option<Sampler> {
    let found = SAMPLERS.iter().copied().find(|sampler| {
        let mut names = std::iter::once(&sampler.name).chain(sampler.aliases);
        names.any(|known| known.eq_ignore_ascii_case(name))
    });
    let of_ours = || {
        let kind = SchedulerKind::parse(name)?;
        Some(sampler(kind.class_name(), &[], kind))
    };
    found.or_else(of_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spacing(name: &str, scheduler: &str) -> NoiseSpacing {
        choice(name, scheduler).unwrap().spacing
    }

    #[test]
    fn karras_is_spelled_in_two_ways() {
        for (name, scheduler) in [
            ("DPM++ 2M Karras", ""),
            ("DPM++ 2M", "Karras"),
            ("dpm++ 2m", "karras"),
            ("DPM++ 2M Karras", "Automatic"),
        ] {
            let found = choice(name, scheduler).unwrap();
            assert_eq!(found.kind, Some(SchedulerKind::DPMSolverMultistep));
            assert_eq!(found.spacing, NoiseSpacing::Karras, "{name} {scheduler}");
            assert_eq!(name_of(&found), "DPM++ 2M Karras");
        }
        assert_eq!(spacing("DPM++ 2M", "automatic"), NoiseSpacing::Checkpoint);
        assert_eq!(
            choice("DPM++ 2M SDE Karras", "").unwrap().algorithm,
            Some(AlgorithmType::SdeDpmSolverPlusPlus)
        );
    }

    #[test]
    fn every_name_of_the_list_is_one_that_is_taken() {
        for item in list() {
            let name = item["name"].as_str().unwrap();
            let found = choice(name, "Automatic").unwrap();
            assert_eq!(name_of(&found), name);
            for alias in item["aliases"].as_array().unwrap() {
                assert_eq!(choice(alias.as_str().unwrap(), "").unwrap(), found, "{alias}");
            }
        }
        for kind in SchedulerKind::ALL {
            assert_eq!(choice(kind.class_name(), "").unwrap().kind, Some(*kind));
        }
        let written = choice("DPMSolverMultistepScheduler Karras", "").unwrap();
        assert_eq!(written, choice("DPM++ 2M Karras", "").unwrap());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (name, scheduler, field) in [
            ("DPM++ 2S a", "", "sampler_name"),
            ("Restart", "", "sampler_name"),
            ("k_lcm_ka", "", "sampler_name"),
            ("Euler a Karras", "", "sampler_name"),
            ("Euler a", "Karras", "scheduler"),
            ("Euler", "Exponential", "scheduler"),
        ] {
            assert_eq!(
                choice(name, scheduler).unwrap_err().field,
                field,
                "{name} {scheduler}"
            );
        }
        let ddim = Some(SchedulerKind::DDIM);
        assert!(check_eta(Some(1.0), ddim).is_err() && check_eta(Some(0.0), ddim).is_ok());
        let ancestral = Some(SchedulerKind::EulerAncestralDiscrete);
        assert!(check_eta(Some(0.5), ancestral).is_err() && check_eta(None, ancestral).is_ok());
        assert!(check_eta(Some(0.5), Some(SchedulerKind::EulerDiscrete)).is_ok());
    }
}
