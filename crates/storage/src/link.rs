//! Links that say until when they hold and cannot be changed: HMAC-SHA256 over the object's name and the end of its life.
//!
//! Only somebody with the secret can make a link, so a valid one proves that this server gave it out. Both stand in the
//! path, before the object's name: clients tell a file's kind by how its address ends, and some fetch an address without
//! its query.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

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
const PURPOSE: &str = "pentimento link 2";

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

/// Makes and checks links. Clones share the secret. `Debug` does not show it.
#[derive(Clone)]
pub struct LinkSigner {
    secret: Arc<RwLock<[u8; 32]>>,
}

impl LinkSigner {
    /// Signs with the given secret.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret: Arc::new(RwLock::new(secret)),
        }
    }

    /// Signs and checks with another secret from now on. Links of before are not valid any more.
    pub fn replace(&self, secret: [u8; 32]) {
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    /// Signs with the secret in `file`, which is made on first use, readable by its owner only.
    ///
    /// Two servers that start at the same moment end up with the same secret.
    ///
    /// # Errors
    /// [`StorageError::Secret`] or [`StorageError::BadSecret`].
    pub fn open(file: &Path) -> Result<Self, StorageError> {
        secret_file(file).map(Self::new)
    }

    /// `files/<seconds since 1970>/<signature>/<key>`, without a leading slash.
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
        format!("{PREFIX}{expires}/{}/{key}", to_hex(&signature))
    }

    /// The picture that a link opens at `now`. `path` may begin with `/files/`, `files/` or what follows it.
    ///
    /// # Errors
    /// [`LinkError::Invalid`] for everything that was not signed by us, [`LinkError::Expired`] for what was.
    pub fn verify(&self, path: &str, now: SystemTime) -> Result<ImageKey, LinkError> {
        self.open_at(path, now).map(|(key, _)| key)
    }

    /// The same, with what is left of the link's life.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn open_at(&self, path: &str, now: SystemTime) -> Result<(ImageKey, Duration), LinkError> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_prefix(PREFIX).unwrap_or(path);
        let (expires, rest) = path.split_once('/').ok_or(LinkError::Invalid)?;
        let (signature, key) = rest.split_once('/').ok_or(LinkError::Invalid)?;
        let signature: [u8; 32] = from_hex(signature).ok_or(LinkError::Invalid)?;
        // Over the texts as they came and in constant time; only then is anything read from them.
        self.mac(key, expires)
            .verify_slice(&signature)
            .map_err(|_| LinkError::Invalid)?;
        let expires: u64 = expires.parse().map_err(|_| LinkError::Invalid)?;
        let expires_at = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(expires))
            .ok_or(LinkError::Invalid)?;
        let key = ImageKey::from_link(key).ok_or(LinkError::Invalid)?;
        match expires_at.duration_since(now) {
            Ok(left) if !left.is_zero() => Ok((key, left)),
            _ => Err(LinkError::Expired),
        }
    }

    fn mac(&self, key: &str, expires: &str) -> Hmac<Sha256> {
        let secret = *self.secret.read().unwrap_or_else(PoisonError::into_inner);
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("HMAC takes a key of any length");
        // Each part on its own line; neither a key nor a number that we sign holds a line break.
        for part in [PURPOSE, "\n", key, "\n", expires] {
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

/// The 32 random bytes in `file`, which is made on first use, readable by its owner only.
///
/// Two servers that start at the same moment end up with the same secret.
///
/// # Errors
/// [`StorageError::Secret`] or [`StorageError::BadSecret`].
pub fn secret_file(file: &Path) -> Result<[u8; 32], StorageError> {
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
    secret_from_text(&String::from_utf8_lossy(&bytes), file)
}

/// Puts another secret into `file`, in one step.
///
/// # Errors
/// [`StorageError::Secret`].
pub fn replace_secret_file(file: &Path, secret: &[u8; 32]) -> Result<(), StorageError> {
    let replace = || {
        let draft = draft_of(file, secret)?;
        draft.persist(file).map(drop).map_err(|error| error.error)
    };
    replace().map_err(|source| StorageError::Secret {
        path: file.to_owned(),
        source,
    })
}

fn secret_from_text(text: &str, file: &Path) -> Result<[u8; 32], StorageError> {
    let secret = from_hex(&text.trim_end().to_ascii_lowercase());
    secret.ok_or_else(|| StorageError::BadSecret {
        path: file.to_owned(),
    })
}

/// In hexadecimal, so that no signature holds a word that a client looks for in an address (`temp` is one).
fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Only the digits of [`to_hex`], so that a signature has one spelling.
fn from_hex<const BYTES: usize>(digits: &str) -> Option<[u8; BYTES]> {
    let legal = digits
        .bytes()
        .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != 2 * BYTES || !legal {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Makes the file in one step, so that a reader never sees half a secret, and never replaces one.
fn write_new_secret(file: &Path) -> std::io::Result<()> {
    let mut secret = [0_u8; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut secret)
        .map_err(std::io::Error::other)?;
    match draft_of(file, &secret)?.persist_noclobber(file) {
        Ok(_) => Ok(()),
        // Somebody else was faster, and theirs counts.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

/// A whole file with a secret, beside the one that it is to become.
fn draft_of(file: &Path, secret: &[u8; 32]) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    // Made with mode 0600 by the library.
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(draft, "{}", to_hex(secret))?;
    draft.as_file().sync_all()?;
    Ok(draft)
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
    fn another_secret_counts_for_all_clones_at_once() {
        let (ours, other) = (signer(), signer());
        let of_others = LinkSigner::new([43; 32]).sign(&key(), at(1000));
        assert_eq!(ours.verify(&of_others, at(0)), Err(LinkError::Invalid));
        let in_use = ours.clone();
        ours.replace([43; 32]);
        assert_eq!(in_use.verify(&of_others, at(0)), Ok(key()));
        assert_eq!(in_use.sign(&key(), at(1000)), of_others);
        assert!(
            other.verify(&of_others, at(0)).is_err(),
            "another signer keeps its own"
        );
    }

    #[test]
    fn a_link_opens_its_picture_until_it_expires() {
        let link = signer().sign(&key(), at(1000));
        assert!(link.starts_with("files/1000/"), "{link}");
        assert!(
            link.ends_with(&format!("/{}", key())) && !link.contains('?'),
            "{link}"
        );
        let rest = link.strip_prefix("files/").unwrap();
        for path in [link.clone(), format!("/{link}"), rest.to_owned()] {
            assert_eq!(signer().verify(&path, at(999)), Ok(key()));
        }
        assert_eq!(signer().verify(&link, at(1000)), Err(LinkError::Expired));
        assert_eq!(
            LinkSigner::new([43; 32]).verify(&link, at(999)),
            Err(LinkError::Invalid)
        );
    }

    #[test]
    fn a_life_is_rounded_up_to_a_whole_second() {
        let link = signer().sign(&key(), at(1000) + Duration::from_millis(1));
        assert!(link.starts_with("files/1001/"), "{link}");
        assert_eq!(signer().verify(&link, at(1000)), Ok(key()));
    }

    #[test]
    fn a_link_has_one_spelling() {
        let link = signer().sign(&key(), at(1000));
        let [_, expires, signature, key] = &*link.splitn(4, '/').collect::<Vec<_>>() else {
            panic!("{link}")
        };
        for bad in [
            String::new(),
            "files/".to_owned(),
            format!("files/{key}"),
            format!("files/{expires}/{key}"),
            format!("files/{signature}/{key}"),
            format!("files/{signature}/{expires}/{key}"),
            format!("files/+{expires}/{signature}/{key}"),
            format!("files/0{expires}/{signature}/{key}"),
            format!("files/9{expires}/{signature}/{key}"),
            format!("files/{expires}/{}/{key}", signature.to_uppercase()),
            format!("files/{expires}/{}/{key}", &signature[1..]),
            format!("files/{expires}/{signature}0/{key}"),
            format!("files/{expires}/{signature}//{key}"),
            format!("files/{expires}/{signature}/{key}/"),
            format!("files/files/{expires}/{signature}/{key}"),
            format!("files/{key}?expires={expires}&signature={signature}"),
        ] {
            assert_eq!(signer().verify(&bad, at(1)), Err(LinkError::Invalid), "{bad}");
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
            prop_assert_eq!(signer().verify(&changed, at(0)), Err(LinkError::Invalid), "{}", changed);
        }

        /// Any other key, life or signature of any length is refused.
        #[test]
        fn a_forged_link_is_refused(
            key in "[a-z0-9_./]{0,60}",
            expires in any::<u64>(),
            signature in prop_oneof!["[0-9a-f]{64}", "[0-9a-f]{0,80}", "[!-~]{0,70}"],
        ) {
            let path = format!("files/{expires}/{signature}/{key}");
            prop_assert_eq!(signer().verify(&path, at(0)), Err(LinkError::Invalid));
        }

        /// A signature holds for its own key and life only.
        #[test]
        fn a_signature_cannot_be_moved(job in 1_u128.., index in 0..16_usize, longer in 1_u64..1_000_000) {
            let (mine, theirs) = (key(), ImageKey::output("lcm_img2img", JobId::from_u128(job), index, "png"));
            prop_assume!(mine != theirs);
            let link = signer().sign(&mine, at(1000));
            let moved = link.replace(mine.as_str(), theirs.as_str());
            prop_assert_eq!(signer().verify(&moved, at(1)), Err(LinkError::Invalid));
            let longer = link.replace("/1000/", &format!("/{}/", 1000 + longer));
            prop_assert_eq!(signer().verify(&longer, at(1)), Err(LinkError::Invalid));
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
