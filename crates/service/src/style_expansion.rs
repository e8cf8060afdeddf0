//! The enhancer that is always there: phrases of a short list, chosen by the caller's words, with no weights and no chance.
//!
//! The phrases are those that the replies of ModelsLab's service show behind a prompt (`meta.prompt` of its pages of 2023:
//! "hyperrealistic, full body, detailed clothing, highly detailed, cinematic lighting, …, HDR 4K, 8K") and in `meta.negative_prompt`
//! (the sample reply of its page of img2img). Left out of the first list is what says what a picture shows and not how it is made, such
//! as "full body", since a picture to start from has its own contents; and what two pages disagree about.

use crate::ServiceError;
use crate::prompt_enhancer::{Additions, PromptEnhancer, PromptWords};

/// Of every picture.
const ALWAYS: &[&str] = &["highly detailed", "intricate", "sharp focus"];
/// Of photographs, which is what a prompt that names no technique is taken for.
const PHOTOGRAPH: &[&str] = &["hyperrealistic", "professionally color graded", "HDR", "8K"];
/// One of them for a photograph.
const LIGHT: &[&str] = &[
    "cinematic lighting",
    "bright soft diffused light",
    "volumetric fog",
];
/// One of them for a photograph.
const LENS: &[&str] = &["85mm, f/1.8", "centered image composition"];
/// Of what is drawn, painted or rendered: words about lenses would make a photograph of it.
const DRAWN: &[&str] = &["clean lines", "harmonious colors", "centered image composition"];
/// A prompt with one of these is not taken for a photograph.
const TECHNIQUES: &[&str] = &[
    "anime",
    "art",
    "cartoon",
    "charcoal",
    "claymation",
    "comic",
    "crayon",
    "doodle",
    "drawing",
    "drawn",
    "engraving",
    "etching",
    "gouache",
    "graffiti",
    "icon",
    "illustration",
    "ink",
    "lego",
    "lineart",
    "logo",
    "lowpoly",
    "manga",
    "mosaic",
    "mural",
    "oil",
    "origami",
    "painted",
    "painting",
    "pastel",
    "pencil",
    "pixar",
    "pixel",
    "poster",
    "render",
    "sketch",
    "sprite",
    "sticker",
    "tapestry",
    "ukiyo-e",
    "vector",
    "voxel",
    "watercolor",
    "watercolour",
    "woodcut",
];
/// In the order of the sample reply.
const NEGATIVE: &[&str] = &[
    "((out of frame))",
    "((extra fingers))",
    "mutated hands",
    "((poorly drawn hands))",
    "((poorly drawn face))",
    "(((mutation)))",
    "(((deformed)))",
    "(((tiling)))",
    "((naked))",
    "((tile))",
    "((fleshpile))",
    "((ugly))",
    "(((abstract)))",
    "blurry",
    "((bad anatomy))",
    "((bad proportions))",
    "((extra limbs))",
    "cloned face",
    "glitchy",
    "((extra breasts))",
    "((double torso))",
    "((extra arms))",
    "((extra hands))",
    "((mangled fingers))",
    "((missing breasts))",
    "(missing lips)",
    "((ugly face))",
    "((fat))",
    "((extra legs))",
];

/// The built-in enhancer.
#[derive(Clone, Copy, Debug, Default)]
pub struct StyleExpansion;

impl PromptEnhancer for StyleExpansion {
    fn additions(&self, words: PromptWords<'_>) -> Result<Additions, ServiceError> {
        let said = words_of(words.prompt);
        let seed = digest(words.prompt);
        let of_technique: Vec<&str> = if said.iter().any(|word| TECHNIQUES.contains(&word.as_str())) {
            DRAWN.to_vec()
        } else {
            let mut phrases = vec![PHOTOGRAPH[0], chosen(LIGHT, seed), chosen(LENS, seed >> 32)];
            phrases.extend(&PHOTOGRAPH[1..]);
            phrases
        };
        let prompt = ALWAYS.iter().copied().chain(of_technique);
        let prompt = prompt.filter(|phrase| !says(&said, phrase));
        let not_wanted = words_of(words.negative_prompt);
        // What somebody wants to see is no fault of the picture.
        let is_new = |phrase: &&str| !says(&not_wanted, phrase) && !says(&said, phrase);
        let negative_prompt = NEGATIVE.iter().copied().filter(is_new);
        Ok(Additions {
            prompt: prompt.map(str::to_owned).collect(),
            negative_prompt: negative_prompt.map(str::to_owned).collect(),
        })
    }
}

