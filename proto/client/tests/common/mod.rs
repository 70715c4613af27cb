//! A scripted daemon in the test's own process.
#![allow(dead_code, reason = "every test binary uses its own part")]

use mote_client::{Client, Done, Generate, Prompt, Receipt, Token, WorkOptions};
use mote_wire::limits::Limits;
use mote_wire::types::{Reply, Request, Welcome};
use mote_wire::{Connection, Link, frame_to_request, reply_to_frame};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

/// The daemon's end of a connection.
pub struct Server {
    pub connection: Connection,
}

/// A client whose daemon runs `script` after the greeting.
pub fn serve(script: impl FnOnce(&mut Server) + Send + 'static) -> (Client, JoinHandle<()>) {
    let (here, there) = UnixStream::pair().expect("a pair");
    let daemon = thread::spawn(move || {
        let mut server = Server::new(there);
        let (id, Request::Hello(hello)) = server.next() else {
            panic!("no greeting");
        };
        assert_eq!(hello.client_name, "test");
        server.reply(
            id,
            Reply::Welcome(Welcome {
                version: 1,
                server_version: "9.9.9".into(),
                limits: Limits::CURRENT,
            }),
        );
        script(&mut server);
    });
    let client = Client::from_socket(here, "test").expect("a greeting");
    (client, daemon)
}

impl Server {
    pub fn new(socket: UnixStream) -> Self {
        Self {
            connection: Connection::new(socket, Link::Client),
        }
    }

    /// The next request; `None` when the client has gone.
    pub fn next_or_end(&mut self) -> Option<(u64, Request)> {
        let frame = self.connection.recv().expect("a good frame")?;
        Some(frame_to_request(frame).expect("a request that holds"))
    }

    pub fn next(&mut self) -> (u64, Request) {
        self.next_or_end().expect("a request")
    }

    pub fn reply(&mut self, id: u64, reply: Reply) {
        let frame = reply_to_frame(id, reply).expect("it fits");
        self.connection.send(frame).expect("the client is there");
    }

    /// Takes in a buffer: its id and its memory.
    pub fn register(&mut self) -> (u64, File) {
        let (id, Request::RegisterBuffer(buffer)) = self.next() else {
            panic!("no buffer");
        };
        self.reply(id, Reply::Ok);
        (buffer.buffer, File::from(buffer.fd))
    }

    pub fn expect_end(&mut self) {
        assert!(self.next_or_end().is_none(), "a request instead of the end");
    }
}

pub fn token(index: u32) -> Reply {
    Reply::Token(Token::new(index, 100 + index, format!("t{index} ")))
}

/// The last answer of work on `model`.
pub fn done(model: &str) -> Reply {
    Reply::Done(Box::new(Done {
        receipt: Receipt {
            model: model.into(),
            ..Receipt::default()
        },
        ..Done::default()
    }))
}

pub fn prompt(credit: u32) -> Generate {
    Generate {
        options: WorkOptions {
            credit,
            ..WorkOptions::default()
        },
        ..Generate::new("chat", Prompt::Plain("hello".into()))
    }
}

pub fn read(file: &File, offset: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    file.read_exact_at(&mut content, offset).expect("readable");
    content
}

/// Descriptors this process has open.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}
