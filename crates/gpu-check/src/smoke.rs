//! Whether the device opens, with what the driver, the compiler and cuDNN say of themselves.

use pentimento_gpu::Gpu;
use serde_json::json;

use crate::Answer;
use crate::place::Place;

pub(crate) fn ask(place: &Place) -> anyhow::Result<Answer> {
    let mut lines: Vec<String> = Gpu::libraries()
        .into_iter()
        .map(|(name, found)| match found {
            Ok(version) => format!("{name} {version}"),
            Err(why) => format!("{name}: {why}"),
        })
        .collect();
    for line in &lines {
        eprintln!("{line}");
    }
    let gpu = place.open()?;
    let said = gpu.description();
    let (major, minor) = said.capability;
    lines.push(format!(
        "{}: compute capability {major}.{minor}, {} bytes, {} free",
        said.name,
        said.memory_bytes,
        gpu.free_bytes()?
    ));
    let json = json!({
        "name": said.name,
        "capability": [major, minor],
        "memory_bytes": said.memory_bytes,
        "software": said.software,
    });
    Ok(Answer {
        lines,
        json,
        good: true,
    })
}
