//! As much of Redis' protocol as ccache and a Redis server speak with us, bounded.

use bytes::Bytes;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Of what is cached, one compilation's.
pub(super) const VALUE_BYTES_MAX: usize = 32 << 20;
/// What one part of a command, or one answer, may take on this machine.
pub(super) const PART_MAX: Duration = Duration::from_secs(5);
const LINE_BYTES_MAX: u64 = 1 << 10;
/// `SET key value` has three.
const PARTS_MAX: usize = 8;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status(String),
    Error(String),
    Number(i64),
    Value(Bytes),
    Nothing,
}

/// What was said, and the room in memory that it takes.
pub(super) struct Command<'a> {
    pub parts: Vec<Bytes>,
    _room: Vec<SemaphorePermit<'a>>,
}

/// Reads a command; `None` where the other end has gone. What it says comes only once `room`, a number
/// of bytes that all readers share, has as much; then it has to come within `PART_MAX`. A part of more than
/// `kept_max` bytes is read and not kept: it is empty.
pub(super) async fn read_command<'a>(
    from: &mut (impl AsyncBufRead + Unpin),
    room: &'a Semaphore,
    kept_max: usize,
) -> io::Result<Option<Command<'a>>> {
    let Some(line) = read_line(from).await? else { return Ok(None) };
    let count = number(line.strip_prefix('*').ok_or_else(|| bad("a command is an array"))?)?;
    if count == 0 || count > PARTS_MAX {
        return Err(bad("a command has one to eight parts"));
    }
    let (mut parts, mut taken) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let line = bounded(read_line(from)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = number(line.strip_prefix('$').ok_or_else(|| bad("a part is a string"))?)?;
        let bytes = u32::try_from(length).ok().filter(|_| length <= VALUE_BYTES_MAX);
        let bytes = bytes.ok_or_else(|| bad("a value that is too large"))?;
        if length > kept_max {
            bounded(skip_bulk(from, length)).await?;
            parts.push(Bytes::new());
            continue;
        }
        // Not for ever: those that wait for each other would keep what they have.
        let more = async { room.acquire_many(bytes).await.map_err(io::Error::other) };
        taken.push(bounded(more).await?);
        parts.push(bounded(read_bulk(from, length)).await?);
    }
    Ok(Some(Command { parts, _room: taken }))
}

