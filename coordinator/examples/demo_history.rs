//! Makes the demo's git history from its recipe: a branch on top of Debian's kernel source with a
//! planted culprit, and beside it the job file that searches for it and the truth to compare with.
//! The recipe says what is in it; here is only how the seed arranges it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use git2::{FileMode, ObjectType, Oid, Repository, RepositoryInitOptions, Signature, Time, build};
use serde::{Deserialize, Serialize};

/// Makes a kernel history with a planted bug, the same one for the same seed.
#[derive(Parser)]
struct Args {
    /// Decides which bug is planted, and where everything lies
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What makes the search hard: `plain`, `rare` (the bug shows in three runs of ten) or `noisy`
    /// (over half of the history another crash comes in six runs of ten)
    #[arg(long, default_value = "plain")]
    world: World,
    /// Directory with history.toml, the job's template, the reproducers and tiny.config
    #[arg(long, default_value = "examples/demo")]
    recipe: PathBuf,
    /// Directory with base.git, in which the history is made [default: demo/ in kulprit's cache]
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum World {
    Plain,
    Rare,
    Noisy,
}

impl World {
    /// What histories and their folders are called.
    fn name(self, seed: u64) -> String {
        match self {
            World::Plain => format!("history-{seed}"),
            World::Rare => format!("history-rare-{seed}"),
            World::Noisy => format!("history-noisy-{seed}"),
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let dir = match args.dir {
        Some(dir) => dir,
        None => cache_dir()?.join("demo"),
    };
    let dir = fs::canonicalize(&dir)
        .with_context(|| format!("failed to find {} (scripts/kernel-source makes it)", dir.display()))?;

    let file = args.recipe.join("history.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let recipe: Recipe =
        toml::from_str(&text).with_context(|| format!("failed to understand {}", file.display()))?;
    ensure!(!recipe.bug.is_empty() && recipe.plain.len() >= FILLERS_MIN, "the recipe is too short");

    let plan = plan(&recipe, args.seed, args.world);
    let name = args.world.name(args.seed);
    let repository = dir.join(format!("{name}.git"));
    let commits = write_repository(&recipe, &plan, &dir.join("base.git"), &repository, args.seed)?;
    let truth = Truth::new(args.seed, &plan, commits)?;
    let folder = dir.join(name);
    write_folder(&args.recipe, &folder, &repository, &plan, &truth, args.world)?;

    println!("{}", toml::to_string(&truth.summary)?.trim_end());
    println!("repository = {repository:?}\njob = {:?}", folder.join("job.toml"));
    Ok(())
}

fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("KULPRIT_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("kulprit")))
        .or_else(|| Some(from("HOME")?.join(".cache/kulprit")))
        .context("failed to find a cache directory: none of KULPRIT_CACHE, XDG_CACHE_HOME and HOME is set")
}

// --- The recipe, as it is written -----------------------------------------------------------

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    authors: Vec<String>,
    maintainer: String,
    release: Vec<Release>,
    bug: Vec<Bug>,
    no_build: Vec<Stretch>,
    no_boot: Vec<Stretch>,
    flaky: Vec<Stretch>,
    noisy: Vec<Stretch>,
    plain: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    subject: String,
    #[serde(default)]
    why: String,
    edits: Vec<Edit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    find: String,
    replace: String,
}

#[derive(Deserialize)]
struct Release {
    tag: String,
    #[serde(flatten)]
    change: Change,
}

#[derive(Deserialize)]
struct Bug {
    name: String,
    title: String,
    reproducer: String,
    beside: Change,
    #[serde(flatten)]
    change: Change,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stretch {
    #[serde(default)]
    title: Option<String>,
    breaks: Change,
    fixes: Change,
}

// --- The plan: what comes in which order ----------------------------------------------------

/// Most commits that the blocks below can use up, and some for the gaps between them.
const FILLERS_MIN: usize = 50;

struct Plan<'a> {
    steps: Vec<Step<'a>>,
    bug: &'a Bug,
    flaky_title: Option<&'a str>,
    no_boot_title: Option<&'a str>,
    /// Whether the job is told a good end, or has to walk the release tags.
    good_is_given: bool,
}

enum Step<'a> {
    Commit(&'a Change, Role),
    Tag(&'a str),
    /// Two lines of commits from here on, joined by a merge.
    Merge {
        topic: String,
        main: Vec<Step<'a>>,
        side: Vec<Step<'a>>,
    },
}

/// What a commit changes about the kernel's behaviour.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Plain,
    Release,
    Beside,
    Culprit,
    Breaks(Trouble),
    Fixes(Trouble),
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    NoBuild,
    NoBoot,
    Flaky,
}

/// Where the culprit hides.
enum Host {
    Mainline,
    SideBranch,
    FlakyStretch,
}

fn plan(recipe: &Recipe, seed: u64, world: World) -> Plan<'_> {
    let mut random = Random(seed);
    let mut plain: Vec<&Change> = recipe.plain.iter().collect();
    random.shuffle(&mut plain);
    let mut fillers = plain.into_iter().map(|change| Step::Commit(change, Role::Plain));
    let mut take = |count: usize| -> Vec<Step> { fillers.by_ref().take(count).collect() };

    // Not drawn: neighbouring seeds plant different bugs.
    let bug = &recipe.bug[(seed % recipe.bug.len() as u64) as usize];
    let mut culprit = vec![Step::Commit(&bug.change, Role::Culprit), Step::Commit(&bug.beside, Role::Beside)];
    random.shuffle(&mut culprit);

    let no_build = random.pick(&recipe.no_build);
    let no_boot = random.pick(&recipe.no_boot);
    let noisy = world == World::Noisy;
    let flaky = random.pick(if noisy { &recipe.noisy } else { &recipe.flaky });
    let mut around_build = take(random.between(3, 5));
    let mut around_boot = take(random.between(3, 5));
    let around_flaky = random.between(9, 13);
    let mut around_flaky = if noisy { Vec::new() } else { take(around_flaky) };
    let mut sides = [take(random.between(2, 4)), take(random.between(2, 4))];

    let mut blocks = Vec::new();
    match [Host::Mainline, Host::SideBranch, Host::FlakyStretch][random.below(3)] {
        Host::FlakyStretch if noisy => blocks.push(culprit),
        Host::Mainline => blocks.push(culprit),
        Host::SideBranch => insert(&mut sides[0], random.between(1, 2), culprit),
        Host::FlakyStretch => insert(&mut around_flaky, random.between(3, 6), culprit),
    }
    for (topic, side) in ["cleanups", "for-next"].into_iter().zip(sides) {
        let main = take(random.between(1, 3));
        blocks.push(vec![Step::Merge { topic: topic.into(), main, side }]);
    }
    blocks.push(stretch(no_build, Trouble::NoBuild, &mut around_build));
    blocks.push(stretch(no_boot, Trouble::NoBoot, &mut around_boot));
    if !noisy {
        blocks.push(stretch(flaky, Trouble::Flaky, &mut around_flaky));
    }
    random.shuffle(&mut blocks);

    // The commits that are left lie between the blocks, at least two in every gap: so the
    // culprit's parent and both ends work, whatever the order.
    let mut gaps: Vec<Vec<Step>> = (0..=blocks.len()).map(|_| take(2)).collect();
    for filler in fillers {
        let gap = random.below(gaps.len());
        gaps[gap].push(filler);
    }

    // A release may come between any two of these.
    let mut segments: Vec<Vec<Step>> = Vec::new();
    let mut blocks = blocks.into_iter();
    for gap in gaps {
        segments.extend(gap.into_iter().map(|step| vec![step]));
        segments.extend(blocks.next());
    }
    if noisy {
        over_half(&mut segments, flaky, &mut random);
    }
    Plan {
        steps: with_releases(segments, &recipe.release),
        bug,
        flaky_title: flaky.title.as_deref(),
        no_boot_title: no_boot.title.as_deref(),
        good_is_given: !seed.is_multiple_of(3),
    }
}

fn stretch<'a>(stretch: &'a Stretch, trouble: Trouble, between: &mut Vec<Step<'a>>) -> Vec<Step<'a>> {
    let mut steps = vec![Step::Commit(&stretch.breaks, Role::Breaks(trouble))];
    steps.append(between);
    steps.push(Step::Commit(&stretch.fixes, Role::Fixes(trouble)));
    steps
}

/// Begins a stretch somewhere in the first half, and ends it after half of all commits.
fn over_half<'a>(segments: &mut Vec<Vec<Step<'a>>>, stretch: &'a Stretch, random: &mut Random) {
    let commits = |segments: &[Vec<Step>]| segments.iter().flatten().map(Step::commits).sum::<usize>();
    let half = commits(segments) / 2;
    let from = random.between(2, half - 2);
    let place = |segments: &[Vec<Step>], done: usize| {
        (0..segments.len()).find(|&at| commits(&segments[..at]) >= done).unwrap_or(segments.len())
    };
    let (begin, end) = (place(segments, from), place(segments, from + half));
    segments.insert(end, vec![Step::Commit(&stretch.fixes, Role::Fixes(Trouble::Flaky))]);
    segments.insert(begin, vec![Step::Commit(&stretch.breaks, Role::Breaks(Trouble::Flaky))]);
}

fn insert<'a>(steps: &mut Vec<Step<'a>>, at: usize, new: Vec<Step<'a>>) {
    steps.splice(at..at, new);
}

