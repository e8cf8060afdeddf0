//! What a file says of where its picture comes from: IPTC's `DigitalSourceType` in an XMP packet, and our own parameters.
//!
//! The first is the mark of generated pictures that other programs read (IPTC Photo Metadata Standard 2025.1, 7.4; the European
//! Union's AI Act, Article 50(2), wants one that machines can read).

use pentimento_types::Task;

use super::container::Container;
use super::decode::decode;
use super::manifest::{FoundManifest, read_manifest};
use super::metadata::{ImageMetadata, read_metadata};
use super::orientation::Blocks;
use super::watermark::has_watermark;
use super::{jpeg_structure, png_file, webp_file};
use crate::InputLimits;

/// Where IPTC's words are.
const WORDS: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/";
/// Those that say that a program has made or changed at least a part of it (IPTC's NewsCodes, 2025, with those that are retired).
const GENERATED: [&str; 8] = [
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicMedia",
    "algorithmicallyEnhanced",
    "compositeSynthetic",
    "dataDrivenMedia",
    "virtualRecording",
    "softwareImage",
];
const PROPERTY: &[u8] = b"DigitalSourceType";
/// Of the address of a word.
const LONGEST_VALUE: usize = 250;
/// Of a packet that is looked through.
const MOST_BYTES: usize = 1 << 20;

/// How a picture was made, in IPTC's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// A trained network has made a picture from words.
    TrainedAlgorithmicMedia,
    /// A trained network has changed a picture.
    CompositeWithTrainedAlgorithmicMedia,
    /// A trained network has enlarged a picture.
    AlgorithmicallyEnhanced,
}

impl SourceType {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrainedAlgorithmicMedia => "trainedAlgorithmicMedia",
            Self::CompositeWithTrainedAlgorithmicMedia => "compositeWithTrainedAlgorithmicMedia",
            Self::AlgorithmicallyEnhanced => "algorithmicallyEnhanced",
        }
    }

    /// Of what a job has made.
    #[must_use]
    pub const fn of(task: Task) -> Self {
        match task {
            Task::TextToImage => Self::TrainedAlgorithmicMedia,
            Task::ImageToImage | Task::Inpainting => Self::CompositeWithTrainedAlgorithmicMedia,
        }
    }

    /// The packet that says so. The same for every picture of a task, so that equal requests give equal bytes.
    pub(super) fn packet(self) -> String {
        packet_with(self.as_str())
    }
}

/// A packet with a word of letters and digits.
pub(super) fn packet_with(word: &str) -> String {
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
             <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
             <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\
             <rdf:Description rdf:about=\"\" xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\" \
             xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\" \
             xmp:CreatorTool=\"pentimento {}\" Iptc4xmpExt:DigitalSourceType=\"{WORDS}{word}\"/>\
             </rdf:RDF></x:xmpmeta><?xpacket end=\"r\"?>",
        env!("CARGO_PKG_VERSION"),
    )
}

/// Which marks are written into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// How the picture was made, in full.
    pub parameters: bool,
    /// That a trained network has made it.
    pub source_type: bool,
}

impl Marks {
    /// Both.
    pub const ALL: Self = Self {
        parameters: true,
        source_type: true,
    };
}

impl Default for Marks {
    fn default() -> Self {
        Self::ALL
    }
}

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provenance {
    /// The word of IPTC, or another that stands in its place: at most 100 letters.
    pub source_type: Option<String>,
    /// How one of our pictures was made.
    pub parameters: Option<ImageMetadata>,
    /// What its C2PA manifest says; None also in a build that looks at none.
    pub manifest: Option<FoundManifest>,
    /// Whether the watermark is in its pixels; None where they were not looked at.
    pub watermark: Option<bool>,
}

impl Provenance {
    /// Whether the file says that a program has made or changed its picture.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        let is_generated = |word: &String| GENERATED.iter().any(|known| known.eq_ignore_ascii_case(word));
        let signed = self.manifest.as_ref().filter(|manifest| manifest.intact);
        let signed = signed.and_then(|manifest| manifest.digital_source_type.as_ref());
        let said = self.source_type.iter().chain(signed).any(is_generated);
        self.parameters.is_some() || said || self.watermark == Some(true)
    }
}

/// What a file of any origin says. Only a manifest is signed: anybody can write the others into a file, and all can be taken out.
#[must_use]
pub fn read_provenance(bytes: &[u8]) -> Provenance {
    Provenance {
        source_type: packet_of(bytes).as_deref().and_then(source_type_in),
        parameters: read_metadata(bytes),
        manifest: read_manifest(bytes),
        watermark: None,
    }
}

/// The same with a look at the pixels, where the file is a picture within the limits. That takes as much memory as to decode it, and
/// time: call it on a blocking thread.
#[must_use]
pub fn read_provenance_and_pixels(bytes: &[u8], limits: InputLimits) -> Provenance {
    let picture = decode(bytes, limits).ok();
    Provenance {
        watermark: picture.as_ref().map(has_watermark),
        ..read_provenance(bytes)
    }
}

fn packet_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let of_blocks = |blocks: Blocks| blocks.xmp;
    match Container::of(bytes) {
        Container::Png => png_file::text(bytes, png_file::XMP),
        Container::Jpeg => of_blocks(jpeg_structure::read(bytes).ok()?.blocks),
        Container::Webp => of_blocks(webp_file::blocks(bytes)),
        Container::Other(_) => None,
    }
}

