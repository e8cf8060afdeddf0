//! Reading catalogues, right and wrong, and finding names in them.

mod presets;

use super::*;
use crate::{Availability, Unavailable};

const GOOD: &str = r#"
# A comment.
[[model]]
name    = "realistic-vision-51"
aliases = ["realisticVisionV51.safetensors", "rv51"]
kind    = "checkpoint"
source  = "weights/rv51"
base    = "sd15"

[[model]]
name   = "demo"
kind   = "checkpoint"
source = "embedded:demo"

[[model]]
name   = "lcm-lora"
kind   = "lora"
source = "hf:latent-consistency/lcm-lora-sdv1-5@main:pytorch_lora_weights.safetensors"
role   = "lcm"

[[model]]
name   = "demo.safetensors"
kind   = "vae"
source = "https://example.com/vae.safetensors"
sha256 = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
"#;

fn read(text: &str) -> Result<Catalog, CatalogError> {
    Catalog::from_text(text, Path::new("/data/models.toml"))
}

/// All faults as one text.
fn faults(text: &str) -> String {
    match read(text) {
        Err(CatalogError::Invalid { path: _, faults }) => join_lines(&faults),
        other => panic!("expected faults, found {other:?}"),
    }
}

fn join_lines(faults: &[EntryFault]) -> String {
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

/// A right entry with one line replaced or added.
fn entry(line: &str) -> String {
    let key = line.split('=').next().unwrap().trim();
    let lines = ["name = \"a\"", "kind = \"checkpoint\"", "source = \"a\""];
    let kept = lines.iter().filter(|kept| !kept.starts_with(&format!("{key} ")));
    let kept: Vec<&str> = kept.copied().collect();
    format!("[[model]]\n{}\n{line}\n", kept.join("\n"))
}

fn found(catalog: &Catalog, name: &str, kind: ModelKind) -> Option<String> {
    let entry = catalog.resolve(&ModelId::new(name), kind);
    entry.ok().map(|entry| entry.name.clone())
}

#[test]
fn a_right_file_is_read_whole() {
    let catalog = read(GOOD).unwrap();
    let entries = catalog.entries();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(
        names,
        ["realistic-vision-51", "demo", "lcm-lora", "demo.safetensors"]
    );
    assert_eq!(entries[0].source, Source::Path("/data/weights/rv51".into()));
    assert_eq!(entries[0].base, Some(BaseModel::Sd15));
    assert_eq!(entries[1].source, Source::Embedded("demo".to_owned()));
    let hub = Source::HuggingFace {
        repo: "latent-consistency/lcm-lora-sdv1-5".to_owned(),
        revision: Some("main".to_owned()),
        file: Some("pytorch_lora_weights.safetensors".to_owned()),
    };
    assert_eq!(entries[2].source, hub);
    assert_eq!(entries[2].role.as_deref(), Some(ModelEntry::ROLE_LCM));
    let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(entries[3].sha256.as_deref(), Some(digits));
}

#[test]
fn an_entry_says_its_native_size_and_an_embedded_one_has_its_own() {
    let side = |text: &str| read(text).unwrap().entries()[0].native_side();
    assert_eq!(side(&entry("native_size = 96")), Some(96));
    assert_eq!(side(&entry("base = \"sdxl\"")), None);
    let embedded = entry("source = \"embedded:demo\"");
    assert_eq!(
        side(&embedded),
        Catalog::embedded_only().entries()[0].native_side()
    );
    assert_eq!(side(&format!("{embedded}native_size = 64\n")), Some(64));
}

#[test]
fn the_file_at_the_top_of_the_repository_is_right_and_begins_with_what_is_embedded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models.toml");
    let catalog = Catalog::load(&path).unwrap();
    let entries = catalog.entries();
    // The first one is what callers get who name none, so it must cost no download.
    assert_eq!(entries[..1], *Catalog::embedded_only().entries());
    assert_eq!(entries[0].availability(), Availability::Available);
    for base in [BaseModel::Sd15, BaseModel::Sdxl] {
        let mut loras = entries.iter().filter(|entry| entry.kind == ModelKind::Lora);
        assert!(
            loras.any(|lora| lora.base == Some(base) && lora.role.as_deref() == Some(ModelEntry::ROLE_LCM)),
            "{base} has an LCM-LoRA"
        );
    }
    for (name, kind) in [
        ("dreamshaper_8_93211.safetensors", ModelKind::Checkpoint),
        ("realistic-vision-51", ModelKind::Checkpoint),
        ("vae-ft-mse-840000-ema-pruned.safetensors", ModelKind::Vae),
        ("ip-adapter_sd15", ModelKind::IpAdapter),
        ("ip-adapter_sdxl", ModelKind::IpAdapter),
        ("ip-adapter-plus-face_sd15", ModelKind::IpAdapter),
        ("ip-adapter-plus_sdxl_vit-h", ModelKind::IpAdapter),
        ("ip-adapter-plus-face_sdxl_vit-h", ModelKind::IpAdapter),
        ("RealESRGAN_x4plus", ModelKind::Upscaler),
        ("realesr-general-x4v3", ModelKind::Upscaler),
    ] {
        assert!(
            found(&catalog, name, kind).is_some(),
            "{name} stands in a vendor's documentation"
        );
    }
    for entry in &entries[1..] {
        // What comes from elsewhere than the hub, which has names for contents, says which contents are meant.
        let is_known = match entry.source {
            Source::HuggingFace { .. } => true,
            Source::Https(_) => entry.sha256.is_some(),
            Source::Embedded(_) | Source::Path(_) => false,
        };
        assert!(is_known, "{}", entry.name);
        assert!(!entry.pinned, "{} would be fetched at the start", entry.name);
    }
}

