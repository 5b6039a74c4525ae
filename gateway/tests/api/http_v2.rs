//! V2 over HTTP, rule by rule: what a request may be, and what comes back.

use reqwest::Response;
use serde_json::{Value, json};
use sluice_gateway::NanForm;

use crate::support::{Caller, Process, serve, serve_with};

/// Each datatype: a graph that gives back what it gets, elements in JSON, and the same in binary.
const DATATYPES: [(&str, &str, &str, &[u8]); 12] = [
    ("BOOL", "identity/BOOL.onnx", "[true,false]", &[1, 0]),
    ("UINT8", "identity/UINT8.onnx", "[0,255]", &[0, 255]),
    ("UINT16", "identity/UINT16.onnx", "[1,65535]", &[1, 0, 255, 255]),
    ("UINT32", "identity/UINT32.onnx", "[1,4294967295]", &[1, 0, 0, 0, 255, 255, 255, 255]),
    (
        "UINT64",
        "identity/UINT64.onnx",
        "[1,18446744073709551615]",
        &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
    ),
    ("INT8", "identity/INT8.onnx", "[-128,127]", &[128, 127]),
    ("INT16", "identity/INT16.onnx", "[-32768,32767]", &[0, 128, 255, 127]),
    ("INT32", "identity/INT32.onnx", "[-2147483648,1]", &[0, 0, 0, 128, 1, 0, 0, 0]),
    (
        "INT64",
        "identity/INT64.onnx",
        "[-9223372036854775808,1]",
        &[0, 0, 0, 0, 0, 0, 0, 128, 1, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("FP32", "identity/FP32.onnx", "[-0.0,1e-40]", &[0, 0, 0, 128, 194, 22, 1, 0]),
    (
        "FP64",
        "identity/FP64.onnx",
        "[1.5,-2.0]",
        &[0, 0, 0, 0, 0, 0, 248, 63, 0, 0, 0, 0, 0, 0, 0, 192],
    ),
    ("BYTES", "identity/BYTES.onnx", "[\"é\",\"\"]", &[2, 0, 0, 0, 195, 169, 0, 0, 0, 0]),
];

fn identities() -> Vec<(&'static str, u64, &'static str)> {
    DATATYPES.map(|(datatype, graph, ..)| (datatype, 1, graph)).to_vec()
}

/// A request of one input, its data as text, with more keys.
pub(crate) fn request(datatype: &str, shape: &str, data: &str, more: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"INPUT0","datatype":"{datatype}","shape":{shape},"data":{data}}}]{more}}}"#
    )
}

pub(crate) async fn infer(
    caller: &Caller,
    model: &str,
    body: impl Into<reqwest::Body>,
) -> (u16, Value) {
    caller.post(&format!("/v2/models/{model}/infer"), body).await
}

/// Posts JSON and binary data behind it.
pub(crate) async fn post_binary(
    caller: &Caller,
    model: &str,
    json: &str,
    binary: &[u8],
) -> Response {
    caller
        .client
        .post(caller.url(&format!("/v2/models/{model}/infer")))
        .header("Inference-Header-Content-Length", json.len())
        .body([json.as_bytes(), binary].concat())
        .send()
        .await
        .unwrap()
}

/// An answer's JSON, and the binary data if the header says that there is some.
pub(crate) async fn parts(response: Response) -> (Value, Option<Vec<u8>>) {
    let length = response.headers().get("inference-header-content-length");
    let length: Option<usize> = length.map(|length| length.to_str().unwrap().parse().unwrap());
    let octets = response.headers()["content-type"] == "application/octet-stream";
    assert_eq!(octets, length.is_some(), "{:?}", response.headers());
    let body = response.bytes().await.unwrap();
    let (json, binary) = body.split_at(length.unwrap_or(body.len()));
    (serde_json::from_slice(json).unwrap(), length.map(|_| binary.to_vec()))
}

