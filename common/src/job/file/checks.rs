//! What a value of the job file may be, beyond its type. Each check names its key.

use super::{Base, Input, JobFileError, Takes, keys};
use crate::job::{ReproducerKind, Timeouts, ToolchainChoice};

/// More would make a job's record unwieldy, and nobody has needed it.
const TEXTS_MAX: usize = 64;
/// The kernel takes 2048 on x86, and ours stands before it.
const CMDLINE_BYTES_MAX: usize = 1024;
const NAME_CHARS_MAX: usize = 100;

/// A number within the range of its key.
pub(super) fn number(field: &str, given: Option<i64>, default: u32) -> Result<u32, JobFileError> {
    let Some(given) = given else { return Ok(default) };
    let key = keys::find(field).expect("every number has its key");
    let Takes::Number { min, max, .. } = key.takes else { unreachable!("a key of a number takes a number") };
    match u32::try_from(given) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(JobFileError::value(
            field,
            format!("is {given}"),
            format!("it must be {}", key.takes.must_be()),
        )),
    }
}

pub(super) fn first_byte_before_boot(timeouts: &Timeouts) -> Result<(), JobFileError> {
    if timeouts.first_byte_s <= timeouts.boot_s {
        return Ok(());
    }
    let problem = format!("is {}, more than timeouts.boot_s ({})", timeouts.first_byte_s, timeouts.boot_s);
    Err(JobFileError::value("timeouts.first_byte_s", problem, "the first byte is part of the boot; lower it"))
}

pub(super) fn name(name: String) -> Result<String, JobFileError> {
    if name.chars().count() > NAME_CHARS_MAX {
        let problem = format!("is longer than {NAME_CHARS_MAX} letters");
        return Err(JobFileError::value("name", problem, "give the job a shorter one"));
    }
    text("name", name, "give the job a name, or leave the key out to use the file's")
}

pub(super) fn title(title: String) -> Result<String, JobFileError> {
    text(
        "target.title",
        title,
        "write the title as a report has it, or leave it out to take the one at the bad end",
    )
}

pub(super) fn repository(given: Option<String>) -> Result<String, JobFileError> {
    const HELP: &str = "give the path or URL of a git repository of the kernel";
    let given = given.ok_or_else(|| missing("repository", HELP))?;
    let given = no_option("repository", text("repository", given, HELP)?)?;
    let authority = given.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    if authority.is_some_and(|authority| authority.contains('@')) {
        let problem = "has a user or a password in the URL, which would stand in reports and logs";
        return Err(JobFileError::value("repository", problem.to_owned(), "use the path of a clone"));
    }
    Ok(given)
}

pub(super) fn bad(given: Option<String>) -> Result<String, JobFileError> {
    revision("bad", given.ok_or_else(|| missing("bad", "name a revision that shows the crash"))?)
}

pub(super) fn revision(field: &str, given: String) -> Result<String, JobFileError> {
    no_option(field, text(field, given, "name a commit, tag or branch")?)
}

pub(super) fn toolchain(given: Option<String>) -> Result<ToolchainChoice, JobFileError> {
    const HELP: &str = "write auto, or the name of a container image with gcc and make";
    let given = match given.as_deref() {
        None | Some("auto") => return Ok(ToolchainChoice::Auto),
        Some(given) => given,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if !given.starts_with(|c: char| c.is_ascii_alphanumeric()) || !given.chars().all(plain) {
        return Err(JobFileError::value("toolchain", format!("is {given:?}, which names no image"), HELP));
    }
    Ok(ToolchainChoice::Image(given.into()))
}

pub(super) fn arch(given: Option<String>) -> Result<String, JobFileError> {
    match given.as_deref() {
        None | Some("x86_64") => Ok("x86_64".into()),
        Some(other) => Err(JobFileError::value(
            "config.arch",
            format!("is {other:?}"),
            "only \"x86_64\" is supported so far",
        )),
    }
}

pub(super) fn base(target: Option<String>, file: Option<String>) -> Result<Base, JobFileError> {
    match (target, file) {
        (Some(target), None) => make_target(target).map(Base::Target),
        (None, Some(file)) => path("config.file", file).map(Base::File),
        (Some(_), Some(_)) => {
            Err(JobFileError::Both { first: "config.make_target".into(), second: "config.file".into() })
        }
        (None, None) => Err(missing(
            "config.make_target or config.file",
            "say how the kernel is configured, such as \"defconfig\"",
        )),
    }
}

/// Targets that ask questions, look at the machine they run on, or come out differently each time.
const UNFIT_TARGETS: [&str; 10] = [
    "config",
    "oldconfig",
    "menuconfig",
    "nconfig",
    "xconfig",
    "gconfig",
    "localmodconfig",
    "localyesconfig",
    "randconfig",
    "helpnewconfig",
];

fn make_target(target: String) -> Result<String, JobFileError> {
    const FIELD: &str = "config.make_target";
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !target.ends_with("config") || target.starts_with('-') || !target.chars().all(plain) {
        let problem = format!("is {target:?}, which is no configuration target");
        return Err(JobFileError::value(
            FIELD,
            problem,
            "use one such as tinyconfig, defconfig or allnoconfig",
        ));
    }
    if UNFIT_TARGETS.contains(&target.as_str()) {
        let problem =
            format!("is {target:?}, which asks questions or does not give the same result every time");
        return Err(JobFileError::value(
            FIELD,
            problem,
            "use tinyconfig or defconfig with fragments, or config.file",
        ));
    }
    Ok(target)
}

pub(super) fn fragments(paths: Vec<String>) -> Result<Vec<String>, JobFileError> {
    bounded("config.fragments", &paths)?;
    let check = |(i, given)| path(&format!("config.fragments[{i}]"), given);
    paths.into_iter().enumerate().map(check).collect()
}

/// Variables that the build sets itself: reproducibility and the toolchain hang on them.
const OWN_VARIABLES: [&str; 24] = [
    "O",
    "ARCH",
    "SRCARCH",
    "SUBARCH",
    "CC",
    "CXX",
    "LD",
    "AR",
    "AS",
    "NM",
    "OBJCOPY",
    "OBJDUMP",
    "STRIP",
    "HOSTCC",
    "HOSTCXX",
    "HOSTLD",
    "LLVM",
    "CROSS_COMPILE",
    "KBUILD_OUTPUT",
    "KCONFIG_CONFIG",
    "KERNELRELEASE",
    "LOCALVERSION",
    "MAKEFLAGS",
    "SHELL",
];

pub(super) fn make_args(args: Vec<String>) -> Result<Vec<String>, JobFileError> {
    bounded("config.make_args", &args)?;
    for (i, arg) in args.iter().enumerate() {
        make_arg(&format!("config.make_args[{i}]"), arg)?;
    }
    Ok(args)
}

fn make_arg(field: &str, arg: &str) -> Result<(), JobFileError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_=+.,:/@%-".contains(c);
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let variable = arg.split_once('=').map(|(name, _)| name).filter(|name| is_name(name));
    let Some(variable) = variable.filter(|_| arg.chars().all(plain)) else {
        let problem = format!("is {arg:?}");
        return Err(JobFileError::value(
            field,
            problem,
            "it must be one plain word of the form VARIABLE=value, such as W=1",
        ));
    };
    if OWN_VARIABLES.contains(&variable) || variable.starts_with("KBUILD_BUILD_") {
        let problem = format!("sets {variable}");
        return Err(JobFileError::value(field, problem, "kulprit sets this variable itself; remove it"));
    }
    Ok(())
}

