//! Texts in, vectors out.

mod common;

use common::{Server, done, serve};
use mote_client::{
    ClientError, Embed, EmbedKind, EmbeddingEvent, ProtocolError, Stage, Status, WorkOptions,
};
use mote_wire::Memfd;
use mote_wire::types::{DType, Embeddings, Progress, Reply, Request, Tensor, TensorData};

fn asked(server: &mut Server) -> (u64, Embed) {
    match server.next() {
        (id, Request::Embed(embed)) => (id, *embed),
        (_, other) => panic!("{other:?}"),
    }
}

fn vectors(dimensions: u64, values: &[f32], passed: bool) -> Reply {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    let texts = values.len() as u64 / dimensions;
    let data = if passed {
        let memory = Memfd::holding("test", &bytes).expect("a memfd");
        TensorData::Passed {
            fd: memory.into_fd(),
            bytes: bytes.len() as u64,
        }
    } else {
        TensorData::Inline(bytes)
    };
    Reply::Embeddings(Embeddings {
        vectors: Tensor {
            name: "embeddings".into(),
            dtype: DType::F32,
            shape: vec![texts, dimensions],
            data,
        },
        tokens: vec![4; texts as usize],
        truncated: vec![1],
    })
}

fn request() -> Embed {
    Embed {
        kind: EmbedKind::Document,
        dimensions: Some(2),
        truncate: true,
        options: WorkOptions {
            credit: 1,
            ..WorkOptions::default()
        },
        ..Embed::new("m", vec!["one".into(), "two".into()])
    }
}

#[test]
fn vectors_come_back_text_by_text() {
    let (client, daemon) = serve(|server| {
        for passed in [false, true] {
            let (id, embed) = asked(server);
            assert!(embed == request());
            server.reply(id, Reply::Accepted { queue_position: 0 });
            server.reply(
                id,
                Reply::Progress(Progress {
                    stage: Stage::Embed,
                    done: 1,
                    total: Some(2),
                    remaining_ms: None,
                }),
            );
            server.reply(id, vectors(2, &[3.0, 4.0, -4.0, 3.0], passed));
            server.reply(id, done("m"));
            // A client that has read its credit grants it anew.
            assert!(matches!(
                server.next(),
                (_, Request::Credit { frames: 1, .. })
            ));
        }
    });
    for _ in 0..2 {
        let mut stages = Vec::new();
        let mut made = None;
        for event in client.embed(request()).expect("sent") {
            match event.expect("an event") {
                EmbeddingEvent::Progress(progress) => stages.push(progress.stage),
                EmbeddingEvent::Vectors(vectors) => made = Some(vectors),
                EmbeddingEvent::Accepted { queue_position } => assert_eq!(queue_position, 0),
                EmbeddingEvent::Done(done) => assert_eq!(done.receipt.model, "m"),
            }
        }
        assert_eq!(stages, [Stage::Embed]);
        let made = made.expect("vectors");
        assert_eq!((made.len(), made.dimensions()), (2, 2));
        assert_eq!(made.get(1), [-4.0, 3.0]);
        assert_eq!(made.iter().map(<[f32]>::len).sum::<usize>(), 4);
        assert_eq!(
            (&made.tokens[..], &made.truncated[..]),
            (&[4, 4][..], &[1][..])
        );
        assert!(made.cosine(0, 1).abs() < 1e-6 && (made.cosine(0, 0) - 1.0).abs() < 1e-6);
        assert!(made.get(2).is_empty() && made.cosine(0, usize::MAX) == 0.0);
        assert!(!format!("{made:?}").contains("4.0"));
        assert_eq!(made.into_values(), [3.0, 4.0, -4.0, 3.0]);
    }
    daemon.join().expect("the script held");
}

#[test]
fn an_end_without_vectors_is_no_result() {
    let (client, daemon) = serve(|server| {
        let (id, _) = asked(server);
        server.reply(id, done("m"));
        let (id, _) = asked(server);
        server.reply(
            id,
            Reply::Failed(Status::ContextOverflow {
                prompt_tokens: 9,
                context_tokens: 8,
                text: Some(1),
            }),
        );
    });
    let ended = client.embed(Embed::new("m", vec!["one".into()]));
    let ended = ended.expect("sent").wait().expect_err("no vectors");
    assert!(matches!(
        ended,
        ClientError::Protocol(ProtocolError::OtherAnswer { request: "embed" })
    ));
    let refused = client.embed(Embed::new("m", vec!["one".into()]));
    let refused = refused.expect("sent").wait().expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "texts[1] has 9 tokens, the model's context holds 8"
    );
    daemon.join().expect("the script held");
}