pub(super) async fn read_reply(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Reply> {
    let line = read_line(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("an empty answer"))?;
    match kind {
        "+" => Ok(Reply::Status(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => rest.parse().map(Reply::Number).map_err(|_| bad("no number")),
        "$" if rest == "-1" => Ok(Reply::Nothing),
        "$" => Ok(Reply::Value(read_bulk(from, number(rest)?).await?)),
        _ => Err(bad("an answer of a kind that was not asked for")),
    }
}

pub(super) async fn write_command(to: &mut (impl AsyncWrite + Unpin), parts: &[&[u8]]) -> io::Result<()> {
    to.write_all(format!("*{}\r\n", parts.len()).as_bytes()).await?;
    for part in parts {
        write_bulk(to, part).await?;
    }
    to.flush().await
}

pub(super) async fn write_reply(to: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    match reply {
        Reply::Status(text) => to.write_all(format!("+{text}\r\n").as_bytes()).await?,
        Reply::Error(text) => to.write_all(format!("-ERR {text}\r\n").as_bytes()).await?,
        Reply::Number(number) => to.write_all(format!(":{number}\r\n").as_bytes()).await?,
        Reply::Value(value) => write_bulk(to, value).await?,
        Reply::Nothing => to.write_all(b"$-1\r\n").await?,
    }
    to.flush().await
}

async fn write_bulk(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(format!("${}\r\n", bytes.len()).as_bytes()).await?;
    to.write_all(bytes).await?;
    to.write_all(b"\r\n").await
}

async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    let text = line.strip_suffix(b"\r\n").ok_or_else(|| bad("a line without an end"))?;
    String::from_utf8(text.to_vec()).map(Some).map_err(|_| bad("a line that is no text"))
}

async fn read_bulk(from: &mut (impl AsyncBufRead + Unpin), length: usize) -> io::Result<Bytes> {
    if length > VALUE_BYTES_MAX {
        return Err(bad("a value that is too large"));
    }
    // Room is made as bytes come: a length that is only said takes none.
    let mut bytes = Vec::new();
    from.take(length as u64 + 2).read_to_end(&mut bytes).await?;
    if bytes.len() != length + 2 || !bytes.ends_with(b"\r\n") {
        return Err(bad("a value without an end"));
    }
    bytes.truncate(length);
    Ok(bytes.into())
}

/// What is not wanted takes no memory.
async fn skip_bulk(from: &mut (impl AsyncBufRead + Unpin), length: usize) -> io::Result<()> {
    let skipped = tokio::io::copy_buf(&mut from.take(length as u64), &mut tokio::io::sink()).await?;
    match skipped == length as u64 && read_line(from).await?.is_some_and(|rest| rest.is_empty()) {
        true => Ok(()),
        false => Err(bad("a value without an end")),
    }
}

/// Whoever stops in the middle of a word keeps the room that others wait for.
pub(super) async fn bounded<T>(spoken: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PART_MAX, spoken).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| bad("no number"))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_and_answers_come_through() {
        let mut wire = Vec::new();
        write_command(&mut wire, &[b"SET", b"k", b"a\r\nb"]).await.unwrap();
        let room = Semaphore::new(1 << 10);
        let command = read_command(&mut &wire[..], &room, VALUE_BYTES_MAX).await.unwrap().unwrap();
        assert_eq!(room.available_permits(), (1 << 10) - 8);
        assert_eq!(command.parts, [&b"SET"[..], b"k", b"a\r\nb"]);
        for reply in [
            Reply::Status("OK".into()),
            Reply::Number(1),
            Reply::Value(Bytes::from_static(b"\r\n")),
            Reply::Nothing,
        ] {
            let mut wire = Vec::new();
            write_reply(&mut wire, &reply).await.unwrap();
            assert_eq!(read_reply(&mut &wire[..]).await.unwrap(), reply);
        }
        assert!(read_command(&mut &b""[..], &room, VALUE_BYTES_MAX).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_and_takes_no_memory() {
        for wire in [
            "GET k\r\n".to_owned(),
            "*99\r\n".into(),
            "*0\r\n".into(),
            "*1\r\n$99999999999\r\n".into(),
            "*1\r\n$30000000\r\nshort".into(),
            "*1\r\n$3\r\nGETxx".into(),
            format!("*{}", "1".repeat(5000)),
        ] {
            let room = Semaphore::new(VALUE_BYTES_MAX);
            assert!(read_command(&mut wire.as_bytes(), &room, VALUE_BYTES_MAX).await.is_err(), "{wire:.20}");
            assert_eq!(room.available_permits(), VALUE_BYTES_MAX);
        }
    }

    #[tokio::test]
    async fn many_that_say_much_at_once_wait_for_room() {
        let room = Semaphore::new(10);
        let first = read_command(&mut &b"*1\r\n$8\r\n12345678\r\n"[..], &room, VALUE_BYTES_MAX)
            .await
            .unwrap()
            .unwrap();
        let soon = std::time::Duration::from_millis(50);
        let mut second = &b"*1\r\n$3\r\n123\r\n"[..];
        assert!(tokio::time::timeout(soon, read_command(&mut second, &room, VALUE_BYTES_MAX)).await.is_err());
        drop(first);
        let mut second = &b"*1\r\n$3\r\n123\r\n"[..];
        assert!(tokio::time::timeout(soon, read_command(&mut second, &room, VALUE_BYTES_MAX)).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_not_kept_takes_no_room() {
        let mut wire = Vec::new();
        write_command(&mut wire, &[b"SET", b"key", &[b'x'; 5000]]).await.unwrap();
        write_command(&mut wire, &[b"PING"]).await.unwrap();
        let (room, mut from) = (Semaphore::new(10), &wire[..]);
        let command = read_command(&mut from, &room, 100).await.unwrap().unwrap();
        assert_eq!(command.parts, [&b"SET"[..], b"key", b""]);
        drop(command);
        assert_eq!(read_command(&mut from, &room, 100).await.unwrap().unwrap().parts, ["PING"]);
        let mut torn = &b"*1\r\n$500\r\nshort\r\n"[..];
        assert!(read_command(&mut torn, &room, 100).await.is_err());
    }

    #[tokio::test]
    async fn whoever_stops_in_the_middle_gives_its_room_back() {
        let (room, (near, far)) = (Semaphore::new(10), tokio::io::duplex(100));
        let (mut near, mut far) = (tokio::io::BufReader::new(near), far);
        far.write_all(b"*1\r\n$8\r\n1234").await.unwrap();
        let begun = std::time::Instant::now();
        let error = read_command(&mut near, &room, 100).await.err().expect("nothing more comes");
        assert_eq!((error.kind(), room.available_permits()), (io::ErrorKind::TimedOut, 10));
        assert!(begun.elapsed() < 2 * PART_MAX);
    }
}