#[test]
fn names_are_found_exactly_without_ending_and_by_alias() {
    let catalog = read(GOOD).unwrap();
    let checkpoint = |name: &str| found(&catalog, name, ModelKind::Checkpoint);
    for name in [
        "realistic-vision-51",
        "realistic-vision-51.safetensors",
        "realistic-vision-51.CKPT",
        "rv51",
        "rv51.pt",
        "realisticVisionV51.safetensors",
        "realisticVisionV51",
        "realisticVisionV51.ckpt",
    ] {
        assert_eq!(checkpoint(name).as_deref(), Some("realistic-vision-51"), "{name}");
    }
    assert_eq!(checkpoint("demo").as_deref(), Some("demo"));
    assert_eq!(
        found(&catalog, "demo", ModelKind::Vae).as_deref(),
        Some("demo.safetensors")
    );
    assert_eq!(found(&catalog, "demo", ModelKind::Lora), None);
    assert_eq!(
        found(&Catalog::embedded_only(), "demo", ModelKind::Checkpoint).as_deref(),
        Some("demo")
    );
}

#[test]
fn strange_names_find_nothing_and_are_repeated_safely() {
    let catalog = read(GOOD).unwrap();
    let long = "a".repeat(4096);
    for name in [
        "",
        ".safetensors",
        "../demo",
        "./demo",
        "/data/weights/rv51",
        "weights/rv51",
        "..\\demo",
        "demo\0",
        "demo\0.safetensors",
        "%2e%2e/demo",
        "demo%00",
        " demo",
        "demo ",
        "DEMO",
        "d\u{435}mo",
        "\u{ff44}emo",
        "demo\u{200b}",
        "demo\u{1b}[31m",
        "demo.safetensors.safetensors",
        &long,
    ] {
        let error = catalog
            .resolve(&ModelId::new(name), ModelKind::Checkpoint)
            .unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CatalogError::NotFound { .. }), "{name}");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.chars().count() < 200, "{text}");
    }
}

