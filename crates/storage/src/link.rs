//! Links that say until when they hold and cannot be changed: HMAC-SHA256 over the object's name and the end of its life.
//!
//! Only somebody with the secret can make a link, so a valid one proves that this server gave it out.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pentimento_types::{ImageKey, read_regular};
use rand::TryRngCore as _;
use sha2::Sha256;

use crate::StorageError;

/// Where links begin, below the root of the server.
const PREFIX: &str = "files/";
/// The most bytes of a file with a secret, which has 65.
const LARGEST_SECRET: u64 = 1024;
/// Part of what is signed, so that a signature can never be taken for one of another purpose or format.
const PURPOSE: &str = "pentimento link 1";

/// Why a link does not open its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not one of our links, or one that was changed.
    #[error("the link is not valid")]
    Invalid,
    /// Ours, and its time is over.
    #[error("the link has expired")]
    Expired,
}

/// Makes and checks links. `Debug` does not show the secret.
#[derive(Clone)]
pub struct LinkSigner {
    secret: [u8; 32],
}

impl LinkSigner {
    /// Signs with the given secret.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// Signs with the secret in `file`, which is made on first use, readable by its owner only.
    ///
    /// Two servers that start at the same moment end up with the same secret.
    ///
    /// # Errors
    /// [`StorageError::Secret`] or [`StorageError::BadSecret`].
    pub fn open(file: &Path) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Secret {
            path: file.to_owned(),
            source,
        };
        let read = || read_regular(file, LARGEST_SECRET);
        let bytes = match read() {
            Err(fault) if fault.is_missing() => {
                write_new_secret(file).map_err(failed)?;
                read()
            }
            other => other,
        };
        let bytes = bytes.map_err(|fault| failed(fault.into()))?;
        Self::from_text(&String::from_utf8_lossy(&bytes), file)
    }

    fn from_text(text: &str, file: &Path) -> Result<Self, StorageError> {
        let digits = text.trim_end().as_bytes();
        let mut secret = [0_u8; 32];
        let good = digits.len() == 64
            && digits.iter().all(u8::is_ascii_hexdigit)
            && secret.iter_mut().zip(digits.chunks_exact(2)).all(|(byte, pair)| {
                let pair = std::str::from_utf8(pair).unwrap_or_default();
                u8::from_str_radix(pair, 16).map(|value| *byte = value).is_ok()
            });
        if good {
            Ok(Self { secret })
        } else {
            Err(StorageError::BadSecret {
                path: file.to_owned(),
            })
        }
    }

    /// `files/<key>?expires=<seconds since 1970>&signature=<…>`, without a leading slash.
    ///
    /// The life ends at a whole second: `expires_at` rounded up.
    #[must_use]
    pub fn sign(&self, key: &ImageKey, expires_at: SystemTime) -> String {
        let since_epoch = expires_at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let expires = since_epoch.as_secs() + u64::from(since_epoch.subsec_nanos() > 0);
        let expires = expires.to_string();
        let signature = self.mac(key.as_str(), &expires).finalize().into_bytes();
        format!(
            "{PREFIX}{key}?expires={expires}&signature={}",
            URL_SAFE_NO_PAD.encode(signature)
        )
    }

    /// The picture that a link opens at `now`.
    ///
    /// `path` may begin with `/files/`, `files/` or the key; `query` is the raw text behind the question mark, in which
    /// unknown parameters are ignored and known ones may appear once.
    ///
    /// # Errors
    /// [`LinkError::Invalid`] for everything that was not signed by us, [`LinkError::Expired`] for what was.
    pub fn verify(&self, path: &str, query: &str, now: SystemTime) -> Result<ImageKey, LinkError> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_prefix(PREFIX).unwrap_or(path);
        let expires = parameter(query, "expires").ok_or(LinkError::Invalid)?;
        let signature = parameter(query, "signature").ok_or(LinkError::Invalid)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| LinkError::Invalid)?;
        // Over the texts as they came and in constant time; only then is anything read from them.
        self.mac(path, expires)
            .verify_slice(&signature)
            .map_err(|_| LinkError::Invalid)?;
        let expires: u64 = expires.parse().map_err(|_| LinkError::Invalid)?;
        let expires_at = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(expires))
            .ok_or(LinkError::Invalid)?;
        let key = ImageKey::from_link(path).ok_or(LinkError::Invalid)?;
        if now >= expires_at {
            Err(LinkError::Expired)
        } else {
            Ok(key)
        }
    }

    fn mac(&self, path: &str, expires: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        // Each part on its own line; neither a key nor a number that we sign holds a line break.
        for part in [PURPOSE, "\n", path, "\n", expires] {
            mac.update(part.as_bytes());
        }
        mac
    }
}

impl std::fmt::Debug for LinkSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkSigner").finish_non_exhaustive()
    }
}

