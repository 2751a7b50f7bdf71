//! A join token as text: which CA to trust, and a secret that lets one machine in.

use crate::id::Digest;
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "kulprit1";

/// `kulprit1-CA-SECRET`: the SHA-256 of the CA's certificate, so that whoever joins knows the
/// coordinator before it says the secret, and 128 random bits.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    pub ca: Digest,
    pub secret: [u8; 16],
}

/// Says nothing of what was given: half a secret is a secret too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token; one begins with kulprit1- and is printed by `kulprit token create`")]
pub struct InvalidToken;

impl TokenText {
    /// What the coordinator keeps and names the token by.
    pub fn id(&self) -> Digest {
        Digest::of(&self.secret)
    }
}

impl fmt::Display for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{}-{}", self.ca, hex::encode(self.secret))
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({})", self.id().short())
    }
}

impl FromStr for TokenText {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.trim().split('-');
        let (Some(PREFIX), Some(ca), Some(hidden), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidToken);
        };
        let mut secret = [0; 16];
        hex::decode_to_slice(hidden, &mut secret).map_err(|_| InvalidToken)?;
        Ok(TokenText { ca: ca.parse().map_err(|_| InvalidToken)?, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written_and_not_shown() {
        let token = TokenText { ca: Digest::of(b"ca"), secret: *b"0123456789abcdef" };
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&hex::encode(token.secret)));
        let cut = &text[..text.len() - 2];
        for bad in ["", "kulprit1", "kulprit1--", cut, &text[9..], &format!("{text}-00"), "kulprit2-a-b"] {
            assert_eq!(bad.parse::<TokenText>(), Err(InvalidToken), "{bad}");
        }
    }
}