#[test]
fn the_nearest_names_are_of_the_same_kind() {
    let catalog = read(GOOD).unwrap();
    let near = |name: &str, kind| match catalog.resolve(&ModelId::new(name), kind) {
        Err(CatalogError::NotFound { nearest, .. }) => nearest,
        other => panic!("{other:?}"),
    };
    assert_eq!(near("DEMO", ModelKind::Checkpoint), ["demo"]);
    assert_eq!(
        near("realistic-vision-v51.safetensors", ModelKind::Checkpoint),
        ["realistic-vision-51"]
    );
    assert!(near("realistic-vision", ModelKind::Lora).is_empty());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn every_fault_names_line_entry_and_way_out() {
    for (line, expected) in [
        (
            "nmae = \"b\"",
            "line 5, model `a`: unknown key `nmae`; did you mean `name`?",
        ),
        (
            "zzzzzz = 1",
            "line 5, model `a`: unknown key `zzzzzz`; the keys are name, aliases",
        ),
        (
            "kind = \"model\"",
            "line 4, model `a`: `model` is no kind; write one of checkpoint, vae",
        ),
        (
            "kind = 7",
            "line 4, model `a`: `kind` must be a text in quotation marks",
        ),
        ("base = \"sd3\"", "`sd3` is no base; write one of sd15, sd2, sdxl"),
        ("role = \"hero\"", "`hero` is no role; write one of lcm"),
        ("name = \"\"", "a name must not be empty"),
        (
            "name = \"a \"",
            "a name must not be empty nor begin or end with a space",
        ),
        ("name = \"a\\u0000b\"", "must not contain control characters"),
        ("aliases = \"b\"", "`aliases` must be a list of texts"),
        ("aliases = [1]", "`aliases` must be a list of texts"),
        ("aliases = [\"b\", \"b\"]", "the alias `b` is there already"),
        ("aliases = [\"a\"]", "the alias `a` is there already"),
        (
            "source = \"embedded:other\"",
            "this binary contains no model `other`; write one of `embedded:demo`",
        ),
        ("source = \"hf:owner\"", "not of the form hf:owner/repo"),
        ("source = \"hf:owner/../etc\"", "not of the form hf:owner/repo"),
        ("source = \"http://example.com/a\"", "`http://` is not supported"),
        ("source = \"file:///etc/passwd\"", "`file://` is not supported"),
        ("source = \"\"", "the source is empty"),
        (
            "source = \"https://example.com/a\"",
            "an https source needs its sha256",
        ),
        ("sha256 = \"abc\"", "`sha256` must be 64 hexadecimal digits"),
        (
            "prediction = \"v\"",
            "`v` is no prediction; write one of epsilon, v_prediction",
        ),
        (
            "variant = \"fp16\"",
            "`variant` chooses among the files of a whole repository",
        ),
        ("scheduler = \"x\"", "write a [model.scheduler] table"),
        (
            "scheduler = { spacing = \"trailing\" }",
            "line 5, model `a`: unknown key `spacing`; did you mean `timestep_spacing`?",
        ),
        (
            "scheduler = { timestep_spacing = \"even\" }",
            "`even` is no timestep_spacing; write one of linspace, leading, trailing",
        ),
        (
            "scheduler = { name = \"Best\" }",
            "`Best` is no scheduler; write one of DDPMScheduler",
        ),
        (
            "scheduler = { timesteps = [749, 999] }",
            "`timesteps` must be a list of falling whole numbers",
        ),
        (
            "scheduler = { timesteps = [] }",
            "`timesteps` must be a list of falling whole numbers",
        ),
        (
            "scheduler = { timesteps = [1000] }",
            "a timestep must be a whole number from 0 to 999",
        ),
        (
            "scheduler = { timesteps = [9.5] }",
            "a timestep must be a whole number from 0 to 999",
        ),
        (
            "precision = \"f16\"",
            "`f16` is no precision; write one of f32, bf16",
        ),
        ("native_size = 32", "`native_size` must be 64 to 4096 pixels"),
        (
            "native_size = 8192",
            "native_size must be a whole number from 0 to 4096",
        ),
        ("pinned = \"yes\"", "`pinned` must be true or false"),
        (
            "keep_alive = 10",
            "`keep_alive` must be a text in quotation marks",
        ),
        (
            "keep_alive = \"10 m\"",
            "must be a time up to a year, like 30s, 10m or 2h",
        ),
        ("keep_alive = \"+1m\"", "must be a time up to a year"),
        ("keep_alive = \"9999999h\"", "must be a time up to a year"),
        ("keep_alive = \"\"", "must be a time up to a year"),
        (
            "loras = \"b\"",
            "`loras` must be a list, like [{ name = \"detail\", strength = 0.8 }]",
        ),
        ("loras = [\"b\"]", "`loras` must be a list, like"),
        ("loras = [{ strength = 1 }]", "`loras` must be a list, like"),
        (
            "loras = [{ name = \"b\", weight = 1 }]",
            "unknown key `weight`; the keys are name, strength",
        ),
        (
            "loras = [{ name = \"b\", strength = inf }]",
            "a strength must be a number, like 0.8",
        ),
        (
            "loras = [{ name = \"b\", strength = 50 }]",
            "a strength must be -5 to 5",
        ),
        (
            "embeddings = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\"]",
            "at most 5 embeddings can be used at once",
        ),
        (
            "checkpoint = \"b\"",
            "the files of its `checkpoint` or a `source` of its own; remove one of the two",
        ),
        (
            "vae = \"b\"",
            "it uses the vae `b`, which no entry of this file describes",
        ),
    ] {
        let found = faults(&entry(line));
        assert!(found.contains(expected), "{line}: {found}");
    }
    let long = format!("name = \"{}\"", "a".repeat(257));
    assert!(faults(&entry(&long)).contains("longer than 256 bytes"));
}

#[test]
fn missing_keys_and_other_tables_are_faults() {
    let found = faults("[[model]]\nname = \"a\"\n");
    assert!(
        found.contains("line 1, model `a`: `kind` is missing; add kind = \"…\""),
        "{found}"
    );
    assert!(found.contains("`source` is missing"), "{found}");
    assert!(faults("[model]\nname = \"a\"\n").contains("write [[model]] with two brackets"));
    assert!(faults("model = [1]\n").contains("write a [[model]] table here"));
    assert!(faults("[server]\nport = 1\n").contains("line 1: `server` means nothing here"));
    assert!(faults("[[model]\n").contains("line 1: this is not TOML"));
    let twice = faults("[[model]]\nname = \"a\"\nname = \"b\"\n");
    assert!(twice.contains("line 3: this is not TOML"), "{twice}");
}

#[test]
fn all_faults_are_reported_at_once() {
    let found = faults("[[model]]\nname = \"a\"\nkind = \"x\"\nsource = \"\"\n\n[[model]]\nnom = \"b\"\n");
    assert!(found.lines().count() >= 5, "{found}");
    assert!(
        found.contains("line 3, model `a`") && found.contains("line 7: unknown key `nom`"),
        "{found}"
    );
}

#[test]
fn a_name_is_taken_once_per_kind_whatever_its_ending() {
    let two = |second: &str| format!("{}{}", entry("name = \"a\""), entry(second));
    for second in ["name = \"a\"", "name = \"a.safetensors\"", "aliases = [\"c\"]"] {
        let found = faults(&two(second));
        assert!(found.contains("is already taken by `a` on line 1"), "{found}");
        assert!(found.contains("line 5, model"), "{found}");
    }
    let alias = two("name = \"b\"").replace("name = \"b\"", "name = \"b\"\naliases = [\"a.pt\"]");
    assert!(faults(&alias).contains("`a.pt` is already taken"));
    assert!(read(&two("name = \"b\"")).is_ok());
    let other_kind = two("name = \"a\"").replacen("checkpoint", "vae", 1);
    assert!(read(&other_kind).is_ok());
    let own_ending = entry("aliases = [\"a.safetensors\"]");
    assert!(read(&own_ending).is_ok());
}

#[test]
fn a_key_that_means_nothing_for_the_kind_is_a_fault() {
    for (line, expected) in [
        (
            "pinned = true",
            "`pinned` means something for checkpoint only, and this is a vae",
        ),
        (
            "role = \"lcm\"",
            "`role` means something for checkpoint and lora only",
        ),
        (
            "scheduler = {}",
            "`scheduler` means something for checkpoint and lora only",
        ),
        ("loras = []", "`loras` means something for checkpoint only"),
    ] {
        let found = faults(&entry(line).replace("checkpoint", "vae"));
        assert!(found.contains(expected), "{line}: {found}");
    }
    let folder_with_sum =
        entry(&format!("sha256 = \"{}\"", "0".repeat(64))).replace("\"a\"\nsha", "\"hf:a/b\"\nsha");
    assert!(faults(&folder_with_sum).contains("a sha256 belongs to one file"));
}

#[test]
fn a_checkpoint_names_its_lcm_lora_and_a_preset_of_it_has_the_same() {
    let lora = entry("name = \"fast\"").replace("checkpoint", "lora");
    let preset = "[[model]]\nname = \"p\"\nkind = \"checkpoint\"\ncheckpoint = \"a\"\n";
    let base = entry("lcm_lora = \"fast\"") + "native_size = 96\n";
    let catalog = read(&format!("{base}{preset}{lora}")).unwrap();
    for entry in &catalog.entries()[..2] {
        assert_eq!(entry.lcm_lora.as_deref(), Some("fast"), "{}", entry.name);
        assert_eq!(entry.native_side(), Some(96), "{}", entry.name);
    }
    for (text, expected) in [
        (
            entry("lcm_lora = \"fast\""),
            "its lcm_lora is `fast`, which no entry of this file describes; add one, or remove the line",
        ),
        (
            entry("lcm_lora = \"fast\"").replace("checkpoint", "lora") + &lora,
            "`lcm_lora` means something for checkpoint only",
        ),
    ] {
        let found = faults(&text);
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn an_ip_adapter_names_its_image_encoder_which_may_be_a_folder_of_a_repository() {
    let adapter = |line: &str| entry(line).replace("checkpoint", "ip_adapter");
    let encoder = "[[model]]\nname = \"e\"\nkind = \"image_encoder\"\nsource = \"hf:owner/repo:models/image_encoder/\"\n\
                   variant = \"fp16\"\n";
    let catalog = read(&format!("{}{encoder}", adapter("image_encoder = \"e\""))).unwrap();
    assert_eq!(catalog.entries()[0].image_encoder.as_deref(), Some("e"));
    let source = &catalog.entries()[1].source;
    assert_eq!(source.repository_folder(), Some("models/image_encoder"));
    assert_eq!(source.to_string(), "hf:owner/repo:models/image_encoder/");
    // Without the line it lies beside the file.
    assert_eq!(
        read(&adapter("base = \"sd15\"")).unwrap().entries()[0].image_encoder,
        None
    );
    for (text, expected) in [
        (
            adapter("image_encoder = \"e\""),
            "its image_encoder is `e`, which no entry of this file describes",
        ),
        (
            adapter("image_encoder = 1"),
            "`image_encoder` must be a text in quotation marks",
        ),
        (
            entry("image_encoder = \"e\""),
            "`image_encoder` means something for ip_adapter only",
        ),
        (
            adapter("source = \"hf:owner/repo:/\""),
            "not of the form hf:owner/repo",
        ),
        (
            adapter("source = \"hf:owner/repo:a/../\""),
            "not of the form hf:owner/repo",
        ),
        (
            format!("{encoder}sha256 = \"{}\"\n", "0".repeat(64)),
            "a sha256 belongs to one file",
        ),
    ] {
        let found = faults(&text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    let [lone, whole] = ["hf:owner/repo:a.bin", "hf:owner/repo"].map(|source| {
        let catalog = read(&entry(&format!("source = \"{source}\""))).unwrap();
        catalog.entries()[0].source.repository_folder().map(str::to_owned)
    });
    assert_eq!((lone, whole), (None, Some(String::new())));
}

#[test]
fn an_empty_catalogue_is_right() {
    assert!(read("").unwrap().entries().is_empty());
    assert!(read("# nothing yet\n").unwrap().entries().is_empty());
}

#[test]
fn missing_and_empty_folders_are_reported_on_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("models.toml");
    fs_err::write(&path, entry("source = \"weights\"")).unwrap();
    let catalog = Catalog::load(&path).unwrap();
    let look = || catalog.entries()[0].availability();
    let reason = |availability: Availability| match availability {
        Availability::Available => panic!("it should not be there"),
        Availability::Unavailable(reason) => reason,
    };
    let weights = folder.path().join("weights");
    let missing = reason(look());
    assert_eq!(
        missing,
        Unavailable::Missing {
            path: weights.clone()
        }
    );
    assert!(
        !missing.to_string().contains("weights"),
        "safe to show: {missing}"
    );
    fs_err::create_dir(&weights).unwrap();
    assert_eq!(
        reason(look()),
        Unavailable::Empty {
            path: weights.clone()
        }
    );
    fs_err::write(weights.join("model_index.json"), "{}").unwrap();
    assert_eq!(look(), Availability::Available);

    let hub = read(&entry("source = \"hf:owner/repo\"")).unwrap();
    assert_eq!(
        reason(hub.entries()[0].availability()),
        Unavailable::NotDownloaded
    );
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let error = Catalog::load(Path::new("/nowhere/models.toml")).unwrap_err();
    assert!(matches!(error, CatalogError::Unreadable { .. }));
    assert!(error.to_string().contains("/nowhere/models.toml"));
}
