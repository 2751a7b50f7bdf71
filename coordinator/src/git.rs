//! Repositories: mirrors of them, what a revision is, and the history of a range.
//!
//! Everything here blocks; call it in `spawn_blocking`. Nothing is ever written into a
//! repository of the user, and nobody is ever asked for a password.

mod credentials;
mod differing;
mod error;
mod fetch;
mod mirrors;
mod packing;
mod patched;
mod releases;
mod show;
mod trace;
mod url;
mod walk;

pub use credentials::Credentials;
pub use error::{Field, GitError};
pub use mirrors::{Mirror, Mirrors};
pub use packing::Needed;