/// Puts n releases at about 1/(n+1), 2/(n+1), … of the way.
fn with_releases<'a>(segments: Vec<Vec<Step<'a>>>, releases: &'a [Release]) -> Vec<Step<'a>> {
    let total: usize = segments.iter().flatten().map(Step::commits).sum();
    let mut releases = releases.iter().enumerate().peekable();
    let count = releases.len();
    let mut steps = Vec::new();
    let mut done = 0;
    for segment in segments {
        done += segment.iter().map(Step::commits).sum::<usize>();
        steps.extend(segment);
        if let Some((_, release)) = releases.next_if(|(i, _)| done * (count + 1) >= total * (i + 1)) {
            steps.push(Step::Commit(&release.change, Role::Release));
            steps.push(Step::Tag(&release.tag));
        }
    }
    steps
}

impl Step<'_> {
    fn commits(&self) -> usize {
        match self {
            Step::Commit(..) => 1,
            Step::Tag(_) => 0,
            Step::Merge { main, side, .. } => main.iter().chain(side).map(Step::commits).sum::<usize>() + 1,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): seeds one apart give unrelated numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

// --- The repository: the plan as commits ----------------------------------------------------

/// The date of v6.1, and the time from one commit to the next.
const FIRST_COMMIT_S: i64 = 1_670_803_200;
const BETWEEN_COMMITS_S: i64 = 5 * 3600 + 1234;

const GOOD: &str = "v6.1";

#[derive(Serialize)]
struct Written {
    commit: String,
    parent: String,
    subject: String,
    #[serde(skip)]
    role: Role,
    condition: Condition,
}

/// What a person testing a revision would find.
#[derive(Clone, Copy, Default, Serialize)]
struct Condition {
    culprit: bool,
    builds: bool,
    boots: bool,
    flaky: bool,
    bug: bool,
}

/// One line of commits: its tip, and the tree that its next commit is going to have.
#[derive(Clone, Copy)]
struct Line {
    tip: Oid,
    tree: Oid,
    condition: Condition,
}

struct Writer<'a> {
    repo: Repository,
    recipe: &'a Recipe,
    random: Random,
    clock_s: i64,
    written: Vec<Written>,
}