pub(crate) fn check(answered: &(u16, Value), status: u16, says: &str, what: &str) {
    let (found, body) = answered;
    assert_eq!(*found, status, "{what}: {body}");
    let keys: Vec<_> =
        body.as_object().unwrap_or_else(|| panic!("{what}: {body}")).keys().collect();
    assert_eq!(keys, ["error"], "{what}: {body}");
    assert!(body["error"].as_str().unwrap().contains(says), "{what}: {body}");
}

#[tokio::test]
async fn every_datatype_in_json_and_in_binary() {
    let running = serve(&identities()).await;
    for (datatype, _, data, raw) in DATATYPES {
        let text = running
            .client
            .post(running.url(&format!("/v2/models/{datatype}/infer")))
            .body(request(datatype, "[1,2]", data, ""))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (text.status().as_u16(), text.headers()["content-type"].as_bytes()),
            (200, &b"application/json"[..])
        );
        let expected = format!(
            r#"{{"model_name":"{datatype}","model_version":"1","outputs":[{{"name":"OUTPUT0","datatype":"{datatype}","shape":[1,2],"data":{data}}}]}}"#
        );
        assert_eq!(text.text().await.unwrap(), expected);

        let input = format!(
            r#"{{"inputs":[{{"name":"INPUT0","datatype":"{datatype}","shape":[1,2],"parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
            raw.len()
        );
        let (json, binary) = parts(post_binary(&running, datatype, &input, raw).await).await;
        assert_eq!(binary.as_deref(), Some(raw), "{datatype}: {json}");
        let output = json!({"name": "OUTPUT0", "datatype": datatype, "shape": [1, 2], "parameters": {"binary_data_size": raw.len()}});
        assert_eq!(json["outputs"], json!([output]));
    }
}

