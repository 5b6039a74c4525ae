//! Who goes first among those who wait: by tenant, and by when an answer is due.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sluice_gateway::Settings;
use tonic::Code;

use crate::grpc_busy::{LONG, busy, queued, rounds, serve_rounds_with};
use crate::inference::connect;
use crate::support::{Running, answer};

const TENANT: &str = "x-tenant";
const TIMEOUT: &str = "x-request-timeout-ms";

async fn serve_tenants(adjust: impl FnOnce(&mut Settings)) -> Running {
    serve_rounds_with(|settings| {
        settings.tenants.tenant_header = Some("X-Tenant".to_owned());
        adjust(settings);
    })
    .await
}

/// In which order questions are answered that come one after the other while a long run keeps the
/// worker busy. Each has a header.
async fn order(running: &Running, questions: &[(&'static str, &'static str)]) -> Vec<usize> {
    let long = busy(running, rounds(LONG)).await;
    let client = connect(running).await;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut asked = Vec::new();
    for (at, &(header, value)) in questions.iter().enumerate() {
        let (mut client, answered) = (client.clone(), answered.clone());
        asked.push(tokio::spawn(async move {
            let mut question = tonic::Request::new(rounds(LONG / 400));
            question.metadata_mut().insert(header, value.parse().unwrap());
            client.model_infer(question).await.unwrap();
            // They come on one connection, in the order in which they were given.
            answered.lock().unwrap().push(at);
        }));
        queued(running, u32::try_from(asked.len()).unwrap()).await;
    }
    assert!(!long.is_finished(), "the worker was busy all the while");
    for question in asked {
        question.await.unwrap();
    }
    assert!(long.await.unwrap().is_ok());
    Arc::into_inner(answered).unwrap().into_inner().unwrap()
}

const A: (&str, &str) = (TENANT, "a");
const B: (&str, &str) = (TENANT, "b");

#[tokio::test]
async fn a_tenant_that_floods_the_queue_waits_behind_itself() {
    let running = serve_tenants(|_| {}).await;
    assert_eq!(order(&running, &[A, A, A, A, B, B]).await, [0, 4, 1, 5, 2, 3]);
}

#[tokio::test]
async fn tenants_have_the_shares_that_are_set() {
    let running = serve_tenants(|settings| {
        settings.tenants.tenant_share = vec!["b=2".to_owned()];
    })
    .await;
    assert_eq!(order(&running, &[A, A, A, B, B, B, B]).await, [0, 3, 4, 1, 5, 6, 2]);
}

#[tokio::test]
async fn without_a_header_that_says_so_there_are_no_tenants() {
    let running = serve_rounds_with(|_| {}).await;
    assert_eq!(order(&running, &[A, A, A, B, B]).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn who_is_due_first_goes_first() {
    let running = serve_rounds_with(|_| {}).await;
    let times = [("no-limit", "1"), (TIMEOUT, "90000"), (TIMEOUT, "60000"), (TIMEOUT, "120000")];
    assert_eq!(order(&running, &times).await, [2, 1, 3, 0]);
}

#[tokio::test]
async fn a_tenant_has_as_many_requests_under_way_as_it_may() {
    let running = serve_tenants(|settings| {
        settings.tenants.tenant_max_requests = vec!["*=1".to_owned(), "b=2".to_owned()];
    })
    .await;
    let mut first = tonic::Request::new(rounds(LONG));
    first.metadata_mut().insert(TENANT, "a".parse().unwrap());
    let mut client = connect(&running).await;
    let mut next = client.clone();
    let long = tokio::spawn(async move { client.model_infer(first).await });
    // Behind the other on its connection.
    tokio::task::yield_now().await;
    let refused = loop {
        let mut second = tonic::Request::new(rounds(1));
        second.metadata_mut().insert(TENANT, "a".parse().unwrap());
        if let Err(status) = next.model_infer(second).await {
            break status;
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("has 1 under way already"), "{refused:?}");
    let input = json!({"name": "rounds", "shape": [1], "datatype": "INT64", "data": [1]});
    let body = json!({"inputs": [input]}).to_string();
    let ask = |tenant| {
        let request = running.client.post(running.url("/v2/models/m/infer"));
        request.header(TENANT, tenant).body(body.clone())
    };
    let response = ask("a").send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    assert!(!long.is_finished(), "it was under way all the while");
    assert_eq!(answer(ask("b")).await.0, 200);
    assert!(long.await.unwrap().is_ok());
    let (status, _): (u16, Value) = answer(ask("a")).await;
    assert_eq!(status, 200, "there is room again");
}
