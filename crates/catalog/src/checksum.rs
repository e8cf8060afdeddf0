//! Compares a weights file with the sha256 of its entry.

use std::io::Read as _;
use std::path::Path;

use pentimento_types::open_regular;
use sha2::{Digest as _, Sha256};

use crate::CatalogError;

/// Reads the whole file and compares; `expected` is 64 lower-case hexadecimal digits.
///
/// # Errors
/// [`CatalogError::ChecksumMismatch`], [`CatalogError::ChecksumOfFolder`], or [`CatalogError::Unreadable`].
pub fn verify_sha256(path: &Path, expected: &str) -> Result<(), CatalogError> {
    let unreadable = |source| CatalogError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Err(CatalogError::ChecksumOfFolder {
            path: path.to_owned(),
        });
    }
    let mut file = open_regular(path).map_err(|fault| unreadable(fault.into()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let found = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    if found == expected {
        Ok(())
    } else {
        Err(CatalogError::ChecksumMismatch {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compared_with_its_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc.safetensors");
        fs_err::write(&path, "abc").unwrap();
        // From FIPS 180-2, appendix B.1.
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify_sha256(&path, right).unwrap();
        let wrong = verify_sha256(&path, &right.replace('b', "c")).unwrap_err();
        assert!(wrong.to_string().contains(right), "{wrong}");
        assert!(matches!(
            verify_sha256(folder.path(), right),
            Err(CatalogError::ChecksumOfFolder { .. })
        ));
        assert!(matches!(
            verify_sha256(&folder.path().join("absent"), right),
            Err(CatalogError::Unreadable { .. })
        ));
    }
}
