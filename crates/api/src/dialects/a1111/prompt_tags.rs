//! Tags in a prompt, `<lora:name:0.8>`: what they apply, and the prompt without them.
//!
//! As `parse_prompt` of A1111's `modules/extra_networks.py` finds them and `extensions-builtin/Lora` reads them. What it leaves
//! out in silence, an unknown kind of tag or a name that it does not have, is refused.

use pentimento_types::{LoraRef, ModelId};

use super::fields::{MAX_LORA_WEIGHT, MAX_LORAS, PROMPT};
use crate::dialects::lenient::{FieldError, shorten};

/// The prompt without tags, and the LoRAs in their order.
pub(super) fn without_tags(prompt: &str) -> Result<(String, Vec<LoraRef>), FieldError> {
    let mut text = String::with_capacity(prompt.len());
    let mut loras: Vec<LoraRef> = Vec::new();
    let mut rest = prompt;
    while let Some((before, kind, arguments, after)) = next_tag(rest) {
        text.push_str(before);
        rest = after;
        let lora = lora(kind, arguments)?;
        if loras.iter().any(|known| known.model == lora.model) {
            let name = shorten(lora.model.as_str());
            return Err(refused(format_args!(
                "has a tag for the LoRA {name} a second time; write it once"
            )));
        }
        loras.push(lora);
        if loras.len() > MAX_LORAS {
            return Err(refused(format_args!(
                "may have tags for at most {MAX_LORAS} LoRAs"
            )));
        }
    }
    text.push_str(rest);
    Ok((text, loras))
}

/// The first `<word:arguments>`: what is before it, its parts, and what is behind.
fn next_tag(text: &str) -> Option<(&str, &str, &str, &str)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find('<')?;
        let inside = &text[start + 1..];
        let word = inside.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        let arguments = inside[word..].strip_prefix(':');
        let whole = arguments.and_then(|arguments| {
            let end = arguments.find('>').filter(|end| *end > 0)?;
            Some((&arguments[..end], &arguments[end + 1..]))
        });
        if let Some((arguments, after)) = whole.filter(|_| word > 0) {
            return Some((&text[..start], &inside[..word], arguments, after));
        }
        from = start + 1;
    }
}

fn lora(kind: &str, arguments: &str) -> Result<LoraRef, FieldError> {
    if !["lora", "lyco"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
    {
        let kind = shorten(kind);
        return Err(refused(format_args!(
            "has a tag <{kind}:…>; tags here are <lora:name:weight>, and a letter < alone is text"
        )));
    }
    let mut positional = Vec::new();
    let (mut of_text, mut of_unet) = (None, None);
    for argument in arguments.split(':').map(str::trim) {
        match argument.split_once('=') {
            None => positional.push(argument),
            Some(("te", weight)) => of_text = Some(number(weight)?),
            Some(("unet", weight)) => of_unet = Some(number(weight)?),
            Some((other, _)) => {
                let other = shorten(other);
                return Err(refused(format_args!(
                    "has a LoRA's tag with {other}=, which is not known here"
                )));
            }
        }
    }
    let [name, weights @ ..] = positional.as_slice() else {
        return Err(refused(format_args!("has a LoRA's tag without a name")));
    };
    if name.is_empty() || name.len() > 512 || weights.len() > 2 {
        let tag = shorten(arguments);
        return Err(refused(format_args!(
            "has a tag <lora:{tag}>; it is <lora:name:weight>"
        )));
    }
    if let Some(weight) = weights.first() {
        of_text = of_text.or(Some(number(weight)?));
    }
    if let Some(weight) = weights.get(1) {
        of_unet = of_unet.or(Some(number(weight)?));
    }
    let of_text = of_text.unwrap_or(1.0);
    let strength = of_unet.unwrap_or(of_text);
    if strength != of_text {
        let name = shorten(name);
        return Err(refused(format_args!(
            "has a tag for the LoRA {name} with one weight for the text encoder ({of_text}) and another for the UNet \
             ({strength}); a LoRA has one weight here"
        )));
    }
    Ok(LoraRef {
        model: ModelId::new(*name),
        strength,
    })
}

fn number(text: &str) -> Result<f64, FieldError> {
    let number = text.trim().parse().ok();
    number
        .filter(|weight: &f64| weight.abs() <= MAX_LORA_WEIGHT)
        .ok_or_else(|| {
            let (most, found) = (MAX_LORA_WEIGHT, shorten(text));
            refused(format_args!(
                "has a LoRA's tag with a weight of {found:?}; weights go from -{most} to {most}"
            ))
        })
}

fn refused(message: std::fmt::Arguments<'_>) -> FieldError {
    FieldError::value(PROMPT.name, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(prompt: &str) -> (String, Vec<(String, f64)>) {
        let (text, loras) = without_tags(prompt).unwrap();
        let pair = |lora: LoraRef| (lora.model.as_str().to_owned(), lora.strength);
        (text, loras.into_iter().map(pair).collect())
    }

    #[test]
    fn tags_are_taken_out_and_their_loras_kept_in_order() {
        let (text, loras) = read("a <lora:one:0.8>house<lora:two>, <lyco:three.v2:-1.5:-1.5>(red:1.2)");
        assert_eq!(text, "a house, (red:1.2)");
        let expected = [("one", 0.8), ("two", 1.0), ("three.v2", -1.5)];
        assert_eq!(loras, expected.map(|(name, weight)| (name.to_owned(), weight)));
        assert_eq!(read("<lora:a:te=0.5:unet=0.5>x").1, [("a".to_owned(), 0.5)]);
        assert_eq!(read("<lora:a:unet=1>x").1, [("a".to_owned(), 1.0)]);
    }

    #[test]
    fn what_is_no_tag_is_text() {
        for text in [
            "a < b > c",
            "<token>",
            "<lora:>",
            "<lora",
            "<:x>",
            "1 <2: 3",
            "häuser <",
            "<a b:c>",
        ] {
            assert_eq!(read(text), (text.to_owned(), Vec::new()), "{text}");
        }
        assert_eq!(read("<<lora:a:1>>").0, "<>");
    }

    #[test]
    fn what_would_be_left_out_in_silence_is_refused() {
        for (prompt, part) in [
            ("<hypernet:x:1>", "<hypernet:…>"),
            ("<lora:x:much>", "\"much\""),
            ("<lora:x:11>", "from -10 to 10"),
            ("<lora:x:NaN>", "NaN"),
            ("<lora:x:0.5:0.7>", "one weight for the text encoder (0.5)"),
            ("<lora:x:dyn=4>", "dyn="),
            ("<lora:x:1:1:1>", "<lora:name:weight>"),
            ("<lora:x:1><lora:x:1>", "a second time"),
            ("<lora:a><lora:b><lora:c><lora:d><lora:e><lora:f>", "at most 5"),
        ] {
            let error = without_tags(prompt).unwrap_err();
            assert_eq!(error.field, "prompt");
            assert!(error.message.contains(part), "{prompt}: {error}");
        }
    }
}