/// `…DigitalSourceType="http://…/word"` or `…DigitalSourceType>http://…/word<`.
fn source_type_in(packet: &[u8]) -> Option<String> {
    let packet = packet.get(..MOST_BYTES).unwrap_or(packet);
    (0..packet.len()).find_map(|at| {
        let value = packet[at..].strip_prefix(PROPERTY)?;
        let value = [&b"=\""[..], b"='", b">"]
            .iter()
            .find_map(|start| value.strip_prefix(*start))?;
        // No farther than an address is long: a packet may have the property many times and no end of it.
        let value = value.get(..LONGEST_VALUE).unwrap_or(value);
        let end = value
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\'' | b'<'))?;
        let word = value[..end].rsplit(|byte| *byte == b'/').next()?;
        let is_word = (1..=100).contains(&word.len()) && word.iter().all(u8::is_ascii_alphanumeric);
        is_word.then(|| String::from_utf8_lossy(word).into_owned())
    })
}

/// A JPEG file with the packet behind its first segments of application data, where programs look for it.
pub(super) fn with_packet(jpeg: Vec<u8>, packet: &str) -> Vec<u8> {
    let body = [jpeg_structure::XMP, packet.as_bytes()].concat();
    let Ok(length) = u16::try_from(body.len() + 2) else {
        return jpeg;
    };
    let at = behind_application_data(&jpeg);
    let mut file = Vec::with_capacity(jpeg.len() + body.len() + 4);
    file.extend_from_slice(&jpeg[..at]);
    file.extend([0xff, 0xe1]);
    file.extend(length.to_be_bytes());
    file.extend(body);
    file.extend_from_slice(&jpeg[at..]);
    file
}

/// Behind the start of image and the segments APP0 and APP1 after it.
fn behind_application_data(jpeg: &[u8]) -> usize {
    let mut at = 2.min(jpeg.len());
    while let Some([0xff, 0xe0 | 0xe1, high, low]) = jpeg.get(at..at + 4) {
        let next = at + 2 + usize::from(u16::from_be_bytes([*high, *low]));
        if next > jpeg.len() {
            break;
        }
        at = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_however_the_packet_has_it() {
        let found = |packet: &str| source_type_in(packet.as_bytes());
        let ours = SourceType::CompositeWithTrainedAlgorithmicMedia;
        assert_eq!(found(&ours.packet()).as_deref(), Some(ours.as_str()));
        let element = "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia\
                       </Iptc4xmpExt:DigitalSourceType>";
        assert_eq!(found(element).as_deref(), Some("trainedAlgorithmicMedia"));
        assert_eq!(
            found("DigitalSourceType='digitalCapture'").as_deref(),
            Some("digitalCapture")
        );
        for nothing in [
            "",
            "DigitalSourceType",
            "DigitalSourceType=\"",
            "DigitalSourceType=\"<script>\"",
            "DigitalSourceType=\"a b\"",
        ] {
            assert_eq!(found(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_generated_is_told_from_what_is_captured() {
        let of = |word: &str| Provenance {
            source_type: Some(word.to_owned()),
            ..Provenance::default()
        };
        for word in [
            "trainedAlgorithmicMedia",
            "compositeWithTrainedAlgorithmicMedia",
            "algorithmicallyEnhanced",
            "algorithmicMedia",
        ] {
            assert!(of(word).is_generated(), "{word}");
        }
        for word in [
            "digitalCapture",
            "negativeFilm",
            "humanEdits",
            "digitalCreation",
            "algorithm",
        ] {
            assert!(!of(word).is_generated(), "{word}");
        }
        assert!(!Provenance::default().is_generated());
    }

    /// A PNG with a compressed text behind its pixels, where other programs write theirs.
    fn with_text(keyword: &str, text: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(text).unwrap();
        let body = [keyword.as_bytes(), b"\0\x01\0\0\0", &zlib.finish().unwrap()].concat();
        let picture = include_bytes!("../../testdata/rgba.png");
        let (before, end) = picture.split_at(picture.len() - 12);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [before, &length, b"iTXt", &body, &[0; 4], end].concat()
    }

    #[test]
    fn a_text_behind_the_pixels_is_read_and_one_that_grows_without_end_is_not() {
        let packet = packet_with("trainedAlgorithmicMedia");
        let found = read_provenance(&with_text(png_file::XMP, packet.as_bytes()));
        assert_eq!(found.source_type.as_deref(), Some("trainedAlgorithmicMedia"));
        // Three megabytes of it are three kilobytes of a file.
        let long = [packet.as_bytes(), &vec![b' '; 3 << 20]].concat();
        for keyword in [png_file::XMP, "pentimento"] {
            assert_eq!(
                read_provenance(&with_text(keyword, &long)),
                Provenance::default(),
                "{keyword}"
            );
        }
    }

    /// Looked for to the end of the packet, its value would take minutes.
    #[test]
    fn a_packet_that_names_the_property_for_ever_is_read_once() {
        assert_eq!(
            source_type_in("DigitalSourceType>".repeat(58_000).as_bytes()),
            None
        );
    }
}
