//! An issuer changes its keys while the server runs: over HTTP on the loopback, and in a file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);
/// No reads but those that a token asks for.
const ON_WISHES: Pace = Pace {
    period: Duration::from_secs(600),
    retry: Duration::from_secs(600),
    look: Duration::from_secs(3600),
    between_wishes: Duration::ZERO,
    timeout: Duration::from_secs(5),
};

/// An address that answers with a JWKS, as the test sets it.
#[derive(Clone)]
struct Page {
    answer: Arc<Mutex<(StatusCode, Vec<u8>)>>,
    reads: Arc<AtomicUsize>,
    url: String,
}

impl Page {
    async fn serve(issuers: &[&Issuer]) -> Page {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = Page {
            answer: Arc::default(),
            reads: Arc::default(),
            url: format!("http://{}/jwks", listener.local_addr().unwrap()),
        };
        page.set(issuers);
        let shown = page.clone();
        let jwks = get(async move || {
            shown.reads.fetch_add(1, Ordering::SeqCst);
            shown.answer.lock().clone()
        });
        let router = Router::new().route("/jwks", jwks);
        tokio::spawn(async move { axum::serve(listener, router).await });
        page
    }

    fn set(&self, issuers: &[&Issuer]) {
        *self.answer.lock() = (StatusCode::OK, jwks_of(issuers).into_bytes());
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

fn jwks_of(issuers: &[&Issuer]) -> String {
    let keys: Vec<Value> = issuers
        .iter()
        .map(|issuer| issuer.jwk_with(json!({"use": "sig", "alg": issuer.alg})))
        .collect();
    json!({ "keys": keys }).to_string()
}

async fn open(place: &str, pace: Pace) -> (Arc<Verifier>, CancellationToken) {
    let from_jwks = Settings {
        hs256_secret: "".into(),
        jwks: place.to_owned(),
        ..settings()
    };
    let verifier = Arc::new(Verifier::open_at_pace(from_jwks, pace).await.unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(verifier.clone().refresh_forever(stop.clone()));
    (verifier, stop)
}

async fn is_accepted(verifier: &Verifier, issuer: &Issuer) -> bool {
    verifier.verify(&issuer.token(), NOW_MS).await.is_ok()
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_new_key_is_known_with_its_first_token() {
    let (old, ed, new) = (
        Issuer::es256("old"),
        Issuer::eddsa("ed"),
        Issuer::rs256("new"),
    );
    let page = Page::serve(&[&old, &ed]).await;
    let (verifier, _stop) = open(&page.url, ON_WISHES).await;
    assert!(is_accepted(&verifier, &old).await);
    assert!(is_accepted(&verifier, &ed).await);
    assert_eq!(page.reads(), 1, "known keys need no read");
    page.set(&[&ed, &new]);
    assert!(is_accepted(&verifier, &new).await);
    assert!(is_accepted(&verifier, &ed).await);
    assert!(!is_accepted(&verifier, &old).await, "the old key is gone");
}

#[tokio::test]
async fn a_token_that_came_often_ends_with_its_time_and_with_its_key() {
    let (old, new) = (Issuer::eddsa("old"), Issuer::eddsa("new"));
    let page = Page::serve(&[&old]).await;
    let (verifier, _stop) = open(&page.url, ON_WISHES).await;
    let token = old.token();
    for _ in 0..3 {
        assert!(verifier.verify(&token, NOW_MS).await.is_ok());
    }
    let end_ms = NOW_MS + 3_600_000 + LEEWAY_MS;
    assert!(verifier.verify(&token, end_ms - 1).await.is_ok());
    let refused = verifier.verify(&token, end_ms).await.unwrap_err();
    assert_eq!(refused, Refused::Expired);
    page.set(&[&new]);
    assert!(is_accepted(&verifier, &new).await);
    assert!(verifier.verify(&token, NOW_MS).await.is_err());
}

#[tokio::test]
async fn unknown_names_cause_one_read_in_a_while() {
    let known = Issuer::eddsa("known");
    let page = Page::serve(&[&known]).await;
    let (verifier, _stop) = open(&page.url, Pace::default()).await;
    let tries = (0..50).map(async |number| {
        let stranger = Issuer::eddsa(&format!("stranger-{number}"));
        is_accepted(&verifier, &stranger).await
    });
    let verdicts = futures_util::future::join_all(tries).await;
    assert!(verdicts.iter().all(|is_accepted| !is_accepted));
    for number in 50..55 {
        let stranger = Issuer::eddsa(&format!("stranger-{number}"));
        assert!(!is_accepted(&verifier, &stranger).await);
    }
    assert_eq!(page.reads(), 2, "one at the start, one for all strangers");
    assert!(is_accepted(&verifier, &known).await);
}

#[tokio::test]
async fn keys_survive_every_kind_of_bad_answer() {
    let (known, stranger) = (Issuer::es256("known"), Issuer::es256("stranger"));
    let page = Page::serve(&[&known]).await;
    let (verifier, _stop) = open(&page.url, ON_WISHES).await;
    let mut huge = jwks_of(&[&stranger]);
    huge.push_str(&" ".repeat(jwks::JWKS_BYTES_MAX));
    let many: Vec<&Issuer> = std::iter::repeat_n(&stranger, 65).collect();
    let stranger_jwks = jwks_of(&[&stranger]);
    for (status, body) in [
        (500, stranger_jwks.as_str()),
        (302, stranger_jwks.as_str()),
        (204, ""),
        (200, ""),
        (200, "<html>"),
        (200, "{}"),
        (200, &stranger_jwks[..stranger_jwks.len() - 1]),
        (200, &huge),
        (200, &jwks_of(&many)),
    ] {
        let before = page.reads();
        *page.answer.lock() = (StatusCode::from_u16(status).unwrap(), body.into());
        assert!(!is_accepted(&verifier, &stranger).await, "{status}");
        assert_eq!(page.reads(), before + 1, "{status}");
        assert!(is_accepted(&verifier, &known).await, "{status}");
    }
}

#[tokio::test]
async fn an_issuer_may_start_later_than_the_server() {
    let issuer = Issuer::eddsa("ed");
    let page = Page::serve(&[&issuer]).await;
    *page.answer.lock() = (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    let hasty = Pace {
        retry: Duration::from_millis(10),
        look: Duration::from_secs(3600),
        between_wishes: Duration::from_secs(600),
        ..Pace::default()
    };
    let (verifier, _stop) = open(&page.url, hasty).await;
    assert!(!is_accepted(&verifier, &issuer).await);
    page.set(&[&issuer]);
    eventually("the keys come by themselves", async || {
        is_accepted(&verifier, &issuer).await
    })
    .await;
}

#[tokio::test]
async fn an_issuer_that_never_answers_delays_only_unknown_names() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let impatient = Pace {
        timeout: Duration::from_millis(50),
        ..ON_WISHES
    };
    let (verifier, _stop) = open(&url, impatient).await;
    let issuer = Issuer::eddsa("ed");
    let verdict = tokio::time::timeout(DEADLINE, is_accepted(&verifier, &issuer));
    assert!(!verdict.await.unwrap());
}

#[tokio::test]
async fn a_changed_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let (old, new) = (Issuer::es256("old"), Issuer::eddsa("new"));
    std::fs::write(&path, jwks_of(&[&old])).unwrap();
    let hasty = Pace {
        retry: Duration::from_millis(10),
        look: Duration::from_secs(3600),
        between_wishes: Duration::from_secs(600),
        ..Pace::default()
    };
    let (verifier, stop) = open(&path.display().to_string(), hasty).await;
    assert!(is_accepted(&verifier, &old).await);
    std::fs::write(&path, jwks_of(&[&new])).unwrap();
    eventually("the new key is known", async || {
        is_accepted(&verifier, &new).await
    })
    .await;
    assert!(!is_accepted(&verifier, &old).await);
    std::fs::remove_file(&path).unwrap();
    assert!(is_accepted(&verifier, &new).await, "the keys survive");
    stop.cancel();
}

#[tokio::test]
async fn keys_for_other_uses_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let (good, hs) = (Issuer::es256("good"), Issuer::hs256(SECRET.as_bytes()));
    let other = Issuer::es256("other");
    let keys = [
        other.jwk_with(json!({"use": "enc"})),
        other.jwk_with(json!({"alg": "ES384"})),
        other.jwk_with(json!({"crv": "P-384"})),
        other.jwk_with(json!({"y": "AAAA"})),
        other.jwk_with(json!({"kty": "future"})),
        hs.jwk_with(json!({"kid": "hs"})),
        json!({"kty": "RSA", "kid": "weak", "n": base64url(&[255; 128]), "e": "AQAB"}),
        json!(7),
        good.jwk_with(json!({})),
    ];
    std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    let (verifier, _stop) = open(&path.display().to_string(), ON_WISHES).await;
    assert!(is_accepted(&verifier, &good).await);
    assert!(!is_accepted(&verifier, &other).await);
    assert!(!is_accepted(&verifier, &hs).await);
    let named = r#"{"alg":"HS256","kid":"hs"}"#;
    let token = hs.token_of(named, &claims().to_string());
    assert!(verifier.verify(&token, NOW_MS).await.is_err());
}
