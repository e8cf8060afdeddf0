//! Every preset gets the files of its checkpoint, once it is known that what entries name is there.

use std::collections::HashMap;

use crate::parse::Located;
use crate::{EntryFault, ModelEntry, ModelKind};

/// Checks that the parts of every preset, the LCM-LoRAs of checkpoints and the image encoders of adapters are there, and gives
/// each preset the files of its checkpoint.
pub(crate) fn settle(
    located: &mut [Located],
    find: impl Fn(ModelKind, &str) -> Option<usize>,
) -> Result<(), Vec<EntryFault>> {
    let mut faults = Vec::new();
    let mut bases: HashMap<usize, usize> = HashMap::new();
    for (index, Located { entry, line }) in located.iter().enumerate() {
        let mut fault = |problem: String| {
            faults.push(EntryFault {
                line: *line,
                entry: Some(entry.name.clone()),
                problem,
            });
        };
        if let Some(name) = &entry.image_encoder
            && find(ModelKind::ImageEncoder, name).is_none()
        {
            fault(format!(
                "its image_encoder is `{name}`, which no entry of this file describes; add one, or remove the line where the \
                 encoder lies beside the adapter"
            ));
        }
        if let Some(name) = &entry.lcm_lora
            && find(ModelKind::Lora, name).is_none()
        {
            fault(format!(
                "its lcm_lora is `{name}`, which no entry of this file describes; add one, or remove the line for the LCM-LoRA of \
                 its base"
            ));
        }
        let Some(preset) = &entry.preset else { continue };
        let parts = (preset.vae.iter().map(|name| (ModelKind::Vae, name)))
            .chain(preset.loras.iter().map(|lora| (ModelKind::Lora, &lora.name)))
            .chain(preset.embeddings.iter().map(|name| (ModelKind::Embedding, name)));
        for (kind, name) in parts {
            if find(kind, name).is_none() {
                fault(format!(
                    "it uses the {kind} `{name}`, which no entry of this file describes; add one"
                ));
            }
        }
        let Some(name) = &preset.checkpoint else { continue };
        match find(ModelKind::Checkpoint, name) {
            None => fault(format!(
                "its checkpoint is `{name}`, which no entry of this file describes; add one"
            )),
            Some(base) if is_preset(&located[base].entry) => fault(format!(
                "its checkpoint `{name}` has no files of its own, either; name the checkpoint that has a source"
            )),
            Some(base) => {
                bases.insert(index, base);
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    for (index, base) in bases {
        let base = located[base].entry.clone();
        take_over(&mut located[index].entry, base);
    }
    Ok(())
}

fn is_preset(entry: &ModelEntry) -> bool {
    entry
        .preset
        .as_ref()
        .is_some_and(|preset| preset.checkpoint.is_some())
}

/// What the preset leaves open is as for its checkpoint.
fn take_over(entry: &mut ModelEntry, base: ModelEntry) {
    entry.source = base.source;
    entry.sha256 = base.sha256;
    entry.variant = base.variant;
    entry.base = entry.base.or(base.base);
    entry.role = entry.role.take().or(base.role);
    entry.prediction = entry.prediction.or(base.prediction);
    entry.precision = entry.precision.or(base.precision);
    entry.native_size = entry.native_size.or(base.native_size);
    entry.lcm_lora = entry.lcm_lora.take().or(base.lcm_lora);
    entry.keep_alive = entry.keep_alive.or(base.keep_alive);
    entry.scheduler = std::mem::take(&mut entry.scheduler).or(&base.scheduler);
    // A checkpoint with a source of its own may have a VAE and LoRAs, too.
    if let (Some(preset), Some(inherited)) = (&mut entry.preset, base.preset) {
        preset.vae = preset.vae.take().or(inherited.vae);
        preset.loras.splice(0..0, inherited.loras);
        preset.embeddings.splice(0..0, inherited.embeddings);
    }
}
