//! Peers that take their time.

use super::*;

/// Sends `start`, then a byte now and then until the server hangs up; gives what came back and how long it took.
async fn drip(served: &Served, start: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let stream = served.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(start).await.unwrap();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut bytes = Vec::new();
    let read = timeout(DEADLINE, reader.read_to_end(&mut bytes)).await;
    read.expect("the server closes the connection").ok();
    dripping.abort();
    (
        String::from_utf8_lossy(&bytes).into_owned(),
        began.elapsed(),
    )
}

fn hasty() -> Settings {
    Settings {
        head_timeout: SHORT,
        body_timeout: SHORT,
        write_timeout: SHORT,
        ..settings()
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let served = Served::start(hasty()).await;
    let began = Instant::now();
    assert_eq!(served.exchange(b"").await, "");
    assert!(began.elapsed() >= SHORT);
    served
        .wait_until("counted", |counts| {
            counts.silent.load(Ordering::Relaxed) == 1
        })
        .await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let served = Served::start(hasty()).await;
    for start in ["G", "GET / HTTP/1.1\r\nhost: a\r\nx: "] {
        let (answer, took) = drip(&served, start.as_bytes()).await;
        assert_eq!(answer, "");
        assert!(took >= SHORT && took < DEADLINE / 2, "{took:?}");
    }
    served
        .wait_until("counted", |counts| {
            counts.head_late.load(Ordering::Relaxed) == 2
        })
        .await;
}

#[tokio::test]
async fn an_idle_connection_is_not_kept_for_ever() {
    let served = Served::start(hasty()).await;
    let answer = served.exchange(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.ends_with("hello"));
    served
        .wait_until("closed", |counts| counts.open.load(Ordering::Relaxed) == 0)
        .await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off() {
    let served = Served::start(hasty()).await;
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    let answer = served.exchange(format!("{head}abc").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let (answer, took) = drip(&served, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(took >= SHORT && took < DEADLINE / 2, "{took:?}");
    assert_eq!(served.counts.body_late.load(Ordering::Relaxed), 2);
    // A handler that does not care for the body answers, and the connection ends.
    let ignored = head.replace("/echo", "/");
    assert!(
        served
            .exchange(format!("{ignored}abc").as_bytes())
            .await
            .contains("hello")
    );
}

#[tokio::test]
async fn a_body_in_pieces_that_come_fast_enough_is_taken() {
    let served = Served::start(hasty()).await;
    let mut stream = served.connect().await;
    let head =
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        stream.write_all(&[b'x'; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(began.elapsed() > SHORT);
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > 20_000);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_closed() {
    let served = Served::start(hasty()).await;
    let mut stream = served.connect().await;
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    served
        .wait_until("stalled", |counts| {
            counts.write_stalled.load(Ordering::Relaxed) == 1
        })
        .await;
    served
        .wait_until("closed", |counts| counts.open.load(Ordering::Relaxed) == 0)
        .await;
}

#[tokio::test]
async fn a_slow_reader_is_kept() {
    let served = Served::start(hasty()).await;
    let mut stream = served.connect().await;
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let began = Instant::now();
    let mut bytes = vec![0; 1 << 20];
    while began.elapsed() < SHORT * 4 {
        tokio::time::sleep(SHORT / 4).await;
        let mut taken = 0;
        while taken < 4 << 20 {
            let read = timeout(DEADLINE, stream.read(&mut bytes))
                .await
                .unwrap()
                .unwrap();
            assert_ne!(read, 0, "closed");
            taken += read;
        }
    }
    assert_eq!(served.counts.write_stalled.load(Ordering::Relaxed), 0);
}
