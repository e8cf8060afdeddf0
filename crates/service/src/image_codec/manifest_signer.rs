//! Signs finished files with the operator's key: a C2PA manifest (Content Credentials, specification 2.2) that says which program
//! made the picture, that a trained network took part, and from which picture with a manifest of its own.
//!
//! Pixels and our other marks stay as they are. Since a manifest has a random name, equal requests give equal pixels and not
//! equal bytes.

use bytes::Bytes;
use pentimento_types::ImageFormat;

use super::SourceType;
use crate::ServiceError;

/// Why a key cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum ManifestSignerError {
    /// This build has no code for it.
    #[error("this build signs nothing; build it with `--features c2pa`")]
    NotBuilt,
    /// The key is of a kind that is not taken.
    #[error(
        "the key must be a PEM file in PKCS#8 (`BEGIN PRIVATE KEY`) for ECDSA on P-256, P-384 or P-521, or for Ed25519"
    )]
    Key,
    /// Certificates and key do not sign a picture that can be verified.
    #[error("the certificates and the key sign no picture: {problem}")]
    Unusable {
        /// In the library's words, or the specification's codes.
        problem: String,
    },
}

/// What a picture was made from, and by which kind of act.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The kind of act.
    pub source_type: SourceType,
    /// The manifest of the picture that it was made from, where that has one.
    pub parent: Option<ParentManifest>,
}

#[cfg(not(feature = "c2pa"))]
pub use without_c2pa::{ManifestSigner, ParentManifest};

#[cfg(not(feature = "c2pa"))]
mod without_c2pa {
    use super::{Bytes, ImageFormat, ManifestSignerError, Origin, ServiceError};

    /// There is none in this build.
    #[derive(Debug)]
    pub enum ManifestSigner {}

    /// There is none in this build.
    #[derive(Clone, Debug)]
    pub enum ParentManifest {}

    impl ParentManifest {
        /// What it takes in memory.
        #[must_use]
        pub const fn size_bytes(&self) -> u64 {
            match *self {}
        }
    }

    impl ManifestSigner {
        /// Refuses.
        ///
        /// # Errors
        /// [`ManifestSignerError::NotBuilt`].
        pub fn new(_: &[u8], _: &[u8]) -> Result<Self, ManifestSignerError> {
            Err(ManifestSignerError::NotBuilt)
        }

        /// Whether a file has a manifest that is to be kept.
        #[must_use]
        pub fn keeps(&self, _: &[u8]) -> bool {
            match *self {}
        }

        /// About what the manifest of a file takes.
        #[must_use]
        pub fn about_kept_bytes(&self, _: &[u8]) -> Option<u64> {
            match *self {}
        }

        /// The manifest of a file.
        #[must_use]
        pub fn parent(&self, _: &[u8]) -> Option<ParentManifest> {
            match *self {}
        }

        /// The file with a signed manifest in it.
        ///
        /// # Errors
        /// None: there is no signer.
        pub fn sign(&self, _: &[u8], _: ImageFormat, _: &Origin) -> Result<Bytes, ServiceError> {
            match *self {}
        }
    }
}

#[cfg(feature = "c2pa")]
pub use with_c2pa::{ManifestSigner, ParentManifest};

#[cfg(feature = "c2pa")]
mod with_c2pa {
    use std::fmt;
    use std::io::Cursor;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use c2pa::{BoxedSigner, Builder, Context, Ingredient, SigningAlg, create_signer};
    use pentimento_types::{RgbImage, Size, describe_chain};
    use serde_json::json;

    use super::{Bytes, ImageFormat, ManifestSignerError, Origin, ServiceError};
    use crate::image_codec::decode::format_of;
    use crate::image_codec::manifest::{context, manifest_bytes, read_manifest};
    use crate::image_codec::{SourceType, resize::to_file};

    const WORDS: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/";
    /// What a kept manifest may have, with those of all the pictures before it. Each picture that is made from one carries it: the
    /// manifests that programs write are of some ten kilobytes, or some hundred where they have a thumbnail.
    const MAX_PARENT_BYTES: u64 = 2 << 20;
    /// How many times its size in the file a manifest takes, about, with what is found of it.
    const ABOUT_KEPT: u64 = 4;
    /// What ties the action to its ingredient.
    const PARENT: &str = "input";

    /// The operator's certificates and key.
    pub struct ManifestSigner {
        signer: BoxedSigner,
        context: Arc<Context>,
    }

