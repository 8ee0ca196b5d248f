//! The buffer in which a thread writes the turns of its streams, one after the other.
//!
//! Promises: a turn that the socket takes at once allocates nothing; a stream that waits holds no buffer. A thread keeps
//! one, of at most `KEPT_BYTES_MAX`.

use std::cell::Cell;

use bytes::BytesMut;

/// What a turn of a few events takes; a longer one is a catch-up, and rare.
const KEPT_BYTES_MAX: usize = 4 << 10;

thread_local! {
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// The thread's buffer, empty; one without capacity where it is in use.
pub fn take() -> BytesMut {
    SPARE.take()
}

/// Keeps the buffer for the next turn.
pub fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    // What was cut from its front is part of it again, if anything was.
    let _is_longer = buffer.try_reclaim(buffer.capacity() + 1);
    if buffer.capacity() <= KEPT_BYTES_MAX {
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_whole() {
        let mut buffer = BytesMut::with_capacity(600);
        buffer.resize(500, 1);
        buffer.advance(17);
        give_back(buffer);
        let buffer = take();
        assert!(buffer.is_empty() && buffer.capacity() >= 600);
        assert_eq!(take().capacity(), 0, "it is in use");
    }

    #[test]
    fn a_long_one_is_not_kept() {
        give_back(BytesMut::with_capacity(KEPT_BYTES_MAX + 1));
        assert_eq!(take().capacity(), 0);
    }
}