/// Writes to a temporary place first: a repository that is there is complete, and one that is
/// there with the same commits stays, since somebody may be reading it.
fn write_repository(
    recipe: &Recipe,
    plan: &Plan,
    base: &Path,
    target: &Path,
    seed: u64,
) -> Result<Vec<Written>> {
    let new = target.with_extension(format!("git.{}", std::process::id()));
    let result = write_commits(recipe, plan, base, &new, seed);
    if result.is_ok() && head(target).ok() != Some(head(&new)?) {
        if target.exists() {
            fs::remove_dir_all(target)?;
        }
        fs::rename(&new, target)?;
    } else {
        fs::remove_dir_all(&new).or_else(|e| if new.exists() { Err(e) } else { Ok(()) })?;
    }
    result
}

fn head(repository: &Path) -> Result<Oid> {
    Ok(Repository::open_bare(repository)?.refname_to_id("refs/heads/main")?)
}

fn write_commits(
    recipe: &Recipe,
    plan: &Plan,
    base: &Path,
    target: &Path,
    seed: u64,
) -> Result<Vec<Written>> {
    let root = Repository::open_bare(base)
        .and_then(|base| base.refname_to_id("refs/heads/base"))
        .with_context(|| format!("failed to read {} (scripts/kernel-source makes it)", base.display()))?;

    let options = &mut RepositoryInitOptions::new();
    Repository::init_opts(target, options.bare(true).initial_head("main"))?;
    // The kernel's source stays where it is; the history holds its own commits only.
    let alternates = target.join("objects/info/alternates");
    fs::create_dir_all(target.join("objects/info"))?;
    fs::write(&alternates, format!("{}\n", base.join("objects").display()))?;

    let repo = Repository::open_bare(target)?;
    let tree = repo.find_commit(root)?.tree_id();
    let mut writer =
        Writer { repo, recipe, random: Random(seed ^ 0xa07), clock_s: FIRST_COMMIT_S, written: Vec::new() };
    let condition = Condition { builds: true, boots: true, ..Condition::default() };
    let mut line = Line { tip: root, tree, condition };
    writer.tag(GOOD, root)?;
    writer.steps(&mut line, &plan.steps)?;
    writer.repo.reference("refs/heads/main", line.tip, true, "demo history")?;
    Ok(writer.written)
}

