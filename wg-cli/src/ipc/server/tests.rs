//! Clients that are slow, silent or hostile.

use super::*;
use std::io::{BufRead, BufReader};

struct Upper {
    closed: Sender<ConnectionId>,
}

impl Service for Upper {
    fn request(&self, _from: ConnectionId, line: &[u8], answer: Answer) {
        let text = String::from_utf8_lossy(line).to_uppercase();
        if text == "FAIL" {
            return;
        }
        assert_ne!(text, "PANIC");
        answer.send(&Reply::of(serde_json::json!({ "text": text })));
    }
    fn closed(&self, connection: ConnectionId) {
        self.closed.send(connection).unwrap();
    }
    fn standing(&self, _connection: ConnectionId) -> Standing {
        Standing::Caller
    }
}

fn serve(
    limits: Limits,
) -> (
    Server,
    std::path::PathBuf,
    tempfile::TempDir,
    Receiver<ConnectionId>,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (closed, ends) = crossbeam_channel::unbounded();
    let server = Server::start(
        UnixListener::bind(&path).unwrap(),
        limits,
        Arc::new(Upper { closed }),
    )
    .unwrap();
    (server, path, dir, ends)
}

fn ask(stream: &mut BufReader<UnixStream>) -> Reply {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).unwrap();
    Reply::parse(&line).unwrap()
}

#[test]
fn lines_of_one_connection_are_answered_in_order() {
    let (_server, path, _dir, _) = serve(Limits::standard());
    let mut stream = BufReader::new(UnixStream::connect(path).unwrap());
    let many: Vec<u8> = (0..500)
        .flat_map(|n| format!("line {n}\n\n").into_bytes())
        .collect();
    let mut writer = stream.get_ref().try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all(&many).unwrap());
    for n in 0..500 {
        let Reply::Ok(map) = ask(&mut stream) else {
            panic!("refused")
        };
        assert_eq!(map["text"], format!("LINE {n}"));
    }
    writing.join().unwrap();
}

#[test]
fn a_dropped_answer_is_an_error_and_not_a_hang() {
    let (_server, path, _dir, _) = serve(Limits::standard());
    let mut stream = BufReader::new(UnixStream::connect(path).unwrap());
    stream.get_mut().write_all(b"fail\nnext\n").unwrap();
    assert!(matches!(ask(&mut stream), Reply::Err { code: 70, .. }));
    assert!(matches!(ask(&mut stream), Reply::Ok(_)));
}

#[test]
fn a_request_that_panics_is_told_with_70_and_costs_no_thread() {
    let limits = Limits::standard();
    let (_server, path, _dir, _ends) = serve(limits.clone());
    for _ in 0..=limits.workers {
        let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
        stream.get_mut().write_all(b"panic\nnext\n").unwrap();
        assert!(matches!(ask(&mut stream), Reply::Err { code: 70, .. }));
        assert!(matches!(ask(&mut stream), Reply::Ok(_)));
    }
}

#[test]
fn a_line_without_end_is_refused_and_others_are_served_meanwhile() {
    let (_server, path, _dir, ends) = serve(Limits {
        line: 1000,
        ..Limits::standard()
    });
    let mut hostile = BufReader::new(UnixStream::connect(&path).unwrap());
    let silent = UnixStream::connect(&path).unwrap();
    let mut good = BufReader::new(UnixStream::connect(&path).unwrap());
    hostile.get_mut().write_all(&[b'x'; 900]).unwrap();
    good.get_mut().write_all(b"hello\n").unwrap();
    assert!(matches!(ask(&mut good), Reply::Ok(_)));
    hostile.get_mut().write_all(&[b'x'; 900]).unwrap();
    assert!(matches!(ask(&mut hostile), Reply::Err { code: 2, .. }));
    ends.recv().unwrap();
    drop(silent);
    ends.recv().unwrap();
}