/// The value of a parameter that appears exactly once.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut values = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Makes the file in one step, so that a reader never sees half a secret, and never replaces one.
fn write_new_secret(file: &Path) -> std::io::Result<()> {
    let mut secret = [0_u8; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut secret)
        .map_err(std::io::Error::other)?;
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = file.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    // Made with mode 0600 by the library.
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(draft, "{digits}")?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(file) {
        Ok(_) => Ok(()),
        // Somebody else was faster, and theirs counts.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use pentimento_types::JobId;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signer() -> LinkSigner {
        LinkSigner::new([42; 32])
    }

    fn key() -> ImageKey {
        ImageKey::output("lcm_img2img", JobId::from_u128(7), 0, "png")
    }

    #[test]
    fn a_link_opens_its_picture_until_it_expires() {
        let link = signer().sign(&key(), at(1000));
        let (path, query) = link.split_once('?').unwrap();
        assert!(path.starts_with("files/generations/lcm_img2img_"), "{path}");
        for path in [path.to_owned(), format!("/{path}"), key().as_str().to_owned()] {
            assert_eq!(signer().verify(&path, query, at(999)), Ok(key()));
        }
        assert_eq!(signer().verify(path, query, at(1000)), Err(LinkError::Expired));
        assert_eq!(signer().verify(path, &format!("{query}&v=2"), at(999)), Ok(key()));
        assert_eq!(
            LinkSigner::new([43; 32]).verify(path, query, at(999)),
            Err(LinkError::Invalid)
        );
    }

    #[test]
    fn a_life_is_rounded_up_to_a_whole_second() {
        let link = signer().sign(&key(), at(1000) + Duration::from_millis(1));
        let (path, query) = link.split_once('?').unwrap();
        assert!(query.starts_with("expires=1001&"), "{query}");
        assert_eq!(signer().verify(path, query, at(1000)), Ok(key()));
    }

    #[test]
    fn known_parameters_may_appear_once() {
        let link = signer().sign(&key(), at(1000));
        let (path, query) = link.split_once('?').unwrap();
        for bad in [
            "".to_owned(),
            "expires=1000".to_owned(),
            query.replace("expires=1000&", ""),
            format!("{query}&expires=9999"),
            format!("expires=9999&{query}"),
            format!("{query}&signature=AAAA"),
            query.replace("expires=1000", "expires=+1000"),
            query.replace("expires=1000", "expires=01000"),
            format!("{query}="),
        ] {
            assert_eq!(
                signer().verify(path, &bad, at(1)),
                Err(LinkError::Invalid),
                "{bad}"
            );
        }
    }

    proptest! {
        /// Whatever one byte of a link is changed to, wherever: refused, and never as "expired", which would tell that
        /// the signature was right.
        #[test]
        fn a_changed_link_is_refused(at_byte in 0..200_usize, change in 1..128_u8, expires in 1_u64..1 << 40) {
            let link = signer().sign(&key(), at(expires));
            let mut bytes = link.clone().into_bytes();
            let place = at_byte % bytes.len();
            bytes[place] = (bytes[place] ^ change) & 0x7f;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assume!(changed != link);
            if let Some((path, query)) = changed.split_once('?') {
                let answer = signer().verify(path, query, at(0));
                prop_assert_eq!(answer, Err(LinkError::Invalid), "{}", changed);
            }
        }

        /// Any other key, life or signature of any length is refused.
        #[test]
        fn a_forged_link_is_refused(
            path in "[a-z0-9_./]{0,60}",
            expires in any::<u64>(),
            signature in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let query = format!("expires={expires}&signature={}", URL_SAFE_NO_PAD.encode(signature));
            prop_assert_eq!(signer().verify(&path, &query, at(0)), Err(LinkError::Invalid));
        }

        /// A signature holds for its own key and life only.
        #[test]
        fn a_signature_cannot_be_moved(job in 1_u128.., index in 0..16_usize, longer in 1_u64..1_000_000) {
            let (mine, theirs) = (key(), ImageKey::output("lcm_img2img", JobId::from_u128(job), index, "png"));
            prop_assume!(mine != theirs);
            let link = signer().sign(&mine, at(1000));
            let (path, query) = link.split_once('?').unwrap();
            prop_assert_eq!(signer().verify(theirs.as_str(), query, at(1)), Err(LinkError::Invalid));
            let longer = query.replace("=1000&", &format!("={}&", 1000 + longer));
            prop_assert_eq!(signer().verify(path, &longer, at(1)), Err(LinkError::Invalid));
        }
    }

    #[test]
    fn the_secret_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/link.secret");
        let link = LinkSigner::open(&file).unwrap().sign(&key(), at(1000));
        assert_eq!(LinkSigner::open(&file).unwrap().sign(&key(), at(1000)), link);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs_err::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let leftovers = fs_err::read_dir(folder.path().join("data")).unwrap().count();
        assert_eq!(leftovers, 1);
    }

    #[test]
    fn many_starts_at_once_agree_on_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("link.secret");
        let links: Vec<String> = std::thread::scope(|scope| {
            let open = || LinkSigner::open(&file).unwrap().sign(&key(), at(1000));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(links.iter().all(|link| *link == links[0]));
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("link.secret");
        for bad in ["", "short", &"zz".repeat(32), &"00".repeat(33)] {
            fs_err::write(&file, bad).unwrap();
            let error = LinkSigner::open(&file).unwrap_err();
            assert!(error.to_string().contains("delete it"), "{error}");
        }
        assert!(!format!("{:?}", signer()).contains("42"));
    }
}
