//! Choices that are no part of the input but follow from it, so that any text is an input as it is.

/// xorshift64*, begun at a digest (FNV-1a) of the input.
pub struct Random(u64);

impl Random {
    pub fn of(input: &[u8]) -> Self {
        let digest = input.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Random(digest | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as usize % end.max(1)
    }
}
