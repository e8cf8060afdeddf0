//! A job's record leads back to the call that brought it, through both dialects.

use super::*;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_job_remembers_the_id_and_the_trace_of_its_call() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let call = async |path: &str, body: &Value, id: &str, traceparent: &str| {
        let request = Request::post(path)
            .header("host", "pictures.test")
            .header("x-request-id", id)
            .header("traceparent", traceparent)
            .body(Body::from(body.to_string()))
            .unwrap();
        let reply = send(&router, request).await;
        assert_eq!(reply.status, 200, "{}", reply.json());
        let jobs = test.parts.store.list(&Default::default()).await.unwrap();
        let origin = &jobs.last().unwrap().origin;
        (origin.request_id.clone(), origin.traceparent.clone())
    };
    let novita = call("/v3/lcm-img2img", &good("a house"), "call-1", CALLER).await;
    assert_eq!(novita, ("call-1".to_owned(), Some(CALLER.to_owned())));
    let body = json!({"key": "x", "model_id": "demo", "prompt": "a house", "init_image": image_file()});
    let path = "/api/v1/enterprise/img2img";
    let modelslab = call(path, &body, "call-2", CALLER).await;
    assert_eq!(modelslab, ("call-2".to_owned(), Some(CALLER.to_owned())));
    let broken = call(path, &body, "call-3", "00-nonsense").await;
    assert_eq!(broken, ("call-3".to_owned(), None));
}