impl Writer<'_> {
    fn steps(&mut self, line: &mut Line, steps: &[Step]) -> Result<()> {
        for step in steps {
            match step {
                Step::Commit(change, role) => self.change(line, change, *role)?,
                Step::Tag(name) => self.tag(name, line.tip)?,
                Step::Merge { topic, main, side } => self.merge(line, topic, main, side)?,
            }
        }
        Ok(())
    }

    fn change(&mut self, line: &mut Line, change: &Change, role: Role) -> Result<()> {
        self.apply(line, change)?;
        line.condition.after(role);
        let author = match role {
            Role::Release => self.recipe.maintainer.clone(),
            _ => self.random.pick(&self.recipe.authors).clone(),
        };
        let mut message = format!("{}\n\n", change.subject);
        if !change.why.is_empty() {
            message += &format!("{}\n\n", change.why.trim());
        }
        message += &format!("Signed-off-by: {author}\n");
        if author != self.recipe.maintainer {
            message += &format!("Signed-off-by: {}\n", self.recipe.maintainer);
        }
        self.commit(line, &author, &message, None, role)
    }

    /// The two sides edit different places, so a merge is the edits of both.
    fn merge(&mut self, line: &mut Line, topic: &str, main: &[Step], side: &[Step]) -> Result<()> {
        let mut branch = *line;
        self.steps(&mut branch, side)?;
        self.steps(line, main)?;
        for step in side {
            if let Step::Commit(change, _) = step {
                self.apply(line, change)?;
            }
        }
        line.condition.bug |= branch.condition.bug;
        let message = format!("Merge branch '{topic}'\n\nSigned-off-by: {}\n", self.recipe.maintainer);
        let maintainer = self.recipe.maintainer.clone();
        self.commit(line, &maintainer, &message, Some(branch.tip), Role::Plain)
    }

    fn apply(&self, line: &mut Line, change: &Change) -> Result<()> {
        for Edit { file, find, replace } in &change.edits {
            let tree = self.repo.find_tree(line.tree)?;
            let entry = tree.get_path(Path::new(file)).with_context(|| format!("failed to find {file}"))?;
            let text = String::from_utf8(self.repo.find_blob(entry.id())?.content().to_vec())?;
            let places = text.matches(find.as_str()).count();
            if places != 1 {
                bail!(
                    "{:?}: the text to replace in {file} is there {places} times, not once:\n{find}",
                    change.subject
                );
            }
            let blob = self.repo.blob(text.replacen(find.as_str(), replace, 1).as_bytes())?;
            let mode = if entry.filemode() == 0o100755 { FileMode::BlobExecutable } else { FileMode::Blob };
            line.tree = build::TreeUpdateBuilder::new()
                .upsert(file.as_str(), blob, mode)
                .create_updated(&self.repo, &tree)?;
        }
        Ok(())
    }

    fn commit(
        &mut self,
        line: &mut Line,
        author: &str,
        message: &str,
        side: Option<Oid>,
        role: Role,
    ) -> Result<()> {
        self.clock_s += BETWEEN_COMMITS_S;
        let tree = self.repo.find_tree(line.tree)?;
        let first = self.repo.find_commit(line.tip)?;
        let second = side.map(|tip| self.repo.find_commit(tip)).transpose()?;
        let parents: Vec<_> = std::iter::once(&first).chain(&second).collect();
        let author = signature(author, self.clock_s)?;
        let committer = signature(&self.recipe.maintainer, self.clock_s)?;
        let tip = self.repo.commit(None, &author, &committer, message, &tree, &parents)?;

        self.written.push(Written {
            commit: tip.to_string(),
            parent: line.tip.to_string(),
            subject: message.lines().next().unwrap_or_default().to_owned(),
            role,
            condition: Condition { culprit: role == Role::Culprit, ..line.condition },
        });
        line.tip = tip;
        Ok(())
    }

    fn tag(&self, name: &str, commit: Oid) -> Result<()> {
        let object = self.repo.find_object(commit, Some(ObjectType::Commit))?;
        let tagger = signature(&self.recipe.maintainer, self.clock_s)?;
        self.repo.tag(name, &object, &tagger, &format!("Linux {}\n", name.trim_start_matches('v')), false)?;
        Ok(())
    }
}