    /// The manifest of a picture that others are made from: read once for all of them, and without the picture.
    #[derive(Clone)]
    pub struct ParentManifest {
        ingredient: Arc<Ingredient>,
        size_bytes: u64,
    }

    impl ParentManifest {
        /// What it takes in memory, about.
        #[must_use]
        pub const fn size_bytes(&self) -> u64 {
            self.size_bytes
        }
    }

    impl fmt::Debug for ParentManifest {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("ParentManifest")
                .field("size_bytes", &self.size_bytes)
                .finish_non_exhaustive()
        }
    }

    impl fmt::Debug for ManifestSigner {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            // It holds a key.
            f.debug_struct("ManifestSigner").finish_non_exhaustive()
        }
    }

    impl ManifestSigner {
        /// Takes PEM files: the chain of certificates, that of the key first, and the key. Signs a small picture with them, so
        /// that what does not work is known at once.
        ///
        /// RSA keys are refused: how long its computation takes would tell callers of the key (RUSTSEC-2023-0071).
        ///
        /// # Errors
        /// [`ManifestSignerError`].
        pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, ManifestSignerError> {
            let unusable = |problem: String| ManifestSignerError::Unusable { problem };
            let algorithm = algorithm_of(key).ok_or(ManifestSignerError::Key)?;
            let signer = create_signer::from_keys(certificates, key, algorithm, None)
                .map_err(|error| unusable(describe_chain(&error)))?;
            let context = context().ok_or_else(|| unusable("its settings are refused".to_owned()))?;
            let signer = Self { signer, context };
            let problems = signer
                .problems()
                .map_err(|error| unusable(describe_chain(&error)))?;
            if problems.is_empty() {
                Ok(signer)
            } else {
                Err(unusable(problems.join(", ")))
            }
        }

        /// What is wrong with a small picture that this signs.
        fn problems(&self) -> Result<Vec<String>, ServiceError> {
            let size = Size { width: 8, height: 8 };
            let picture = RgbImage::new(size, vec![127; 8 * 8 * 3])
                .ok_or_else(|| ServiceError::internal("the small picture has another size"))?;
            let origin = Origin {
                source_type: SourceType::CompositeWithTrainedAlgorithmicMedia,
                parent: None,
            };
            let file = self.sign(&to_file(&picture)?, ImageFormat::Png, &origin)?;
            Ok(match read_manifest(&file) {
                Some(found) if found.intact => Vec::new(),
                Some(found) => found.problems,
                None => vec!["no manifest was written".to_owned()],
            })
        }

        /// Whether a file has a manifest that is to be kept: one of at most 2 MiB.
        #[must_use]
        pub fn keeps(&self, file: &[u8]) -> bool {
            manifest_bytes(file).is_some_and(|bytes| bytes <= MAX_PARENT_BYTES)
        }

        /// About what the manifest of a file will take in memory, in bytes, before it is read. None where [`Self::parent`] gives
        /// none.
        #[must_use]
        pub fn about_kept_bytes(&self, file: &[u8]) -> Option<u64> {
            let bytes = kept_bytes(file)?;
            Some(bytes.saturating_mul(ABOUT_KEPT))
        }

        /// The manifest of a file that pictures are made from. None where it has none, or none that can be kept, which is logged.
        #[must_use]
        pub fn parent(&self, file: &[u8]) -> Option<ParentManifest> {
            let bytes = kept_bytes(file)?;
            // Strangers have made it, and the library may even panic over it.
            match catch_unwind(AssertUnwindSafe(|| self.ingredient(file))) {
                Ok(Ok(ingredient)) => Some(ParentManifest {
                    size_bytes: bytes.saturating_add(size_of_findings(&ingredient)),
                    ingredient: Arc::new(ingredient),
                }),
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = describe_chain(&error),
                        "an input's manifest cannot be read"
                    );
                    None
                }
                Err(_) => {
                    tracing::error!("an input's manifest cannot be read: the library panicked");
                    None
                }
            }
        }

        fn ingredient(&self, file: &[u8]) -> c2pa::Result<Ingredient> {
            let about = json!({"title": PARENT, "relationship": "parentOf", "label": PARENT});
            let media = format_of(file).map_or("image/png", ImageFormat::content_type);
            let mut builder = Builder::from_shared_context(&self.context);
            let read = builder.add_ingredient_from_stream(about.to_string(), media, &mut Cursor::new(file));
            read.cloned()
        }

        /// The file with a signed manifest in it. Takes a few milliseconds of the processor: call it on a blocking thread.
        ///
        /// # Errors
        /// [`ServiceError::Internal`]: the key has signed a picture before. A parent that cannot be written is left out.
        pub fn sign(&self, file: &[u8], format: ImageFormat, origin: &Origin) -> Result<Bytes, ServiceError> {
            let signed = |parent| self.signed(file, format, (origin.source_type, parent));
            if let Some(parent) = &origin.parent {
                // Strangers have made it, and the library may even panic over it.
                match catch_unwind(AssertUnwindSafe(|| signed(Some(parent)))) {
                    Ok(Ok(signed)) => return Ok(signed),
                    Ok(Err(error)) => {
                        tracing::warn!(
                            error = describe_chain(&error),
                            "an input's manifest cannot be kept"
                        );
                    }
                    Err(_) => tracing::error!("an input's manifest cannot be kept: the library panicked"),
                }
            }
            signed(None).map_err(ServiceError::internal)
        }

        fn signed(
            &self,
            file: &[u8],
            format: ImageFormat,
            (source_type, parent): (SourceType, Option<&ParentManifest>),
        ) -> c2pa::Result<Bytes> {
            let program = json!({"name": "pentimento", "version": env!("CARGO_PKG_VERSION")});
            let media = format.content_type();
            let definition = json!({"claim_generator_info": [program], "format": media});
            let mut builder =
                Builder::from_shared_context(&self.context).with_definition(definition.to_string())?;
            let source_type = format!("{WORDS}{}", source_type.as_str());
            let act = if let Some(parent) = parent {
                builder.add_ingredient(Ingredient::clone(&parent.ingredient));
                builder.add_action(
                    json!({"action": "c2pa.opened", "parameters": {"ingredientIds": [PARENT]}}),
                )?;
                "c2pa.edited"
            } else {
                "c2pa.created"
            };
            builder.add_action(
                json!({"action": act, "digitalSourceType": source_type, "softwareAgent": program}),
            )?;
            let mut signed = Cursor::new(Vec::with_capacity(file.len() + (16 << 10)));
            builder.sign(self.signer.as_ref(), media, &mut Cursor::new(file), &mut signed)?;
            Ok(Bytes::from(signed.into_inner()))
        }
    }

    /// The size of the file's manifests, where there are any and they can be kept; the log says where they cannot.
    fn kept_bytes(file: &[u8]) -> Option<u64> {
        let bytes = manifest_bytes(file)?;
        if bytes > MAX_PARENT_BYTES {
            let limit = MAX_PARENT_BYTES;
            tracing::warn!(bytes, limit, "an input's manifest is too large to be kept");
            return None;
        }
        Some(bytes)
    }

    /// About what was found of a manifest takes beside its bytes: for each of its parts, of which there may be thousands, a few
    /// short texts, which take twice as much as they do as JSON.
    fn size_of_findings(ingredient: &Ingredient) -> u64 {
        let written = serde_json::to_vec(ingredient).map_or(0, |json| json.len());
        2 * written as u64
    }

    /// By the identifier of its kind, which stands at the beginning of PKCS#8 (RFC 5208, 5480, 8410).
    fn algorithm_of(key: &[u8]) -> Option<SigningAlg> {
        const HEAD: usize = 48;
        let text = str::from_utf8(key).ok()?;
        let (_, inside) = text.split_once("-----BEGIN PRIVATE KEY-----")?;
        let (inside, _) = inside.split_once("-----END")?;
        let inside: String = inside.chars().filter(|c| !c.is_whitespace()).collect();
        let der = BASE64_STANDARD.decode(inside).ok()?;
        let head = der.get(..HEAD).unwrap_or(&der);
        let kinds: [(&[u8], SigningAlg); 4] = [
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], SigningAlg::Es256),
            (&[6, 5, 0x2b, 0x81, 4, 0, 0x22], SigningAlg::Es384),
            (&[6, 5, 0x2b, 0x81, 4, 0, 0x23], SigningAlg::Es512),
            (&[6, 3, 0x2b, 0x65, 0x70], SigningAlg::Ed25519),
        ];
        let found = kinds
            .iter()
            .find(|(name, _)| head.windows(name.len()).any(|window| window == *name));
        found.map(|(_, algorithm)| *algorithm)
    }
}

#[cfg(test)]
#[cfg(feature = "c2pa")]
pub(crate) mod testing;
#[cfg(test)]
#[cfg(feature = "c2pa")]
mod tests;