/// Neither 16-bit float is in JSON, in either direction, and nothing runs to find out.
#[tokio::test]
async fn sixteen_bit_floats_are_binary_only() {
    let models = [("FP16", 1, "identity/FP16.onnx"), ("BF16", 1, "identity/BF16.onnx")];
    let running = serve(&models).await;
    for datatype in ["FP16", "BF16"] {
        let text =
            request(datatype, "[1,1]", "[1.0]", r#","parameters":{"binary_data_output":true}"#);
        let answered = infer(&running, datatype, text).await;
        check(&answered, 400, &format!("\"INPUT0\": {datatype} has no JSON form"), datatype);
        let input = |more: &str| {
            format!(
                r#"{{"inputs":[{{"name":"INPUT0","datatype":"{datatype}","shape":[1,1],"parameters":{{"binary_data_size":2}}}}]{more}}}"#
            )
        };
        let refusal =
            format!("\"OUTPUT0\": {datatype} has no JSON form; ask for it as binary data");
        for more in ["", r#","outputs":[{"name":"OUTPUT0"}]"#] {
            let response = post_binary(&running, datatype, &input(more), &[1, 2]).await;
            let status = response.status().as_u16();
            check(&(status, response.json().await.unwrap()), 400, &refusal, more);
        }
        let more = r#","outputs":[{"name":"OUTPUT0","parameters":{"binary_data":true}}]"#;
        let (json, binary) =
            parts(post_binary(&running, datatype, &input(more), &[1, 2]).await).await;
        assert_eq!((binary, &json["outputs"][0]["datatype"]), (Some(vec![1, 2]), &json!(datatype)));
    }
}

#[tokio::test]
async fn elements_that_are_no_elements_of_the_datatype() {
    let running = serve(&identities()).await;
    for (datatype, data, says) in [
        ("BOOL", "[1,0]", "element 1 is no BOOL"),
        ("BOOL", "[true,\"true\"]", "element \"true\" is no BOOL"),
        ("UINT8", "[256,0]", "256 is out of the range of UINT8"),
        ("UINT8", "[-1,0]", "-1 is out of the range of UINT8"),
        ("INT8", "[128,0]", "128 is out of the range of INT8"),
        ("INT16", "[1,-32769]", "out of the range of INT16"),
        ("UINT16", "[65536,1]", "out of the range of UINT16"),
        ("INT32", "[2147483648,1]", "out of the range of INT32"),
        ("UINT32", "[4294967296,1]", "out of the range of UINT32"),
        ("INT64", "[9223372036854775808,1]", "out of the range of INT64"),
        ("UINT64", "[18446744073709551616,1]", "out of the range of UINT64"),
        ("INT32", "[1.0,2]", "element 1.0 is no INT32"),
        ("INT32", "[1e2,2]", "element 1e2 is no INT32"),
        ("INT32", "[null,2]", "element null is no INT32"),
        ("INT32", "[true,2]", "element true is no INT32"),
        ("FP32", "[\"1\",2]", "element \"1\" is no FP32"),
        ("FP32", "[{},2]", "is no FP32"),
        ("FP32", "[true,2]", "element true is no FP32"),
        ("BYTES", "[1,\"a\"]", "element 1 is no BYTES"),
        ("BYTES", "[null,\"a\"]", "element null is no BYTES"),
        ("FP32", "[NaN,2]", "request body is no infer request"),
        ("FP32", "[Infinity,2]", "request body is no infer request"),
        ("FP32", "[01,2]", "request body is no infer request"),
        ("FP32", "[1,2", "request body is no infer request"),
        ("FP32", "[1,2]]", "request body is no infer request"),
    ] {
        let text = request(datatype, "[1,2]", data, "");
        check(&infer(&running, datatype, text).await, 400, says, data);
    }
    check(
        &infer(&running, "FP32", request("FP64", "[1,1]", "[1]", "")).await,
        400,
        "data-type is 'FP64', but model 'FP32' expects 'FP32'",
        "",
    );
    check(
        &infer(&running, "FP32", request("FP31", "[1,1]", "[1]", "")).await,
        400,
        "unknown datatype \"FP31\"",
        "",
    );
    let (status, body) = infer(&running, "FP32", request("FP32", "[1,3]", "[1,-0,1e2]", "")).await;
    assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([1.0, -0.0, 100.0])), "{body}");
}

#[tokio::test]
async fn shapes_and_nesting() {
    let running = serve(&identities()).await;
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for (shape, data, expected) in [
        ("[2,2]", "[1,2,3,4]", json!([1.0, 2.0, 3.0, 4.0])),
        ("[2,2]", "[[1,2],[3,4]]", json!([1.0, 2.0, 3.0, 4.0])),
        ("[2,2]", "[[[1],2],[3],[[4]]]", json!([1.0, 2.0, 3.0, 4.0])),
        ("[1,0]", "[]", json!([])),
        ("[1,0]", "[[]]", json!([])),
        ("[1,1]", &deep(100), json!([1.0])),
    ] {
        let (status, body) = infer(&running, "FP32", request("FP32", shape, data, "")).await;
        assert_eq!(
            (status, &body["outputs"][0]["data"]),
            (200, &expected),
            "{shape} {data}: {body}"
        );
    }
    let many = format!("[{}1]", "1,".repeat(64));
    for (shape, data, says) in [
        ("[2,2]", "[1,2,3]", "shape does not match true shape"),
        ("[2,2]", "[1,2,3,4,5]", "shape does not match true shape"),
        ("[1,0]", "[1]", "needs 0 elements, got 1"),
        ("[0,1]", "[]", "has no rows"),
        ("[-1,2]", "[1,2]", "negative dimension"),
        ("[4294967296,4294967296]", "[1]", "more elements than can be counted"),
        ("[1,2305843009213693952]", "[1]", "shape does not match true shape"),
        ("[9223372036854775808,1]", "[1]", "request body is no infer request"),
        ("[1.5,1]", "[1]", "request body is no infer request"),
        ("[\"1\",1]", "[1]", "request body is no infer request"),
        ("null", "[1]", "request body is no infer request"),
        ("[1]", "[1]", "Expected [-1,-1], got [1]"),
        ("[]", "1", "has no shape but model requires batch dimension"),
        (&many, "[1]", "shape has 65 dimensions"),
        ("[1,1]", &deep(101), "nested more than 100 deep"),
    ] {
        let answered = infer(&running, "FP32", request("FP32", shape, data, "")).await;
        check(&answered, 400, says, &format!("{shape} {data}"));
    }
}

