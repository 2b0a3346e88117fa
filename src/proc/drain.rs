//! Reads what programs print: masked, logged, handed on, and the end of it kept.

use super::{OnBytes, OnLine, Stream};
use crate::secret::Masker;
use fs_err as fs;
use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long output is awaited after the program itself ended: a grandchild may hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// Where each line goes.
pub(super) struct Sink {
    pub(super) log: Option<fs::File>,
    pub(super) masker: Masker,
    pub(super) on_line: Option<OnLine>,
}

/// A stream that is being read.
#[derive(Debug)]
pub(super) struct Drain {
    kept: Arc<Mutex<Kept>>,
    thread: JoinHandle<()>,
    /// Whether every byte counts, however long whoever takes them is busy after the program ended.
    is_patient: bool,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Drain {
    /// What was kept, as soon as the stream ended or the bound is over.
    pub(super) fn finish(self) -> String {
        let until = Instant::now() + DRAIN;
        while !self.thread.is_finished() && (self.is_patient || Instant::now() < until) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(kept.bytes);
        for line in std::mem::take(&mut kept.lines) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// Reads a stream to its end in a thread of its own, and keeps its last `limit` bytes.
pub(super) fn drain(stream: Stream, reader: PipeReader, limit: usize, sink: Arc<Mutex<Sink>>) -> Drain {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let keep = Arc::clone(&kept);
    let thread = std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut raw = Vec::new();
        loop {
            raw.clear();
            match reader.read_until(b'\n', &mut raw) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&raw);
            let line = take_line(&sink, stream, line.trim_end_matches(['\n', '\r']));
            let mut kept = keep.lock().unwrap_or_else(PoisonError::into_inner);
            kept.bytes += line.len() + 1;
            kept.lines.push_back(line);
            while kept.bytes > limit {
                let Some(oldest) = kept.lines.pop_front() else { break };
                kept.bytes -= oldest.len() + 1;
            }
        }
    });
    Drain { kept, thread, is_patient: false }
}

/// Hands a stream on in a thread of its own and keeps nothing.
pub(super) fn drain_bytes(mut reader: PipeReader, call: OnBytes) -> Drain {
    let thread = std::thread::spawn(move || {
        let mut buffer = vec![0_u8; 64 << 10];
        while let Ok(read @ 1..) = reader.read(&mut buffer) {
            call(buffer.get(..read).unwrap_or_default());
        }
    });
    Drain { kept: Arc::default(), thread, is_patient: true }
}

/// Masks a line, logs it, and calls back; returns the masked line.
fn take_line(sink: &Mutex<Sink>, stream: Stream, line: &str) -> String {
    let (line, call) = {
        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
        let line = sink.masker.mask(line);
        if let Some(log) = &mut sink.log {
            // A log that cannot be written must not stop the program it describes.
            drop(writeln!(log, "{line}"));
        }
        (line, sink.on_line.clone())
    };
    if let Some(call) = call {
        call(stream, &line);
    }
    line
}

/// Opens a log for appending, mode 0600.
pub(super) fn open_log(path: &Path) -> io::Result<fs::File> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
