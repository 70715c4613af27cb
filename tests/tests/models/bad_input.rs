//! Requests that cannot be served: each is refused by type and field, and the next one is served.

use crate::{ONNXRUNTIME, client, inputs};
use anyhow::Result;
use mote_client::{Client, ClientError, DType, Input, Output, Status, WorkOptions};
use mote_tests::reference::Case;

/// A request that is in order still gets its answer.
fn still_serves(client: &Client, case: &Case) -> Result<()> {
    let options = ONNXRUNTIME.required();
    let result = client.infer("magika", &inputs(&case.inputs), &[], &options)?;
    assert_eq!(result.outputs.len(), case.outputs.len());
    Ok(())
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Status {
    match result {
        Err(ClientError::Refused(status)) => status,
        other => panic!("{other:?}"),
    }
}

/// The field that a request is refused for, and what is wrong with it.
fn invalid<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (String, String) {
    match refusal(result) {
        Status::Invalid { field, why } => (field, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_that_is_not_there_is_answered_with_names_like_it() -> Result<()> {
    let (client, case) = (client()?, Case::read("magika")?);
    let options = WorkOptions::default();
    for (wanted, meant) in [("magica", "magika"), ("Smollm2-135", "smollm2-135m")] {
        match refusal(client.infer(wanted, &inputs(&case.inputs), &[], &options)) {
            Status::ModelNotFound { model, similar } => {
                assert_eq!(model, wanted);
                assert!(similar.iter().any(|name| name == meant), "{similar:?}");
            }
            other => panic!("{other:?}"),
        }
        still_serves(&client, &case)?;
    }
    match refusal(client.open_stream("", &options)) {
        Status::ModelNotFound { .. } | Status::Invalid { .. } => {}
        other => panic!("{other:?}"),
    }
    still_serves(&client, &case)
}

#[test]
fn inputs_that_do_not_fit_the_model_are_refused_by_field() -> Result<()> {
    let (client, case) = (client()?, Case::read("magika")?);
    let array = &case.inputs["bytes"];
    let (shape, bytes) = (array.shape.as_slice(), array.bytes.as_slice());
    let good = Input::bytes("bytes", DType::I32, shape, bytes);
    let half = [shape[0], shape[1] / 2];
    let refused: &[(&[Input<'_>], &str, &str)] = &[
        (
            &[Input::bytes("bytes", DType::F32, shape, bytes)],
            "inputs[bytes].dtype",
            "i32",
        ),
        (
            &[Input::bytes(
                "bytes",
                DType::I32,
                &half,
                &bytes[..bytes.len() / 2],
            )],
            "inputs[bytes].shape",
            "2048",
        ),
        (
            &[Input::bytes("octets", DType::I32, shape, bytes)],
            "inputs[octets].name",
            "bytes",
        ),
        (
            &[good, Input::bytes("more", DType::I32, shape, bytes)],
            "inputs[more].name",
            "bytes",
        ),
        (&[], "inputs[bytes]", "is missing"),
    ];
    for (given, field, tells) in refused {
        for place in [crate::ONNXRUNTIME, crate::TRACT] {
            let (named, why) = invalid(client.infer("magika", given, &[], &place.required()));
            assert_eq!(named, *field, "{why}");
            assert!(why.contains(tells), "{field}: {why}");
            still_serves(&client, &case)?;
        }
    }
    Ok(())
}

#[test]
fn tensors_that_contradict_themselves_are_refused_by_field() -> Result<()> {
    let (client, case) = (client()?, Case::read("magika")?);
    let array = &case.inputs["bytes"];
    let short = Input::bytes("bytes", DType::I32, &array.shape, &array.bytes[..100]);
    let (field, _) = invalid(client.infer("magika", &[short], &[], &WorkOptions::default()));
    assert!(field.starts_with("inputs[0]"), "{field}");
    still_serves(&client, &case)?;

    let good = [Input::bytes(
        "bytes",
        DType::I32,
        &array.shape,
        &array.bytes,
    )];
    let target = client.buffer(1 << 20)?;
    let options = ONNXRUNTIME.required();
    let unknown = Output::buffer("no such output", &target, 0, 4096);
    let (field, _) = invalid(client.infer("magika", &good, &[unknown], &options));
    assert_eq!(field, "outputs[no such output].name");
    still_serves(&client, &case)?;
    let small = Output::buffer("target_label", &target, 0, 64).shape(&[3, 214]);
    let (field, _) = invalid(client.infer("magika", &good, &[small], &options));
    assert_eq!(field, "outputs[target_label].range");
    still_serves(&client, &case)
}

#[test]
fn a_push_that_does_not_fit_leaves_its_stream_in_order() -> Result<()> {
    let (client, case) = (client()?, Case::read("silero_vad")?);
    let first = case.inputs["input"].part(0);
    let mut stream = client.open_stream("silero-vad", &ONNXRUNTIME.required())?;
    let wrong = Input::bytes("input", DType::I32, &first.shape, &first.bytes);
    // State is the stream's own.
    let state = Input::bytes("state", DType::F32, &first.shape, &first.bytes);
    for (input, field) in [
        (wrong, "inputs[input].dtype"),
        (state, "inputs[state].name"),
    ] {
        let (named, why) = invalid(stream.push(&[input], &[]));
        assert_eq!(named, field, "{why}");
    }
    let given = || Input::bytes("input", DType::F32, &first.shape, &first.bytes);
    let memory = stream.buffer(4096)?;
    let unknown = Output::buffer("stateN", &memory, 0, 4096);
    let (named, why) = invalid(stream.push(&[given()], &[unknown]));
    assert_eq!(named, "outputs[stateN].name", "{why}");
    // Its shape is the model's to choose, so the client has to say what it expects.
    let open = Output::buffer("output", &memory, 0, 4);
    let (named, why) = invalid(stream.push(&[given()], &[open]));
    assert_eq!(named, "outputs[output].shape", "{why}");
    let small = Output::buffer("output", &memory, 0, 1).shape(&[1, 1]);
    let (named, why) = invalid(stream.push(&[given()], &[small]));
    assert_eq!(named, "outputs[output].range", "{why}");
    let result = stream.push(&[given()], &[])?;
    let wanted = [("output".to_owned(), case.outputs["output"].part(0))];
    crate::check_outputs(&result.outputs, &wanted.into(), 1e-5)?;
    Ok(())
}

#[test]
fn a_provider_that_is_not_there_is_refused_with_the_reasons() -> Result<()> {
    let (client, case) = (client()?, Case::read("magika")?);
    let options = WorkOptions {
        require_provider: Some("CUDAExecutionProvider".into()),
        ..WorkOptions::default()
    };
    match refusal(client.infer("magika", &inputs(&case.inputs), &[], &options)) {
        Status::NoBackend { rejected } => assert!(!rejected.is_empty()),
        other => panic!("{other:?}"),
    }
    still_serves(&client, &case)?;
    let options = WorkOptions {
        forbid_cpu: true,
        ..WorkOptions::default()
    };
    match refusal(client.infer("magika", &inputs(&case.inputs), &[], &options)) {
        Status::NoBackend { rejected } => assert!(!rejected.is_empty()),
        other => panic!("{other:?}"),
    }
    still_serves(&client, &case)
}
