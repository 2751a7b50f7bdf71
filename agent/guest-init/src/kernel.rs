//! Which kernel runs, by the name that the linker gave it.

/// The kernel's ELF notes, as they lie in its image.
const NOTES: &str = "/sys/kernel/notes";
const GNU: &[u8] = b"GNU\0";
const BUILD_ID: u32 = 3;
const HEADER: usize = 12;

/// In hexadecimal; none where the kernel has none, or does not show it.
pub fn build_id() -> Option<String> {
    let id = find(&std::fs::read(NOTES).ok()?)?.to_owned();
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Walks through notes: three numbers, name and content, each padded to four bytes.
fn find(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let header = notes.get(..HEADER)?;
        let number = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let (name_bytes, id_bytes) = (number(0)? as usize, number(4)? as usize);
        let name = notes.get(HEADER..HEADER.checked_add(name_bytes)?)?;
        let begin = HEADER.checked_add(name_bytes)?.checked_next_multiple_of(4)?;
        let end = begin.checked_add(id_bytes)?;
        if name == GNU && number(8)? == BUILD_ID {
            return notes.get(begin..end).filter(|id| !id.is_empty());
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let numbers = [name.len() as u32, content.len() as u32, kind];
        let mut note: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        for part in [name, content] {
            note.extend_from_slice(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let others =
            [note(b"Linux\0", 257, &[1; 5]), note(b"Xen\0", 3, &[2; 8]), note(GNU, 5, &[9; 4])].concat();
        assert_eq!(find(&[&others[..], &note(GNU, BUILD_ID, &[7; 20])].concat()), Some(&[7; 20][..]));
        for without in [&others[..], &[], &[0; 11], &[0xff; 40], &note(GNU, BUILD_ID, &[7; 20])[..30]] {
            assert_eq!(find(without), None);
        }
    }
}
