//! Sends every message back: what Autobahn's fuzzing client needs to judge a WebSocket server. Only for `autobahn.sh`.
//!
//! The handshake, the options of yawc, the assembly of fragments, the judgement of what is wrong and the closing are the
//! server's own (`http::handshake`, `http::link`); only the size of a message differs, since Autobahn sends 16 MiB.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::any;
use futures_util::FutureExt;
use tidings::accept;
use tidings::http::error::Problem;
use tidings::http::handshake;
use tidings::http::link::{self, Bounds, Deflate, DeflatePools, End, Link, Message};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const MESSAGE_BYTES_MAX: usize = 32 << 20;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let router = Router::new()
        .route("/", any(echo))
        .with_state(DeflatePools::default());
    let service = Arc::new(move |request| {
        let answered = router.clone().oneshot(request);
        answered.map(|Ok(response)| response).boxed()
    });
    let (settings, counts) = (accept::Settings::default(), Arc::default());
    accept::serve(
        listener,
        service,
        settings,
        counts,
        CancellationToken::new(),
    )
    .await;
    Ok(())
}

async fn echo(State(pools): State<DeflatePools>, mut parts: Parts) -> Result<Response, Problem> {
    handshake::check(&parts)?;
    let window_bits = handshake::keep_good_offer(&mut parts.headers);
    let bounds = Bounds {
        message_bytes_max: MESSAGE_BYTES_MAX,
        write_time: Duration::from_secs(30),
        deflate: Some(Deflate { pools, window_bits }),
    };
    let upgraded = link::upgrade(&mut parts, bounds).await;
    let (response, link) = upgraded.ok_or_else(handshake::not_a_socket)?;
    tokio::spawn(async move {
        if let Ok(mut link) = link.await {
            let end = send_back(&mut link).await;
            link.close(end).await;
        }
    });
    Ok(response)
}

async fn send_back(link: &mut Link) -> End {
    loop {
        let done = match link.next().await {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => link.send(message).await,
            Ok(Message::Ping | Message::Pong) => Ok(()),
            Err(end) => return end,
        };
        if let Err(end) = done {
            return end;
        }
    }
}
