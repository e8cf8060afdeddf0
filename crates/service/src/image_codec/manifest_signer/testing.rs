//! Certificates that were made for tests, whose key is no secret, and files that another program has signed with them.

use std::io::Cursor;

use bytes::Bytes;
use c2pa::{Builder, SigningAlg, create_signer};
use serde_json::{Value, json};

use crate::image_codec::manifest::context;

pub(crate) const CHAIN: &[u8] = include_bytes!("../../../testdata/c2pa/chain.pem");
pub(crate) const KEY: &[u8] = include_bytes!("../../../testdata/c2pa/key.pem");

/// A PNG file with the manifest of another program, in which these parts stand beside the usual ones.
pub(crate) fn signed_elsewhere(file: &[u8], parts: impl IntoIterator<Item = Value>) -> Bytes {
    let signer = create_signer::from_keys(CHAIN, KEY, SigningAlg::Es256, None).unwrap();
    let mut builder = Builder::from_shared_context(&context().unwrap());
    for part in parts {
        builder.add_assertion("org.example.part", &part).unwrap();
    }
    let source = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture";
    let created = json!({"action": "c2pa.created", "digitalSourceType": source});
    builder.add_action(created).unwrap();
    let mut signed = Cursor::new(Vec::new());
    builder
        .sign(signer.as_ref(), "image/png", &mut Cursor::new(file), &mut signed)
        .unwrap();
    Bytes::from(signed.into_inner())
}
