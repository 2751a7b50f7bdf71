//! Whether a store can be used at all, found out before anybody relies on it.

use super::{Store, StoreError, location};
use futures::StreamExt as _;
use kulprit_common::artifact::error_field;
use kulprit_common::id::Digest;
use object_store::{Error, ObjectStoreExt as _};

impl Store {
    /// Asks for what every job needs: that the store can be listed, and a cloud's signed for.
    ///
    /// A cloud says of an artifact in a bucket that is not there what it says of any that is not stored, so
    /// that to ask for one is not enough.
    pub async fn try_out(&self) -> Result<(), StoreError> {
        let absent = Digest::of(b"kulprit doctor");
        let Some(presigner) = &self.presigner else { return self.exists(&absent).await.map(drop) };
        if let Some(Err(listing)) = self.objects.list(Some(&"sha256".into())).next().await {
            // What refuses a list does not say why in a way to tell apart; what refuses an artifact does.
            return Err(match self.objects.get(&location(&absent)).await {
                Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => unusable(
                    "it refuses the coordinator's credentials, or they do not allow to read and list",
                    listing,
                ),
                Err(Error::NotFound { .. }) | Ok(_) => unusable(
                    "the bucket or container is not there, or the credentials do not allow to list it",
                    listing,
                ),
                Err(_) => listing.into(),
            });
        }
        let signed = presigner.get(&absent).await;
        signed.map(drop).map_err(|error| unusable("the credentials sign no requests for agents", error))
    }
}

fn unusable(why: &'static str, error: Error) -> StoreError {
    StoreError::Unusable { why, error }
}

/// An error in a line: of the document that a cloud sends along, what people read.
pub(super) fn brief(error: &Error) -> String {
    let said = error.to_string();
    let Some(at) = said.find("<?xml").or_else(|| said.find("<Error")) else { return said };
    let (before, answer) = said.split_at(at);
    let before = before.trim_end_matches(|it: char| it.is_whitespace() || it == '\u{feff}');
    let fields = ["Code", "Message"].map(|field| error_field(answer, field));
    let said = fields.into_iter().flatten().collect::<Vec<_>>().join(": ");
    if said.is_empty() { before.trim_end_matches(':').to_owned() } else { format!("{before} {said}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_in_a_line() {
        let generic = |source: &str| Error::Generic { store: "S3", source: source.into() };
        for (source, expected) in [
            ("connection refused", "Generic S3 error: connection refused"),
            (
                "403 Forbidden: \u{feff}<?xml version=\"1.0\"?><Error>\n<Code>No</Code>\n<Message>Key.\nId:1</Message>",
                "Generic S3 error: 403 Forbidden: No: Key.",
            ),
            ("404: <Error><Code>NoSuchBucket</Code></Error>", "Generic S3 error: 404: NoSuchBucket"),
            ("404: <Error></Error>", "Generic S3 error: 404"),
        ] {
            assert_eq!(brief(&generic(source)), expected);
        }
    }
}
