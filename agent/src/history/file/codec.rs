//! Compression, chosen by the file's name.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Plain,
    Gzip,
    /// Zstandard, by an encoder and a decoder without C, so that static builds need no C compiler.
    Zstd,
}

/// The bytes that both formats begin with (RFC 1952, 2.3.1; RFC 8878, 3.1.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

const BUFFER: usize = 1 << 16;

/// How much goes into one Zstandard frame. The encoder takes whole frames; larger ones hardly get smaller.
const FRAME: usize = 4 << 20;

impl Codec {
    /// By suffix: `.gz`, `.zst`, anything else is plain.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Decompresses what `source` gives. It goes by the first bytes, not by a name: standard input has none, and
    /// files get renamed.
    ///
    /// # Errors
    /// If nothing can be read from `source`.
    pub fn reader<'a>(source: impl Read + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
        let mut source = BufReader::with_capacity(BUFFER, source);
        let head = source.fill_buf()?;
        Ok(if head.starts_with(&GZIP) {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source)))
        } else if head.starts_with(&ZSTD) {
            Box::new(BufReader::with_capacity(BUFFER, Frames { source: Some(source), frame: None }))
        } else {
            Box::new(source)
        })
    }

    /// Makes a file into which what is written goes compressed. Call [`Sink::finish`] at the end.
    pub(super) fn create(self, path: &Path) -> io::Result<Sink<File>> {
        Ok(self.writer(File::create(path)?))
    }

    pub(super) fn writer<W: Write>(self, target: W) -> Sink<W> {
        let target = BufWriter::with_capacity(BUFFER, target);
        match self {
            Self::Plain => Sink::Plain(target),
            Self::Gzip => Sink::Gzip(GzEncoder::new(target, Compression::default())),
            Self::Zstd => Sink::Zstd { target, frame: Vec::with_capacity(FRAME) },
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink<W: Write> {
    Plain(BufWriter<W>),
    Gzip(GzEncoder<BufWriter<W>>),
    Zstd { target: BufWriter<W>, frame: Vec<u8> },
}

impl<W: Write> Sink<W> {
    /// Writes whatever is still held back, and gives the target back.
    pub(super) fn finish(self) -> io::Result<W> {
        let target = match self {
            Self::Plain(target) => target,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd { mut target, frame } => {
                if !frame.is_empty() {
                    target.write_all(&compressed(&frame))?;
                }
                target
            }
        };
        target.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// One frame. Neither end of it can fail: it goes from memory to memory.
fn compressed(frame: &[u8]) -> Vec<u8> {
    compress_to_vec(frame, CompressionLevel::Fastest)
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(target) => target.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd { target, frame } => {
                frame.extend_from_slice(bytes);
                if frame.len() >= FRAME {
                    target.write_all(&compressed(frame))?;
                    frame.clear();
                }
                Ok(bytes.len())
            }
        }
    }

    /// Does not end a frame: a flush a line would make frames of a line.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(target) | Self::Zstd { target, .. } => target.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }
}

/// The content of Zstandard frames, one after the other, each checked against its checksum.
struct Frames<R: BufRead> {
    /// `None` while a frame is read from it, and after a failure.
    source: Option<R>,
    frame: Option<StreamingDecoder<R, FrameDecoder>>,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer).map_err(|error| early_end(&error).unwrap_or(error))?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                if let Some(frame) = self.frame.take() {
                    let (source, decoder) = frame.into_parts();
                    check(&decoder)?;
                    self.source = Some(source);
                }
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            if source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let frame = StreamingDecoder::new(source).map_err(|error| {
                early_end(&error).unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidData, error))
            })?;
            self.frame = Some(frame);
        }
    }
}

/// The end of the data before the end of a frame, which the decoder hides among the causes of its error.
fn early_end(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let inner = error.get_ref().and_then(|inner| early_end(inner));
            if error.kind() == io::ErrorKind::UnexpectedEof || inner.is_some() {
                return Some(io::ErrorKind::UnexpectedEof.into());
            }
        }
        next = error.source();
    }
    None
}

fn check(decoder: &FrameDecoder) -> io::Result<()> {
    match (decoder.get_checksum_from_data(), decoder.get_calculated_checksum()) {
        (Some(given), Some(found)) if given != found => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a Zstandard frame's checksum is {found:08x}, not {given:08x}"),
        )),
        _ => Ok(()),
    }
}
