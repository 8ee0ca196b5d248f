//! An open stream on its way to its reader: as the body of a response, or over a socket that was taken back from hyper.
//!
//! Promises: both ways write the same frames from the same turns; the one that takes the stream first has it, and the
//! other finds nothing. hyper keeps about 8 KiB for every open response, so a connection that will carry nothing but
//! one stream to its end is better off without it. It never queues a frame.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::frame::Layout;
use crate::http::frames::Frames;
use crate::http::stream::{News, Stream, Turn};

/// A stream and the form of its frames.
pub struct Streaming {
    stream: Stream,
    layout: Layout,
}

/// Stands in the extensions of a response whose body is a stream. Taking the stream leaves the body empty.
#[derive(Clone)]
pub struct Takeable(Arc<Mutex<Option<Streaming>>>);

/// What one turn wrote, and whether it is the last.
pub struct Written {
    /// What the buffer held, the headroom that was asked for and the frames behind it; no headroom without a frame.
    pub bytes: BytesMut,
    pub is_last: bool,
}

impl Streaming {
    pub fn new(stream: Stream, layout: Layout) -> Streaming {
        Streaming { stream, layout }
    }

    /// The first frame, behind what the buffer holds and `headroom` free bytes; no other comes before it.
    pub fn greeting(&mut self, headroom: usize, buffer: BytesMut) -> BytesMut {
        let mut frames = Frames::within(buffer, self.layout, headroom);
        self.stream.greet(&mut frames);
        frames.into_bytes()
    }

    /// Whether the reader was told that what follows is new.
    pub fn is_caught_up(&self) -> bool {
        self.stream.is_caught_up()
    }

    /// Waits for what is next for the reader. It may be dropped while it waits.
    pub fn news(&mut self) -> impl Future<Output = News> + Send {
        self.stream.news()
    }

    /// Writes what `news` gave behind what the buffer holds and `headroom` free bytes.
    pub fn write(&mut self, news: News, headroom: usize, buffer: BytesMut) -> Written {
        let mut frames = Frames::within(buffer, self.layout, headroom);
        let turn = self.stream.write(news, &mut frames);
        Written {
            bytes: frames.into_bytes(),
            is_last: turn != Turn::Goes,
        }
    }
}

impl Takeable {
    pub fn new(streaming: Streaming) -> Takeable {
        Takeable(Arc::new(Mutex::new(Some(streaming))))
    }

    pub fn take(&self) -> Option<Streaming> {
        self.0.lock().take()
    }

    /// A body that writes the stream's turns, unless someone has taken the stream by then.
    pub fn into_body(self) -> Body {
        let frames = async_stream::stream! {
            let Some(mut streaming) = self.take() else {
                return;
            };
            yield Ok::<Bytes, Infallible>(streaming.greeting(0, BytesMut::new()).freeze());
            loop {
                let news = streaming.news().await;
                let written = streaming.write(news, 0, BytesMut::new());
                yield Ok(written.bytes.freeze());
                if written.is_last {
                    break;
                }
            }
        };
        Body::from_stream(frames)
    }
}