impl Condition {
    fn after(&mut self, role: Role) {
        let (trouble, begins) = match role {
            Role::Plain | Role::Release | Role::Beside => return,
            Role::Culprit => {
                self.bug = true;
                return;
            }
            Role::Breaks(trouble) => (trouble, true),
            Role::Fixes(trouble) => (trouble, false),
        };
        match trouble {
            Trouble::NoBuild => self.builds = !begins,
            Trouble::NoBoot => self.boots = !begins,
            Trouble::Flaky => self.flaky = begins,
        }
    }
}

fn signature(person: &str, time_s: i64) -> Result<Signature<'static>> {
    let (name, email) = person
        .strip_suffix('>')
        .and_then(|person| person.split_once(" <"))
        .with_context(|| format!("{person:?} is not of the form Name <address>"))?;
    Ok(Signature::new(name, email, &Time::new(time_s, 0))?)
}

// --- What stands beside the repository ------------------------------------------------------

#[derive(Serialize)]
struct Truth {
    #[serde(flatten)]
    summary: Summary,
    commit: Vec<Written>,
}

#[derive(Clone, Serialize)]
struct Summary {
    seed: u64,
    bug: String,
    bad: String,
    good: String,
    culprit: String,
    culprit_subject: String,
    culprit_parent: String,
    beside: String,
    title: String,
    no_boot_title: String,
    flaky_title: String,
    reproducer: String,
    commits: usize,
}

impl Truth {
    fn new(seed: u64, plan: &Plan, commits: Vec<Written>) -> Result<Truth> {
        let find = |role: Role| {
            commits.iter().find(|c| c.role == role).context("failed to find a commit that was just written")
        };
        let culprit = find(Role::Culprit)?;
        let summary = Summary {
            seed,
            bug: plan.bug.name.clone(),
            bad: commits.last().context("the history is empty")?.commit.clone(),
            good: commits[0].parent.clone(),
            culprit: culprit.commit.clone(),
            culprit_subject: culprit.subject.clone(),
            culprit_parent: culprit.parent.clone(),
            beside: find(Role::Beside)?.commit.clone(),
            title: plan.bug.title.clone(),
            no_boot_title: plan.no_boot_title.unwrap_or_default().to_owned(),
            flaky_title: plan.flaky_title.unwrap_or_default().to_owned(),
            reproducer: plan.bug.reproducer.clone(),
            commits: commits.len() + 1,
        };
        Ok(Truth { summary, commit: commits })
    }
}

fn write_folder(
    recipe: &Path,
    folder: &Path,
    repository: &Path,
    plan: &Plan,
    truth: &Truth,
    world: World,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    for file in ["tiny.config", plan.bug.reproducer.as_str()] {
        fs::copy(recipe.join(file), folder.join(file)).with_context(|| format!("failed to copy {file}"))?;
    }
    if world == World::Rare {
        let read = |file: &str| {
            fs::read_to_string(recipe.join(file)).with_context(|| format!("failed to read {file}"))
        };
        // The reproducer may define _GNU_SOURCE, which has to come before any header.
        let text = format!("#define _GNU_SOURCE\n{}{}", read("rarely.c")?, read(&plan.bug.reproducer)?);
        fs::write(folder.join(&plan.bug.reproducer), text)?;
    }
    let template = recipe.join("job.template.toml");
    let mut job =
        fs::read_to_string(&template).with_context(|| format!("failed to read {}", template.display()))?;
    let good = match plan.good_is_given {
        true => format!("good = {GOOD:?}"),
        false => "# No good end is given: the release tags are walked back to find one.".to_owned(),
    };
    let values = BTreeMap::from([
        ("@seed@", truth.summary.seed.to_string()),
        ("@repository@", repository.display().to_string()),
        ("@good@", good),
        ("@reproducer@", plan.bug.reproducer.clone()),
        ("@title@", plan.bug.title.clone()),
    ]);
    for (name, value) in &values {
        job = job.replace(name, value);
    }
    fs::write(folder.join("job.toml"), job)?;
    fs::write(folder.join("truth.toml"), toml::to_string(truth)?)?;
    Ok(())
}
