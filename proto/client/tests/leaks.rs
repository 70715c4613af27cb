//! A client leaves no descriptor and no mapping behind. Alone in its process: both are counted.

mod common;

use common::{done, open_fds, serve};
use mote_client::{DType, Input, WorkOptions};
use mote_wire::Memfd;
use mote_wire::types::{Reply, Request, Tensor, TensorData};

fn mapped_buffers() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    maps.lines()
        .filter(|line| line.contains("mote-buffer"))
        .count()
}

#[test]
fn nothing_stays_behind() {
    let before = open_fds();
    for _ in 0..3 {
        let (client, daemon) = serve(|server| {
            let mut buffers = Vec::new();
            while let Some((id, request)) = server.next_or_end() {
                match request {
                    Request::RegisterBuffer(buffer) => {
                        buffers.push(buffer);
                        server.reply(id, Reply::Ok);
                    }
                    // Nobody waits for the answer.
                    Request::UnregisterBuffer { buffer } => {
                        buffers.retain(|one| one.buffer != buffer);
                    }
                    Request::Infer(_) => {
                        let fd = Memfd::holding("test", &[1; 9]).expect("a memfd").into_fd();
                        let tensor = Tensor {
                            name: "y".into(),
                            dtype: DType::U8,
                            shape: vec![9],
                            data: TensorData::Passed { fd, bytes: 9 },
                        };
                        server.reply(id, Reply::Tensor(tensor));
                        server.reply(id, done("m"));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(buffers.len(), 1, "only the pooled buffer is left");
        });
        let buffer = client.buffer(1 << 20).expect("a buffer");
        let large = vec![0; 100_000];
        for _ in 0..10 {
            let input = Input::bytes("x", DType::U8, &[100_000], &large);
            client
                .infer("m", &[input], &[], &WorkOptions::default())
                .expect("outputs");
        }
        assert_eq!(mapped_buffers(), 2);
        drop(buffer);
        assert_eq!(mapped_buffers(), 1);
        drop(client);
        daemon.join().expect("the script held");
        assert_eq!((open_fds(), mapped_buffers()), (before, 0));
    }
}