/// In small letters, whole: a cart is no art.
fn words_of(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '-');
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether a text has the words of a phrase, one behind the other.
fn says(text: &[String], phrase: &str) -> bool {
    let phrase = words_of(phrase);
    text.windows(phrase.len().max(1)).any(|words| words == phrase)
}

fn chosen<'a>(phrases: &[&'a str], seed: u64) -> &'a str {
    let count = phrases.len() as u64;
    usize::try_from(seed % count).map_or(phrases[0], |at| phrases[at])
}

/// FNV-1a: the same in every version of this program and of its compiler.
fn digest(text: &str) -> u64 {
    let mix = |digest: u64, byte: u8| (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn additions(prompt: &str, negative_prompt: &str) -> Additions {
        let words = PromptWords {
            prompt,
            negative_prompt,
        };
        StyleExpansion.additions(words).unwrap()
    }

    #[test]
    fn the_same_words_get_the_same_additions_and_others_may_get_others() {
        let of = |prompt: &str| additions(prompt, "").prompt.join(", ");
        // A picture that is asked for again is the same picture, also after an update.
        assert_eq!(
            of("women playing tennis"),
            "highly detailed, intricate, sharp focus, hyperrealistic, cinematic lighting, 85mm, f/1.8, professionally color graded, HDR, 8K"
        );
        let prompts = [
            "a house", "a dog", "a cat", "a boat", "a tree", "a hill", "a lake", "a road",
        ];
        let mut all: Vec<String> = prompts.iter().map(|prompt| of(prompt)).collect();
        all.sort();
        all.dedup();
        assert!((3..=6).contains(&all.len()), "{all:?}");
    }

    #[test]
    fn what_is_drawn_is_not_made_a_photograph_of() {
        let of = |prompt: &str| additions(prompt, "").prompt;
        for prompt in [
            "an anime girl",
            "Oil painting of a hill",
            "a hill (pencil sketch:1.2)",
            "ukiyo-e wave",
        ] {
            assert!(!of(prompt).contains(&"hyperrealistic".to_owned()), "{prompt}");
            assert!(of(prompt).contains(&"clean lines".to_owned()), "{prompt}");
        }
        for prompt in ["a cart", "a woman on a pier", "soiled boots"] {
            assert!(of(prompt).contains(&"hyperrealistic".to_owned()), "{prompt}");
        }
    }

    #[test]
    fn nothing_is_said_twice_or_against_the_caller() {
        let found = additions("a mutated ape, Sharp Focus, 8k, abstract", "ugly, BLURRY");
        for said in ["sharp focus", "8K"] {
            assert!(!found.prompt.iter().any(|phrase| phrase == said), "{said}");
        }
        for said in ["((ugly))", "blurry", "(((abstract)))", "((ugly face))"] {
            let has = found.negative_prompt.iter().any(|phrase| phrase == said);
            assert_eq!(has, said == "((ugly face))", "{said}");
        }
        assert_eq!(additions("x", "").negative_prompt, NEGATIVE);
        // Parts of other words are not said.
        assert_eq!(
            additions("a fat-free textile with tiles", "").negative_prompt,
            NEGATIVE
        );
    }

    #[test]
    fn no_word_for_the_eyes_of_people_only_is_a_technique() {
        assert!(TECHNIQUES.is_sorted());
        assert!(TECHNIQUES.iter().all(|word| *word == word.to_lowercase()));
    }
}