#[tokio::test]
async fn an_id_comes_back_only_when_given() {
    let running = serve(&[("FP32", 1, "identity/FP32.onnx")]).await;
    let ask =
        async |more: &str| infer(&running, "FP32", request("FP32", "[1,1]", "[1]", more)).await;
    for (more, id) in [
        ("", None),
        (r#","id":"""#, None),
        (r#","id":null"#, None),
        (r#","id":"a \"é\u0000""#, Some("a \"é\0")),
        (r#","model_name":"other","model_version":7,"extra":{"deep":[[{}]]}"#, None),
    ] {
        let (status, body) = ask(more).await;
        assert_eq!((status, body.get("id").and_then(Value::as_str)), (200, id), "{more}: {body}");
        assert_eq!((&body["model_name"], &body["model_version"]), (&json!("FP32"), &json!("1")));
    }
    for id in ["1", "{}", "[]", "true"] {
        check(&ask(&format!(",\"id\":{id}")).await, 400, "request body is no infer request", id);
    }
}

#[tokio::test]
async fn parameters_are_strings_numbers_and_truth_values() {
    let running = serve(&[("FP32", 1, "identity/FP32.onnx")]).await;
    let ask = async |parameters: &str| {
        let more = format!(",\"parameters\":{parameters}");
        infer(&running, "FP32", request("FP32", "[1,1]", "[1]", &more)).await
    };
    for parameters in [
        r#"{"a":"x","b":1,"c":-1,"d":0.5,"e":true,"f":18446744073709551615}"#,
        r#"{"priority":2,"timeout":0}"#,
        "{}",
        "null",
    ] {
        assert_eq!(ask(parameters).await.0, 200, "{parameters}");
    }
    for (parameters, says) in [
        (r#"{"p":null}"#, "parameter \"p\""),
        (r#"{"p":[1]}"#, "parameter \"p\""),
        (r#"{"p":{"q":1}}"#, "expected a string, number or truth value"),
        (r#"{"p":1,"p":1}"#, "given twice"),
        (r#"{"triton_x":1}"#, "starting with 'triton_' are reserved"),
        (r#"{"headers":"x"}"#, "'headers' and parameter keys"),
        (r#"{"priority":-1}"#, "parameter \"priority\" must be a whole number"),
        (r#"{"timeout":"1"}"#, "parameter \"timeout\" must be a whole number"),
        (r#"{"timeout":1.5}"#, "parameter \"timeout\" must be a whole number"),
        (r#"{"binary_data_output":1}"#, "parameter \"binary_data_output\" must be true or false"),
        (r#"{"p":1e999}"#, "request body is no infer request"),
        ("[]", "expected an object of parameters"),
        ("1", "expected an object of parameters"),
    ] {
        check(&ask(parameters).await, 400, says, parameters);
    }
    let output = |parameters: &str| {
        format!(r#","outputs":[{{"name":"OUTPUT0","parameters":{parameters}}}]"#)
    };
    for (parameters, says) in [
        (r#"{"binary_data":"yes"}"#, "\"binary_data\" must be true or false"),
        (r#"{"binary_data":null}"#, "parameter \"binary_data\""),
        (r#"{"classification":"all"}"#, "\"classification\" must be a whole number"),
        (r#"{"shared_memory_region":"r"}"#, "\"shared_memory_byte_size\" must be beside"),
    ] {
        let text = request("FP32", "[1,1]", "[1]", &output(parameters));
        check(&infer(&running, "FP32", text).await, 400, says, parameters);
    }
}

#[tokio::test]
async fn exactly_one_source_of_data() {
    let running = serve(&[("FP32", 1, "identity/FP32.onnx")]).await;
    for (source, says) in [
        ("", "neither data nor binary_data_size"),
        (r#","data":null"#, "neither data nor binary_data_size"),
        (
            r#","data":[1],"parameters":{"binary_data_size":4}"#,
            "must have one of data, binary_data_size and shared_memory_region, not 2",
        ),
        (r#","parameters":{"binary_data_size":-4}"#, "must be a whole number that is not negative"),
        (r#","parameters":{"binary_data_size":"4"}"#, "must be a whole number"),
        (r#","parameters":{"binary_data_size":4.0}"#, "must be a whole number"),
        (r#","parameters":{"binary_data_size":4}"#, "needs 4 bytes of binary data, 0 are left"),
        (r#","parameters":{"binary_data_size":18446744073709551615}"#, "0 are left"),
        (r#","parameters":{"shared_memory_region":"r"}"#, "\"shared_memory_byte_size\" must be"),
    ] {
        let text = format!(
            r#"{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[1,1]{source}}}]}}"#
        );
        check(&infer(&running, "FP32", text).await, 400, says, source);
    }
}

/// What is no object of the right keys, and what hides in it.
#[tokio::test]
async fn bodies_that_are_no_request() {
    let running = Process::start(&[("FP32", 1, "identity/FP32.onnx")], &[]).await;
    let good = request("FP32", "[1,1]", "[1]", "");
    let more = |more: &str| request("FP32", "[1,1]", "[1]", more);
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let parameters: Vec<_> = (0..200_000).map(|name| format!("\"p{name}\":1")).collect();
    for body in [
        String::new(),
        " ".to_owned(),
        "null".to_owned(),
        "1".to_owned(),
        "\"x\"".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "{".to_owned(),
        r#"[null,null,[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"data":[1]}],null]"#
            .to_owned(),
        r#"{"inputs":[["INPUT0","FP32",[1,1],null,[1]]]}"#.to_owned(),
        r#"{"inputs":{"name":"INPUT0"}}"#.to_owned(),
        r#"{"inputs":null}"#.to_owned(),
        r#"{"inputs":[null]}"#.to_owned(),
        r#"{"inputs":[{"datatype":"FP32","shape":[1,1],"data":[1]}]}"#.to_owned(),
        r#"{"inputs":[{"name":"INPUT0","shape":[1,1],"data":[1]}]}"#.to_owned(),
        r#"{"inputs":[{"name":"INPUT0","datatype":"FP32","data":[1]}]}"#.to_owned(),
        r#"{"inputs":[{"name":7,"datatype":"FP32","shape":[1,1],"data":[1]}]}"#.to_owned(),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("{good}\0"),
        format!("\u{feff}{good}"),
        more(r#","id":"a","id":"b""#),
        more(r#","inputs":[]"#),
        more(r#","outputs":["OUTPUT0"]"#),
        more(r#","outputs":{"name":"OUTPUT0"}"#),
        more(&format!(",\"parameters\":{}", deep(10_000))),
        more(&format!(",\"id\":{}", deep(10_000))),
        more(&format!(",\"parameters\":{{{}}}", parameters.join(","))),
        more(&format!(",\"outputs\":[{}{{}}]", r#"{"name":"OUTPUT0"},"#.repeat(20_000))),
        good.replace("FP32\",", "FP32\",\"datatype\":\"FP32\","),
    ] {
        let begins: String = body.chars().take(80).collect();
        let answered = infer(&running, "FP32", body).await;
        check(&answered, 400, "request body is no infer request", &begins);
    }
    let answered = infer(&running, "FP32", [good.as_bytes(), b"\xff"].concat()).await;
    check(&answered, 400, "request body is no infer request", "not UTF-8");
    let unread = more(&format!(",\"unread\":{}", deep(1_000_000)));
    assert_eq!(infer(&running, "FP32", unread).await.0, 200, "keys that are not read may be deep");
    assert_eq!(infer(&running, "FP32", format!(" \n{good}\r\n ")).await.0, 200);
    running.end_without_an_error().await;
}

#[tokio::test]
async fn inputs_that_do_not_fit_the_model() {
    let running = serve(&[("add_sub", 1, "add_sub.onnx")]).await;
    let ones = [1; 16];
    let input = |name: &str, rows: usize| json!({"name": name, "datatype": "INT32", "shape": [rows, 16], "data": ones.repeat(rows)});
    for (inputs, says) in [
        (json!([input("INPUT0", 1)]), "\"INPUT1\": is missing"),
        (json!([]), "is missing"),
        (
            json!([input("INPUT0", 1), input("OTHER", 1)]),
            "\"INPUT1\": is missing: unexpected inference input 'OTHER' for model 'add_sub'",
        ),
        (
            json!([input("INPUT0", 1), input("INPUT1", 1), input("OTHER", 1)]),
            "unexpected inference input 'OTHER' for model 'add_sub': expected 2 inputs but got 3",
        ),
        (json!([input("INPUT0", 1), input("INPUT0", 1)]), "\"INPUT0\": is given twice"),
        (
            json!([input("INPUT0", 1), input("INPUT1", 2)]),
            "input 'INPUT1' batch size does not match other inputs for 'add_sub'",
        ),
    ] {
        let answered = infer(&running, "add_sub", json!({"inputs": inputs}).to_string()).await;
        check(&answered, 400, says, says);
    }
    let body = json!({"inputs": [input("INPUT1", 2), input("INPUT0", 2)]}).to_string();
    let (status, body) = infer(&running, "add_sub", body).await;
    assert_eq!((status, &body["outputs"][1]["data"]), (200, &json!(vec![0; 32])), "{body}");
}

/// An answer of `add_sub` for 5 and 2, with such outputs and parameters asked for.
async fn add_sub(caller: &Caller, outputs: &Value, parameters: &Value) -> Response {
    let input = |name: &str, value: i32| json!({"name": name, "datatype": "INT32", "shape": [1, 16], "data": vec![value; 16]});
    let inputs = [input("INPUT0", 5), input("INPUT1", 2)];
    let body = json!({"inputs": inputs, "outputs": outputs, "parameters": parameters});
    let asked = caller.client.post(caller.url("/v2/models/add_sub/infer"));
    asked.body(body.to_string()).send().await.unwrap()
}

/// In the model's order, whatever order they are asked in; binary data in that order, too.
#[tokio::test]
async fn which_outputs_come_back_and_how() {
    let running = serve(&[("add_sub", 1, "add_sub.onnx")]).await;
    let named = |name: &str| json!({"name": name});
    let as_binary =
        |name: &str, binary: bool| json!({"name": name, "parameters": {"binary_data": binary}});
    let (plain, all) = (json!({}), json!({"binary_data_output": true}));
    let none = json!({"binary_data_output": false});
    let seven = 7i32.to_le_bytes().repeat(16);
    let three = 3i32.to_le_bytes().repeat(16);
    let both = [seven.clone(), three].concat();
    // Which outputs come, whether their data are JSON, and the binary data.
    let (json0, json1) = (("OUTPUT0", true), ("OUTPUT1", true));
    let (raw0, raw1) = (("OUTPUT0", false), ("OUTPUT1", false));
    for (outputs, parameters, expected, binary) in [
        (Value::Null, &plain, vec![json0, json1], None),
        (json!([]), &plain, vec![json0, json1], None),
        (Value::Null, &all, vec![raw0, raw1], Some(both.clone())),
        (json!([]), &all, vec![raw0, raw1], Some(both.clone())),
        (json!([named("OUTPUT1")]), &all, vec![json1], None),
        (
            json!([named("OUTPUT1"), as_binary("OUTPUT0", true)]),
            &plain,
            vec![raw0, json1],
            Some(seven),
        ),
        (
            json!([as_binary("OUTPUT1", true), as_binary("OUTPUT0", true)]),
            &none,
            vec![raw0, raw1],
            Some(both),
        ),
        (json!([as_binary("OUTPUT0", false)]), &all, vec![json0], None),
    ] {
        let (json, found) = parts(add_sub(&running, &outputs, parameters).await).await;
        let listed = json["outputs"].as_array().unwrap().iter();
        let listed: Vec<_> = listed
            .map(|output| (output["name"].as_str().unwrap(), output.get("data").is_some()))
            .collect();
        assert_eq!((listed, found), (expected, binary), "{outputs} {parameters}");
    }
}

#[tokio::test]
async fn outputs_are_asked_for_once_and_by_their_names() {
    let running = serve(&[("add_sub", 1, "add_sub.onnx")]).await;
    let unknown = "\"OTHER\" is no output of model add_sub; its outputs are OUTPUT0, OUTPUT1";
    for (names, says) in
        [(&["OUTPUT0", "OUTPUT0"][..], "\"OUTPUT0\" is asked twice"), (&["OTHER"], unknown)]
    {
        let outputs: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        let response = add_sub(&running, &json!(outputs), &json!({})).await;
        let status = response.status().as_u16();
        check(&(status, response.json().await.unwrap()), 400, says, says);
    }
}

#[tokio::test]
async fn not_a_number_is_null_or_a_word() {
    let models = [
        ("FP32", 1, "identity/FP32.onnx"),
        ("FP64", 1, "identity/FP64.onnx"),
        ("INT8", 1, "identity/INT8.onnx"),
    ];
    let nulls = serve(&models).await;
    let words = serve_with(&models, |settings| settings.dialect.nan = Some(NanForm::Words)).await;
    for datatype in ["FP32", "FP64"] {
        let raw = request(datatype, "[1,2]", "[null,1]", "");
        let (status, body) = infer(&nulls, datatype, raw).await;
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([null, 1.0])), "{body}");
        let text = request(datatype, "[1,5]", "[-NaN, Inf,-Infinity,null,1]", r#","id":"NaN""#);
        let asked =
            words.client.post(words.url(&format!("/v2/models/{datatype}/infer"))).body(text);
        let text = asked.send().await.unwrap().text().await.unwrap();
        assert!(text.contains(r#""data":[NaN,Infinity,-Infinity,NaN,1.0]"#), "{text}");
        assert!(text.contains(r#""id":"NaN""#), "{text}");
    }
    for (datatype, data, says) in [
        ("INT8", "[NaN]", "element null is no INT8"),
        ("INT8", "[Infinity]", "is no INT8"),
        ("FP32", "[nan]", "request body is no infer request"),
        ("FP32", "[NaNa]", "request body is no infer request"),
        ("FP32", "[Infi]", "request body is no infer request"),
        ("FP32", "[+Infinity]", "request body is no infer request"),
    ] {
        let text = request(datatype, "[1,1]", data, "");
        check(&infer(&words, datatype, text).await, 400, says, data);
    }
}

/// B5.12: no number becomes an infinity on its way.
#[tokio::test]
async fn numbers_past_their_range_are_refused() {
    let models = [("FP32", 1, "identity/FP32.onnx"), ("FP64", 1, "identity/FP64.onnx")];
    let nulls = serve(&models).await;
    let words = serve_with(&models, |settings| settings.dialect.nan = Some(NanForm::Words)).await;
    for running in [&nulls, &words] {
        for (datatype, number) in
            [("FP32", "1e39"), ("FP32", "-1e999"), ("FP64", "1e309"), ("FP64", "9e999")]
        {
            let says =
                format!("input \"INPUT0\": element {number} is out of the range of {datatype}");
            let text = request(datatype, "[1,2]", &format!("[0,{number}]"), "");
            check(&infer(running, datatype, text).await, 400, &says, number);
            for (path, body) in [
                (
                    format!("/v1/models/{datatype}:predict"),
                    format!(r#"{{"instances":[[{number}]]}}"#),
                ),
                (format!("/v1/models/{datatype}:predict"), format!(r#"{{"inputs":[[{number}]]}}"#)),
                (format!("/v2/models/{datatype}/generate"), format!(r#"{{"INPUT0":[{number}]}}"#)),
            ] {
                check(&running.post(&path, body).await, 400, &says, &path);
            }
        }
        let text = request("FP64", "[1,2]", "[1e39,-1.7976931348623157e308]", "");
        let (status, body) = infer(running, "FP64", text).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["outputs"][0]["data"], json!([1e39, -1.797_693_134_862_315_7e308]));
    }
}

/// Bytes come through as they are, or not at all.
#[tokio::test]
async fn texts_of_any_bytes() {
    let running =
        Process::start(&[("BYTES", 1, "identity/BYTES.onnx")], &["--max-body=6000000"]).await;
    let ask = async |text: &[u8], binary: bool| {
        let json = format!(
            r#"{{"inputs":[{{"name":"INPUT0","datatype":"BYTES","shape":[1,1],"parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":{binary}}}}}"#,
            text.len() + 4
        );
        let raw = [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat();
        (post_binary(&running, "BYTES", &json, &raw).await, raw)
    };
    for text in [&b"a b"[..], "\u{10ffff}".as_bytes(), b"", &b"long ".repeat(1_000_000)] {
        let (response, raw) = ask(text, true).await;
        let begins = &text[..text.len().min(20)];
        match response.status().as_u16() {
            200 => assert!(parts(response).await.1.unwrap() == raw, "{begins:?}"),
            other => panic!("{other} {begins:?}: {}", response.text().await.unwrap()),
        }
    }
    // ONNX Runtime takes texts that end with a NUL, and so none that has one.
    for (text, says) in [(&b"\xff\xfe"[..], "UTF-8"), (b"a\0b", "contains a NUL")] {
        for binary in [true, false] {
            let (response, _) = ask(text, binary).await;
            let status = response.status().as_u16();
            check(&(status, response.json().await.unwrap()), 400, says, says);
        }
    }
    let text = request("BYTES", "[1,3]", r#"["a\tb","\"\\\/\n","\ud83d\ude00"]"#, "");
    let (status, body) = infer(&running, "BYTES", text).await;
    assert_eq!(
        (status, &body["outputs"][0]["data"]),
        (200, &json!(["a\tb", "\"\\/\n", "😀"])),
        "{body}"
    );
    for text in [r#"["\ud800"]"#, r#"["\x"]"#, "[\"a\nb\"]"] {
        assert_eq!(infer(&running, "BYTES", request("BYTES", "[1,1]", text, "")).await.0, 400);
    }
    for raw in [&b"\x02\0\0\0a"[..], b"\xff\xff\xff\xffa", b"\x01\0", b"\x01\0\0\0ab\0\0\0"] {
        let json = format!(
            r#"{{"inputs":[{{"name":"INPUT0","datatype":"BYTES","shape":[1,1],"parameters":{{"binary_data_size":{}}}}}]}}"#,
            raw.len()
        );
        let response = post_binary(&running, "BYTES", &json, raw).await;
        let status = response.status().as_u16();
        check(&(status, response.json().await.unwrap()), 400, "is cut off", "cut off");
    }
    running.end_without_an_error().await;
}
