//! The `Code:` line of an x86-64 report as instructions, laid out as objdump and syzbot do.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};

/// Bytes of a `Code:` line that are looked at; kernels print 64.
const CODE_BYTES_MAX: usize = 256;
/// No instruction is longer.
const INSTRUCTION_BYTES_MAX: usize = 15;

/// Bytes around an instruction pointer.
#[derive(Debug, PartialEq)]
struct Code {
    bytes: Vec<u8>,
    /// Index of the byte that the instruction pointer stood at.
    trap: usize,
}

/// Instructions around the one that trapped, for the first `Code:` line of the kernel's own; where
/// a report has none of those, for the first of a program's. `None` if there is no such line.
///
/// It is not known where the first instruction begins: the guess is the first byte from which whole
/// instructions lead to the trapping one.
pub fn disassembly(report: &str) -> Option<String> {
    let code = find(report)?;
    let skipped = begin(&code);
    let mut text = String::from("Code disassembly (best guess)");
    if skipped > 0 {
        let _ = write!(text, ", {skipped} bytes skipped");
    }
    text.push_str(":\n");
    let mut formatter = formatter();
    for (at, instruction) in instructions(&code.bytes[skipped..]) {
        line(&mut text, &mut formatter, &code, skipped + at, &instruction);
    }
    Some(text)
}

fn line(text: &mut String, formatter: &mut GasFormatter, code: &Code, at: usize, instruction: &Instruction) {
    let mark = if at == code.trap { '*' } else { ' ' };
    let end = (at + instruction.len().max(1)).min(code.bytes.len());
    let bytes: Vec<String> = code.bytes[at..end].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut words = String::new();
    if instruction.is_invalid() {
        words.push_str("(bad)");
    } else {
        formatter.format(instruction, &mut words);
    }
    let _ =
        write!(text, "{mark}{at:>3x}:\t{:<20} \t{}", bytes.join(" "), words.replace(",)", ")").trim_end());
    text.push_str(if at == code.trap { " <-- trapping instruction\n" } else { "\n" });
}

fn formatter() -> GasFormatter {
    let mut formatter = GasFormatter::new();
    let options = formatter.options_mut();
    options.set_first_operand_char_index(7);
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_always_show_scale(true);
    options.set_show_zero_displacements(true);
    formatter
}

/// The first byte from which whole, valid instructions lead to the one that trapped.
fn begin(code: &Code) -> usize {
    let leads_to_trap = |from: usize| {
        let before = instructions(&code.bytes[from..]).take_while(|(at, _)| from + at < code.trap);
        let mut next = from;
        for (at, instruction) in before {
            if instruction.is_invalid() {
                return false;
            }
            next = from + at + instruction.len();
        }
        next == code.trap
    };
    (0..code.trap.min(INSTRUCTION_BYTES_MAX)).find(|&from| leads_to_trap(from)).unwrap_or(code.trap)
}

/// Instructions and the offsets they stand at. Where none can be decoded, one byte stands for itself.
fn instructions(bytes: &[u8]) -> impl Iterator<Item = (usize, Instruction)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let mut decoder = Decoder::with_ip(64, rest, at as u64, DecoderOptions::NONE);
        let mut instruction = decoder.decode();
        if instruction.is_invalid() {
            instruction.set_len(1);
        }
        let here = at;
        at += instruction.len().max(1);
        Some((here, instruction))
    })
}

/// The first `Code:` line of the kernel, else the first at all.
fn find(report: &str) -> Option<Code> {
    let mut user = false;
    let mut program = None;
    for line in report.lines() {
        if let Some((_, pointer)) = line.split_once("IP: 00") {
            user = ["33:", "23:", "2b:", "73:"].iter().any(|segment| pointer.starts_with(segment));
        } else if let Some((before, bytes)) = line.split_once("Code: ")
            && before.trim().is_empty()
            && let Some(code) = parse(bytes)
        {
            if !user {
                return Some(code);
            }
            program.get_or_insert(code);
        }
    }
    program
}

/// `0f 1f <0f> 0b`: anything but bytes in hexadecimal digits, one of them marked, is no x86 code.
fn parse(text: &str) -> Option<Code> {
    let mut bytes = Vec::new();
    let mut trap = None;
    for word in text.split_whitespace().take(CODE_BYTES_MAX) {
        let digits = match word.strip_prefix('<') {
            Some(marked) => {
                trap = trap.or(Some(bytes.len()));
                marked.strip_suffix('>')?
            }
            None => word,
        };
        if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            // A line that was cut, or that runs into another message, is good up to there.
            break;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    trap.filter(|&trap| trap < bytes.len()).map(|trap| Code { bytes, trap })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_around_a_trap() {
        let report = "RIP: 0010:f+0x1/0x2\nCode: 05 <0f> 0b c3\n";
        let short = disassembly(report).expect("there is code");
        assert_eq!(
            short,
            "Code disassembly (best guess), 1 bytes skipped:\n* 1:\t0f 0b                \tud2 <-- trapping instruction\n  3:\tc3                   \tret\n"
                .replace("* 1", "*  1").replace("  3:", "   3:")
        );
        let user = "RIP: 0033:0x7f\nCode: 8b 4c 24 08 0f 05 <48> 3d 01 f0 ff ff 73 01 c3 0f 1f 84 00 00 00 00 00 48\n";
        let text = disassembly(user).expect("there is code");
        let expected = "\
Code disassembly (best guess):
   0:\t8b 4c 24 08          \tmov    0x8(%rsp),%ecx
   4:\t0f 05                \tsyscall
*  6:\t48 3d 01 f0 ff ff    \tcmp    $0xfffffffffffff001,%rax <-- trapping instruction
   c:\t73 01                \tjae    0xf
   e:\tc3                   \tret
   f:\t0f 1f 84 00 00 00 00 00 \tnopl   0x0(%rax,%rax,1)
  17:\t48                   \t(bad)
";
        assert_eq!(text, expected);
        let plain = disassembly("Code: <48> 8b 18 80 3c 01 00").expect("there is code");
        assert!(
            plain.contains("mov    (%rax),%rbx <--") && plain.contains("cmpb   $0x0,(%rcx,%rax,1)"),
            "{plain}"
        );
        let both = format!("{user}RIP: 0010:f+0x1/0x2\nCode: <0f> 0b\n");
        assert!(
            disassembly(&both).expect("there is code").contains("ud2"),
            "the kernel's own code comes first"
        );
    }

    #[test]
    fn what_is_no_code_yields_nothing() {
        for report in [
            "",
            "Code: ",
            "Code: 0f 0b",
            "Code: aa1303e0 (d4210000)",
            "Code: <zz>",
            "Code: 00 <",
            "Code: <é> 0b",
        ] {
            assert_eq!(disassembly(report), None, "{report}");
        }
    }
}