#[test]
fn what_was_asked_is_done_although_the_client_is_gone() {
    struct Count(Sender<()>, Sender<ConnectionId>);
    impl Service for Count {
        fn request(&self, _from: ConnectionId, _line: &[u8], answer: Answer) {
            self.0.send(()).unwrap();
            answer.send(&Reply::of(serde_json::json!({})));
        }
        fn closed(&self, connection: ConnectionId) {
            self.1.send(connection).unwrap();
        }
        fn standing(&self, _connection: ConnectionId) -> Standing {
            Standing::Caller
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (done, dones) = crossbeam_channel::unbounded();
    let (closed, ends) = crossbeam_channel::unbounded();
    let listener = UnixListener::bind(&path).unwrap();
    let _server =
        Server::start(listener, Limits::standard(), Arc::new(Count(done, closed))).unwrap();
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"one\n").unwrap();
        // The answer to the first line stays unread, so that the close resets the connection.
        dones.recv().unwrap();
        stream.write_all(b"two\nthree\n").unwrap();
        drop(stream);
        dones.recv().unwrap();
        dones.recv().unwrap();
        ends.recv().unwrap();
    }
}

#[test]
fn the_oldest_idle_connection_makes_room() {
    let (_server, path, _dir, ends) = serve(Limits {
        connections: 2,
        ..Limits::standard()
    });
    let mut first = BufReader::new(UnixStream::connect(&path).unwrap());
    first.get_mut().write_all(b"a\n").unwrap();
    ask(&mut first);
    let mut second = BufReader::new(UnixStream::connect(&path).unwrap());
    second.get_mut().write_all(b"b\n").unwrap();
    ask(&mut second);
    let mut third = BufReader::new(UnixStream::connect(&path).unwrap());
    third.get_mut().write_all(b"c\n").unwrap();
    ask(&mut third);
    assert_eq!(ends.recv().unwrap(), ConnectionId(0));
    second.get_mut().write_all(b"still here\n").unwrap();
    assert!(matches!(ask(&mut second), Reply::Ok(_)));
}

/// Says of a connection that it is whatever it said of itself last.
#[derive(Default)]
struct Sayings(parking_lot::Mutex<BTreeMap<ConnectionId, Standing>>);

struct Ranks {
    said: Sayings,
    closed: Sender<ConnectionId>,
}

impl Service for Ranks {
    fn request(&self, from: ConnectionId, line: &[u8], answer: Answer) {
        let standing = match line {
            b"handler" => Standing::Handler,
            b"watcher" => Standing::Watcher,
            _ => Standing::Caller,
        };
        self.said.0.lock().insert(from, standing);
        answer.send(&Reply::of(serde_json::json!({})));
    }
    fn closed(&self, connection: ConnectionId) {
        self.closed.send(connection).unwrap();
    }
    fn standing(&self, connection: ConnectionId) -> Standing {
        let said = self.said.0.lock();
        said.get(&connection).copied().unwrap_or(Standing::Caller)
    }
}

#[test]
fn who_asks_goes_before_who_watches_and_a_handler_never_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (closed, ends) = crossbeam_channel::unbounded();
    let _server = Server::start(
        UnixListener::bind(&path).unwrap(),
        Limits {
            connections: 3,
            ..Limits::standard()
        },
        Arc::new(Ranks {
            said: Sayings::default(),
            closed,
        }),
    )
    .unwrap();
    let join = |word: &str| {
        let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
        writeln!(stream.get_mut(), "{word}").unwrap();
        ask(&mut stream);
        stream
    };
    let mut first_handler = join("handler");
    let _watcher = join("watcher");
    let _caller = join("caller");
    let mut second_handler = join("handler");
    assert_eq!(
        ends.recv().unwrap(),
        ConnectionId(2),
        "the caller, although it came last"
    );
    let mut third_handler = join("handler");
    assert_eq!(ends.recv().unwrap(), ConnectionId(1), "then who watches");
    // There is nobody left who could go, and a handler is let in all the same.
    let mut fourth_handler = join("handler");
    for handler in [
        &mut first_handler,
        &mut second_handler,
        &mut third_handler,
        &mut fourth_handler,
    ] {
        handler.get_mut().write_all(b"handler\n").unwrap();
        assert!(matches!(ask(handler), Reply::Ok(_)));
    }
    assert!(ends.is_empty());
}
