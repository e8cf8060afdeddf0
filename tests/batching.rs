//! A picture depends on its request only: the same bytes alone, again, and among others.

use futures::future::join_all;
use serde_json::json;

use crate::support::client::{good_body, pictures_of};
use crate::support::pictures;
use crate::support::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gives_the_same_bytes_alone_again_and_among_fifteen_others() {
    let server = TestServer::start();
    let mut body = good_body();
    body["steps"] = json!(4);
    body["strength"] = json!(0.8);
    let alone = pictures_of(&server, &body).await;
    assert_eq!(alone, pictures_of(&server, &body).await, "the same request again");

    // The others differ in what may differ inside one batch: prompt, seed, steps, strength and guidance.
    let others = (0..15_u32).map(|k| {
        let mut other = good_body();
        other["prompt"] = json!(format!("scene number {k}"));
        other["seed"] = json!(k);
        other["steps"] = json!(1 + k % 8);
        other["strength"] = json!(0.3 + 0.05 * f64::from(k % 8));
        other["guidance_scale"] = json!(f64::from(k % 3));
        other
    });
    let mut bodies: Vec<_> = others.collect();
    bodies.insert(7, body);
    let all = join_all(bodies.iter().map(|body| pictures_of(&server, body))).await;
    assert_eq!(all[7], alone, "the same request among fifteen others");
    let different = all.iter().filter(|pictures| **pictures != alone).count();
    assert_eq!(different, 15, "and the others are others");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_picture_of_a_request_can_be_made_again_from_its_own_seed() {
    let server = TestServer::start();
    let mut body = good_body();
    body["image_num"] = json!(3);
    body["strength"] = json!(1);
    let together = pictures_of(&server, &body).await;
    assert_eq!(together.len(), 3);
    body["image_num"] = json!(1);
    for (k, picture) in together.iter().enumerate() {
        body["seed"] = json!(7 + k);
        let single = pictures_of(&server, &body).await;
        // Pixels, not bytes: the file's own text says how many pictures were asked for.
        assert_eq!(
            pictures::decode(&single[0]),
            pictures::decode(picture),
            "picture {k}"
        );
    }
    assert_ne!(pictures::decode(&together[0]), pictures::decode(&together[1]));
}
