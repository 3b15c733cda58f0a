//! Standard input, read by a thread: a read of a terminal cannot be cancelled, and the runtime has no other thread.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes read at a time.
const CHUNK: usize = 32 * 1024;
/// Pieces that may wait.
const QUEUE: usize = 8;

/// Starts reading; the channel closes at the end of the input.
pub(crate) fn read() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let spawned = std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let stdin = std::io::stdin();
            let mut buffer = vec![0u8; CHUNK];
            loop {
                match rustix::io::read(&stdin, &mut buffer[..]) {
                    Ok(0) => return,
                    Ok(length) => {
                        let piece =
                            Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                        if sender.blocking_send(piece).is_err() {
                            return;
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => {
                        std::thread::sleep(std::time::Duration::from_millis(5))
                    }
                    Err(_) => return,
                }
            }
        });
    // Without a thread the channel is closed at once, which reads as an empty input.
    drop(spawned);
    receiver
}
