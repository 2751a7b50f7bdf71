//! A commit for people, as `git show --stat` prints it.

use super::GitError;
use super::differing::{Difference, differing};
use super::mirrors::{revision_id, subject};
use git2::{Diff, DiffFindOptions, DiffFormat, Oid, Patch, Repository, Time};
use kulprit_common::report::{CommitDetails, FileStat};

/// Renames are looked for in commits up to this many files, as in git's `diff.renameLimit`.
const RENAME_FILES_MAX: usize = 1000;
/// A commit that changes more files is no change that anybody reads.
const FILES_MAX: usize = 20_000;
/// A patch of more is a rewrite: its lines say nothing about whom to ask.
const PATCH_BYTES_MAX: usize = 256 << 10;

pub(super) fn details(repository: &Repository, id: Oid) -> Result<CommitDetails, GitError> {
    let commit = repository.find_commit(id)?;
    let author = commit.author();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(CommitDetails {
        revision: revision_id(id),
        parents: commit.parent_ids().map(revision_id).collect(),
        author: format!("{} <{}>", text(author.name_bytes()), text(author.email_bytes())),
        date: render_date(author.when()),
        subject: subject(&commit),
        message: text(commit.message_bytes()),
        files: diffstat(repository, &commit)?,
    })
}

/// The change as `git show` prints it, without the message. Where that is too long, the files' names
/// are all that is left of it; nothing is, where there are too many of them.
pub(super) fn patch(repository: &Repository, id: Oid) -> Result<Option<String>, GitError> {
    let commit = repository.find_commit(id)?;
    if commit.parent_count() > 1 {
        return Ok(None);
    }
    let Some(diff) = change(repository, &commit)? else { return Ok(None) };
    let whole = printed(&diff, DiffFormat::Patch)?;
    match whole {
        Some(patch) => Ok(Some(patch)),
        None => printed(&diff, DiffFormat::PatchHeader),
    }
}

/// `None` if it is longer than a patch may be.
fn printed(diff: &Diff<'_>, format: DiffFormat) -> Result<Option<String>, GitError> {
    let mut text = Vec::new();
    let done = diff.print(format, |_, _, line| {
        if ['+', '-', ' '].contains(&line.origin()) {
            text.push(line.origin() as u8);
        }
        text.extend_from_slice(line.content());
        text.len() <= PATCH_BYTES_MAX
    });
    if text.len() > PATCH_BYTES_MAX {
        return Ok(None);
    }
    done?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// What a commit changes, against its first parent; `None` if that is too much.
fn change<'r>(repository: &'r Repository, commit: &git2::Commit<'_>) -> Result<Option<Diff<'r>>, GitError> {
    let before = match commit.parent_ids().next() {
        Some(parent) => Some(repository.find_commit(parent)?.tree()?),
        None => None,
    };
    let (old, new) = (before.as_ref().map(git2::Tree::id), commit.tree_id());
    match differing(repository, old, Some(new), FILES_MAX, &mut |_| ())? {
        Difference::TooMany => Ok(None),
        Difference::Files(_) => {
            Ok(Some(repository.diff_tree_to_tree(before.as_ref(), Some(&commit.tree()?), None)?))
        }
    }
}

/// Nothing, where there are too many.
fn diffstat(repository: &Repository, commit: &git2::Commit<'_>) -> Result<Vec<FileStat>, GitError> {
    let Some(mut diff) = change(repository, commit)? else { return Ok(Vec::new()) };
    if diff.deltas().len() <= RENAME_FILES_MAX {
        diff.find_similar(Some(DiffFindOptions::new().renames(true)))?;
    }
    (0..diff.deltas().len()).map(|i| file_stat(&diff, i)).collect()
}

fn file_stat(diff: &Diff<'_>, index: usize) -> Result<FileStat, GitError> {
    let delta = diff.get_delta(index).expect("the index is below the count of deltas");
    let path = delta.new_file().path_bytes().or(delta.old_file().path_bytes()).unwrap_or_default();
    // Binary files have no patch, and no lines.
    let (_, insertions, deletions) = match Patch::from_diff(diff, index)? {
        Some(patch) => patch.line_stats()?,
        None => (0, 0, 0),
    };
    Ok(FileStat { path: String::from_utf8_lossy(path).into_owned(), insertions, deletions })
}

/// Renders a time as git does by default: `Fri Jan 20 12:37:05 2023 +0100`.
fn render_date(time: Time) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let offset = i64::from(time.offset_minutes());
    let local = time.seconds().saturating_add(offset * 60);
    let (days, seconds) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let weekday = DAYS[usize::try_from(days.rem_euclid(7)).expect("below seven")];
    let month = MONTHS[usize::try_from(month - 1).expect("a month is 1 to 12")];
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let (zone, sign) = (offset.abs(), if offset < 0 { '-' } else { '+' });
    format!("{weekday} {month} {day} {h:02}:{m:02}:{s:02} {year} {sign}{:02}{:02}", zone / 60, zone % 60)
}

/// The proleptic Gregorian date of a day count since 1970-01-01 (Howard Hinnant's
/// `civil_from_days`, which holds before the epoch too).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gits() {
        // From `git log --date=default` of commits made with these author dates.
        for (seconds, offset, text) in [
            (1_674_218_225, 60, "Fri Jan 20 13:37:05 2023 +0100"),
            (0, 0, "Thu Jan 1 00:00:00 1970 +0000"),
            (951_782_400, -570, "Mon Feb 28 14:30:00 2000 -0930"),
            (1_709_251_199, 0, "Thu Feb 29 23:59:59 2024 +0000"),
        ] {
            assert_eq!(render_date(Time::new(seconds, offset)), text);
        }
    }
}
