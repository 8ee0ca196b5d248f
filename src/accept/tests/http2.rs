//! HTTP/2 with prior knowledge.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioExecutor;

use super::*;

type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// Shakes hands over `stream`; the connection lives as long as the returned sender.
async fn handshake(stream: TcpStream) -> Sender {
    let io = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Sender, path: &str) -> hyper::Response<Incoming> {
    let request = hyper::Request::get(format!("http://a{path}"))
        .body(Empty::new())
        .unwrap();
    timeout(DEADLINE, sender.send_request(request))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn http2_is_spoken_with_those_who_know_it() {
    let served = Served::start(settings()).await;
    let mut sender = handshake(served.connect().await).await;
    let answers = (0..100).map(|_| {
        let mut sender = sender.clone();
        async move {
            ask(&mut sender, "/")
                .await
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
        }
    });
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer, "hello");
    }
    assert_eq!(ask(&mut sender, "/missing").await.status(), 404);
    assert_eq!(served.counts.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_drain_lets_http2_streams_say_goodbye() {
    let served = Served::start(settings()).await;
    let mut sender = handshake(served.connect().await).await;
    let mut body = ask(&mut sender, "/polite").await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first");
    served.stop.cancel();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "bye");
    let cut = timeout(DEADLINE, served.task).await.unwrap().unwrap();
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn a_stream_whose_window_stays_closed_is_reset_and_the_others_go_on() {
    let served = Served::start(Settings {
        write_timeout: SHORT,
        ..settings()
    })
    .await;
    let mut sender = handshake(served.connect().await).await;
    // A client that does not read gives no window beyond its first.
    let mut unread = ask(&mut sender, "/endless").await.into_body();
    let mut idle = ask(&mut sender, "/polite").await.into_body();
    assert!(idle.frame().await.is_some_and(|frame| frame.is_ok()));
    served
        .wait_until("reset", |counts| {
            counts.streams_stalled.load(Ordering::Relaxed) == 1
        })
        .await;
    let end = timeout(DEADLINE, async {
        loop {
            match unread.frame().await {
                Some(Ok(_)) => {}
                end => return end,
            }
        }
    });
    assert!(matches!(end.await.unwrap(), Some(Err(_))));
    assert_eq!(ask(&mut sender, "/").await.status(), 200);
    served.stop.cancel();
    assert_eq!(idle.collect().await.unwrap().to_bytes(), "bye");
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_cut_off() {
    let served = Served::start(Settings {
        head_timeout: SHORT,
        ..settings()
    })
    .await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings_frame = "\0\0\0\u{4}\0\0\0\0\0";
    for start in [
        "P".to_owned(),
        "PRI".to_owned(),
        preface.to_owned(),
        format!("{preface}{settings_frame}"),
    ] {
        let began = Instant::now();
        served.exchange(start.as_bytes()).await;
        assert!(began.elapsed() >= SHORT, "{start:?}");
    }
    served
        .wait_until("closed", |counts| counts.open.load(Ordering::Relaxed) == 0)
        .await;
    assert_eq!(served.counts.silent.load(Ordering::Relaxed), 1);
    assert_eq!(served.counts.head_late.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_preface_in_pieces_is_known() {
    let served = Served::start(settings()).await;
    let mut stream = served.connect().await;
    for piece in [
        "P",
        "R",
        "I * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0\0\0\u{4}\0\0\0\0\0",
    ] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    // The server's first frame: length, then type 4, SETTINGS.
    let mut head = [0; 9];
    timeout(DEADLINE, stream.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(head[3], 4);
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let served = Served::start(settings()).await;
    let mut stream = served.connect().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for number in 0..20_000u32 {
        let id = (2 * number + 1).to_be_bytes();
        // HEADERS with END_STREAM and END_HEADERS: GET, http, /, authority "a"; then RST_STREAM with CANCEL.
        bytes.extend_from_slice(&[0, 0, 6, 1, 5]);
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&[0x82, 0x86, 0x84, 0x41, 0x01, b'a']);
        bytes.extend_from_slice(&[0, 0, 4, 3, 0]);
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&[0, 0, 0, 8]);
    }
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(
        writer.write_all(&bytes),
        timeout(DEADLINE, reader.read_to_end(&mut answer))
    );
    read.expect("the server closes the connection").ok();
    let mut again = handshake(served.connect().await).await;
    assert_eq!(ask(&mut again, "/").await.status(), 200);
}