pub(super) fn cflags(kind: ReproducerKind, flags: &[String]) -> Result<(), JobFileError> {
    const FIELD: &str = "reproducer.cflags";
    if kind != ReproducerKind::CSource && !flags.is_empty() {
        return Err(JobFileError::value(FIELD, "has no use without reproducer.c_source", "remove it"));
    }
    bounded(FIELD, flags)?;
    for (i, flag) in flags.iter().enumerate() {
        if flag.is_empty() || flag.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let problem = format!("is {flag:?}");
            return Err(JobFileError::value(
                &format!("{FIELD}[{i}]"),
                problem,
                "write one compiler flag per entry",
            ));
        }
    }
    Ok(())
}

pub(super) fn plain_texts(field: &str, texts: Vec<String>) -> Result<Vec<String>, JobFileError> {
    bounded(field, &texts)?;
    for (i, text) in texts.iter().enumerate() {
        no_control(&format!("{field}[{i}]"), text)?;
    }
    Ok(texts)
}

pub(super) fn cmdline(given: String) -> Result<String, JobFileError> {
    const FIELD: &str = "machine.cmdline";
    no_control(FIELD, &given)?;
    if given.len() > CMDLINE_BYTES_MAX {
        let problem = format!("is longer than {CMDLINE_BYTES_MAX} bytes");
        return Err(JobFileError::value(FIELD, problem, "the kernel would cut it off; shorten it"));
    }
    Ok(given)
}

pub(super) fn path(field: &str, given: String) -> Result<String, JobFileError> {
    text(field, given, "name a file")
}

/// The file's first look: the right kind at all, and not empty.
pub(super) fn reproducer(input: &Input, kind: ReproducerKind, bytes: &[u8]) -> Result<(), JobFileError> {
    match kind {
        ReproducerKind::CSource | ReproducerKind::Script if bytes.trim_ascii().is_empty() => {
            Err(JobFileError::content(input, "is empty", "name the file with the reproducer"))
        }
        ReproducerKind::CSource | ReproducerKind::Script if bytes.contains(&0) => {
            Err(JobFileError::content(input, "is not a text", "for a ready executable use reproducer.binary"))
        }
        ReproducerKind::Binary if !bytes.starts_with(b"\x7fELF") => {
            let help = "name a static executable, or use reproducer.script or reproducer.c_source";
            Err(JobFileError::content(input, "is not an ELF executable", help))
        }
        ReproducerKind::CSource
        | ReproducerKind::Script
        | ReproducerKind::Binary
        | ReproducerKind::Nothing => Ok(()),
    }
}

fn missing(field: &str, help: &str) -> JobFileError {
    JobFileError::Missing { field: field.into(), help: help.into() }
}

fn text(field: &str, given: String, help: &str) -> Result<String, JobFileError> {
    if given.trim().is_empty() {
        return Err(JobFileError::value(field, "is empty", help));
    }
    no_control(field, &given)?;
    Ok(given)
}

fn no_control(field: &str, given: &str) -> Result<(), JobFileError> {
    if given.chars().any(char::is_control) {
        let problem = format!("is {given:?}");
        return Err(JobFileError::value(field, problem, "remove the line break or control character"));
    }
    Ok(())
}

fn no_option(field: &str, given: String) -> Result<String, JobFileError> {
    if given.starts_with('-') {
        return Err(JobFileError::value(field, format!("is {given:?}"), "it must not start with '-'"));
    }
    Ok(given)
}

fn bounded(field: &str, texts: &[String]) -> Result<(), JobFileError> {
    if texts.len() > TEXTS_MAX {
        let problem = format!("has {} entries", texts.len());
        return Err(JobFileError::value(field, problem, format!("at most {TEXTS_MAX} are allowed")));
    }
    Ok(())
}
