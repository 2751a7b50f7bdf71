//! Real kernels from real containers: skipped, with a word, where there is no engine or no
//! toolchain image.

use kulprit_agent::build::{BuildRequest, Built, build};
use kulprit_agent::container::{
    Access, Bind, Engine, Exit, Limits, LogSink, RunSpec, Unfinished, container_user,
};
use kulprit_agent::engine_cleanup;
use kulprit_agent::maintainers::{self, Question};
use kulprit_agent::reproducer::{CompileRequest, Compiled, compile, toolchain_facts};
use kulprit_common::id::{AgentId, Digest, Session};
use kulprit_common::job::{ConfigBase, Fragment, KernelBuild};
use kulprit_common::outcome::InfraClass;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "kulprit/gcc-10";

/// The name of a test's agent: its own, for cleaning up must not reach another run's containers.
fn agent(test: &str) -> AgentId {
    format!("test-{test}-{}", std::process::id()).parse().unwrap()
}

/// An engine with the toolchain, or `None` after saying why there is none.
async fn engine(test: &str) -> Option<(Engine, String)> {
    engine_of(test, Session(1)).await
}

async fn engine_of(test: &str, session: Session) -> Option<(Engine, String)> {
    let found = async {
        let engine = Engine::connect(agent(test), session).await?;
        let image = engine.image_id(IMAGE).await?;
        Ok::<_, Unfinished>((engine, image))
    };
    found.await.map_err(|why| eprintln!("skipped: {why}; `make test` provides it")).ok()
}

/// What the next life of a test's agent finds.
async fn left_behind(test: &str) -> usize {
    let (later, _) = engine_of(test, Session(2)).await.expect("the engine is still there");
    later.remove_leftovers().await.unwrap()
}

fn sink(path: &Path) -> LogSink {
    LogSink::create(path, 1 << 20, mpsc::channel(1).0).unwrap()
}

fn shell<'a>(image: &'a str, script: &str) -> RunSpec<'a> {
    RunSpec {
        image_id: image,
        argv: ["/bin/sh", "-c", script].map(String::from).into(),
        env: vec![("GREETING", "hello".into())],
        workdir: "/",
        binds: Vec::new(),
        limits: Limits { memory_bytes: 64 << 20, time: Duration::from_secs(60), ..Limits::default() },
        attempt: "test",
    }
}

#[tokio::test]
async fn a_container_is_confined() {
    let Some((engine, image)) = engine("confined").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let script = "echo $GREETING; id -u; ls /sys/class/net; touch /x; touch /in/x; touch /tmp/x && echo tmp;
        grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status; ulimit -c; exit 7";
    let mut spec = shell(&image, script);
    // A colon would end the path where it is said in Docker's short form.
    let odd = dir.path().join("a:b");
    fs::create_dir(&odd).unwrap();
    spec.binds.push(Bind { host: &odd, container: "/in", access: Access::ReadOnly });
    let log = dir.path().join("log");
    let mut out = sink(&log);
    let exit = engine.run(&spec, &mut out, &CancellationToken::new()).await.unwrap();
    out.finish().unwrap();
    assert_eq!(exit, Exit { code: 7, oom_killed: false });
    let said = fs::read_to_string(log).unwrap();
    let uid = container_user().0.to_string();
    assert_ne!(uid, "0");
    let none = "0000000000000000";
    for line in [
        "hello",
        &uid,
        "lo",
        "tmp",
        "NoNewPrivs:\t1",
        &format!("CapEff:\t{none}"),
        &format!("CapBnd:\t{none}"),
    ] {
        assert!(said.lines().any(|said| said == line), "no {line:?} in {said}");
    }
    assert!(!said.contains("eth0"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    assert_eq!(left_behind("confined").await, 0);
}

#[tokio::test]
async fn endings_of_a_container_have_their_names() {
    let Some((engine, image)) = engine("endings").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let never = CancellationToken::new();

    let slow = RunSpec {
        limits: Limits { time: Duration::from_millis(500), ..Limits::default() },
        ..shell(&image, "sleep 60")
    };
    let late = engine.run(&slow, &mut sink(&log), &never).await;
    assert!(matches!(&late, Err(Unfinished::Infra(infra)) if infra.class == InfraClass::Timeout), "{late:?}");

    let cancel = CancellationToken::new();
    let stopper = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stopper.cancel();
    });
    let started = Instant::now();
    let stopped = engine.run(&shell(&image, "sleep 60"), &mut sink(&log), &cancel).await;
    assert_eq!(stopped, Err(Unfinished::Cancelled));
    assert!(started.elapsed() < Duration::from_secs(15));

    let hungry = shell(&image, "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}");
    let killed = engine.run(&hungry, &mut sink(&log), &never).await.unwrap();
    assert!(killed.oom_killed || killed.code == 137, "{killed:?}");

    let missing = engine.image_id("kulprit/no-such-image").await;
    assert!(
        matches!(&missing, Err(Unfinished::Infra(infra)) if infra.class == InfraClass::Toolchain),
        "{missing:?}"
    );
    assert_eq!(left_behind("endings").await, 0);
}

#[tokio::test]
async fn what_an_earlier_life_left_is_removed_whenever_it_shows() {
    let Some((earlier, image)) = engine_of("leftovers", Session(7)).await else { return };
    let Some((later, _)) = engine_of("leftovers", Session(8)).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path().join("scratch");
    fs::create_dir_all(scratch.join("attempt")).unwrap();
    let found = engine_cleanup::at_start(&later, &scratch).await.unwrap();
    assert_eq!(found, engine_cleanup::Leftovers { containers: 0, files: 1 });

    // The engine comes to the earlier life's request only now.
    let cancel = CancellationToken::new();
    let spec = shell(&image, "echo works; exec sleep 60");
    let logs = [dir.path().join("earlier"), dir.path().join("later")];
    let mut sinks = logs.each_ref().map(|log| sink(log));
    let [earlier_sink, later_sink] = &mut sinks;
    let removing = async {
        let works = |log: &PathBuf| fs::read_to_string(log).is_ok_and(|text| text.contains("works"));
        while !logs.iter().all(works) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let by_each = (earlier.remove_leftovers().await.unwrap(), later.remove_leftovers().await.unwrap());
        // Long enough for the end of a container to be told.
        tokio::time::sleep(Duration::from_secs(2)).await;
        cancel.cancel();
        by_each
    };
    let (by_each, of_earlier, of_later) = tokio::join!(
        removing,
        earlier.run(&spec, earlier_sink, &cancel),
        later.run(&spec, later_sink, &cancel)
    );
    assert_eq!(by_each, (0, 1), "a life removes what came before it, not what comes after, not its own");
    assert_ne!(of_earlier, Err(Unfinished::Cancelled), "it was removed before");
    assert_eq!(of_later, Err(Unfinished::Cancelled), "it went on until then");
}

#[tokio::test]
async fn at_the_start_a_life_of_a_later_clock_is_over_too() {
    let Some((later, image)) = engine_of("clock", Session(8)).await else { return };
    let Some((now, _)) = engine_of("clock", Session(7)).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let (log, never) = (dir.path().join("log"), CancellationToken::new());
    let spec = shell(&image, "echo works; exec sleep 60");
    let mut log_sink = sink(&log);
    let starting = async {
        while !fs::read_to_string(&log).is_ok_and(|text| text.contains("works")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        engine_cleanup::at_start(&now, &dir.path().join("scratch")).await.unwrap().containers
    };
    let (removed, _) = tokio::join!(starting, later.run(&spec, &mut log_sink, &never));
    assert_eq!(removed, 1);
}

#[tokio::test]
async fn reproducers_are_compiled_and_toolchains_say_what_they_are() {
    let Some((engine, image)) = engine("reproducer").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let facts = toolchain_facts(&engine, &image, dir.path(), "test", CancellationToken::new()).await.unwrap();
    assert!(facts.gcc.starts_with("gcc ") && facts.ld.starts_with("GNU ld"), "{facts:?}");

    let request = |source: &'static [u8]| CompileRequest {
        source,
        cflags: &[],
        image_id: &image,
        work_dir: dir.path(),
        limits: Limits::default(),
        log: &log,
        attempt_label: "test",
    };
    let live = || mpsc::channel(1).0;
    let good = b"#include <stdio.h>\nint main(void) { puts(\"ran\"); return 0; }\n";
    let made = compile(&engine, request(good), live(), CancellationToken::new()).await.unwrap();
    let Compiled::Ready(path) = made else { panic!("{made:?}") };
    let ran = std::process::Command::new(path).output().unwrap();
    assert_eq!(ran.stdout, b"ran\n", "static, so it runs anywhere");

    let failed =
        compile(&engine, request(b"int main(void) { return x; }\n"), live(), CancellationToken::new()).await;
    let Ok(Compiled::Failed { message }) = failed else { panic!("{failed:?}") };
    assert_eq!(message, "reproducer.c:1:25: error: 'x' undeclared (first use in this function)");
}

/// A small kernel source that is not Linux, but has its targets, so that builds take a second.
struct Toy {
    dir: TempDir,
}

impl Toy {
    fn new() -> Self {
        let toy = Toy { dir: tempfile::tempdir().unwrap() };
        let makefile = "\
include_config:\n\ttouch .config\n\
tinyconfig olddefconfig:\n\t@mkdir -p $(O)/include/config; touch $(O)/.config; echo $@\n\
vmlinux: $(O)/vmlinux\n\
$(O)/a.o: /src/a.c\n\t$(CC) -c -o $@ $<\n\
$(O)/vmlinux: $(O)/a.o\n\t$(CC) -static -Wl,--build-id=none -o $@ $<\n\
bzImage: $(O)/vmlinux\n\tmkdir -p $(O)/arch/x86/boot; cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage\n";
        toy.write("Makefile", makefile);
        toy.write("a.c", "int main(void) { return 0; }\n");
        toy
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.source()).unwrap();
        fs::write(self.source().join(name), text).unwrap();
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    async fn build(
        &self,
        engine: &Engine,
        image: &str,
        objects: &str,
        cancel: CancellationToken,
    ) -> Result<Built, Unfinished> {
        let kernel = KernelBuild {
            arch: "x86_64".into(),
            config: ConfigBase::Target("tinyconfig".into()),
            fragments: vec![Fragment {
                name: "f".into(),
                text: "CONFIG_X=y\n# CONFIG_Y is not set\n".into(),
            }],
            make_args: vec![],
        };
        let request = BuildRequest {
            kernel: &kernel,
            image_id: image,
            source_dir: &self.source(),
            objects_dir: &self.dir.path().join(objects),
            ccache_dir: &self.dir.path().join("ccache"),
            shared_ccache: None,
            is_first: false,
            jobs: 2,
            limits: Limits { time: Duration::from_secs(300), ..Limits::default() },
            objects_bytes_max: 1 << 30,
            log: &self.dir.path().join("log"),
            attempt_label: "test",
        };
        build(engine, request, mpsc::channel(1).0, cancel).await.map(|(built, _)| built)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

fn fingerprint(built: &Built) -> Digest {
    let Built::Kernel { fingerprint, .. } = built else { panic!("{built:?}") };
    *fingerprint
}

#[tokio::test]
async fn a_stale_or_broken_object_tree_never_becomes_a_verdict() {
    let Some((engine, image)) = engine("toy").await else { return };
    let toy = Toy::new();
    let build = || toy.build(&engine, &image, "objects", CancellationToken::new());
    let first = fingerprint(&build().await.unwrap());
    assert!(!toy.log().contains("X=y was asked for"), "{}", toy.log());
    assert_eq!(fingerprint(&build().await.unwrap()), first);

    // A broken object that looks new.
    let tree = toy.dir.path().join("objects/tree");
    fs::write(tree.join("a.o"), "").unwrap();
    fs::remove_file(tree.join("vmlinux")).unwrap();
    assert_eq!(fingerprint(&build().await.unwrap()), first);
    assert!(toy.log().contains("building again from a clean object tree"), "{}", toy.log());

    toy.write("a.c", "int main(void) { return y; }\n");
    let failed = build().await.unwrap();
    let Built::Failed { message } = failed else { panic!("{failed:?}") };
    assert!(message.starts_with("a.c:1:25: error: 'y' undeclared"), "{message}");

    toy.write("a.c", "int main(void) { return 0; }\n");
    assert_eq!(fingerprint(&build().await.unwrap()), first);

    // As after kill -9 in the middle of writing an object.
    fs::write(toy.dir.path().join("objects/dirty"), "").unwrap();
    fs::write(tree.join("a.o"), "half").unwrap();
    fs::remove_file(tree.join("vmlinux")).unwrap();
    assert_eq!(fingerprint(&build().await.unwrap()), first);
    assert!(!toy.log().contains("building again"), "the half object was removed: {}", toy.log());
}

/// Linux takes its compressed self into the image with `.incbin`, which no list of dependencies names.
/// Two kernels of the same size have equal sources around it.
#[tokio::test]
async fn what_an_object_takes_in_by_incbin_is_never_an_earlier_ones() {
    let Some((engine, image)) = engine("incbin").await else { return };
    let toy = Toy::new();
    let makefile = "\
tinyconfig olddefconfig:\n\t@mkdir -p $(O)/include/config; touch $(O)/.config\n\
vmlinux:\n\t$(CC) -c -o $(O)/a.o /src/a.c && $(CC) -static -Wl,--build-id=none -o $(O)/vmlinux $(O)/a.o\n\
bzImage: vmlinux\n\tmkdir -p $(O)/arch/x86/boot; cp /src/payload $(O)/payload\n\
\t$(CC) -Wp,-MMD,$(O)/.piggy.d -c -o $(O)/piggy.o /src/piggy.S\n\
\t$(CC) -Wp,-MMD,$(O)/.configs.d -c -o $(O)/configs.o /src/configs.c\n\
\tcat $(O)/piggy.o $(O)/configs.o >$(O)/arch/x86/boot/bzImage\n";
    toy.write("Makefile", makefile);
    toy.write("piggy.S", ".section .rodata\n.incbin \"/build/payload\"\n");
    toy.write("configs.c", "asm(\".section .rodata\\n.incbin \\\"/build/payload\\\"\");\n");
    let mut fingerprints = Vec::new();
    for payload in ["payload one", "payload two"] {
        toy.write("payload", payload);
        let built = toy.build(&engine, &image, payload, CancellationToken::new()).await.unwrap();
        let Built::Kernel { image, fingerprint, .. } = built else { panic!("{built:?}") };
        let bytes = fs::read(image).unwrap();
        let found = bytes.windows(payload.len()).filter(|it| *it == payload.as_bytes()).count();
        assert_eq!(found, 2, "{payload}: in assembler and in C");
        fingerprints.push(fingerprint);
    }
    assert_eq!(fingerprints[0], fingerprints[1], "all else is the same, and came from the cache");
    let stats = fs::read_dir(toy.dir.path().join("ccache/cache")).unwrap().count();
    assert!(stats > 0, "the cache was in use");
}

#[tokio::test]
async fn what_the_machine_does_to_a_build_is_infra() {
    let Some((engine, image)) = engine("toy-infra").await else { return };
    let toy = Toy::new();
    let rule = |script: &str| {
        format!("tinyconfig olddefconfig:\n\ttouch $(O)/.config\nvmlinux bzImage:\n\t@{script}\n")
    };
    let cases = [
        ("kill -9 $$$$", Some(InfraClass::Memory)),
        // It says so; the disk that it wrote to has room.
        ("echo 'as: x.o: No space left on device' >&2; false", Some(InfraClass::Limit)),
        (
            "mkdir -p $(O)/arch/x86/boot; ln -s /etc/passwd $(O)/vmlinux; touch $(O)/.config",
            Some(InfraClass::Internal),
        ),
        ("echo '/src/a.c:1:1: error: bad' >&2; false", None),
    ];
    for (index, (script, class)) in cases.into_iter().enumerate() {
        toy.write("Makefile", &rule(script));
        let ended = toy.build(&engine, &image, &format!("objects-{index}"), CancellationToken::new()).await;
        match class {
            Some(class) => {
                assert!(
                    matches!(&ended, Err(Unfinished::Infra(infra)) if infra.class == class),
                    "{script}: {ended:?}"
                );
            }
            None => assert_eq!(ended, Ok(Built::Failed { message: "a.c:1:1: error: bad".into() })),
        }
    }
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert_eq!(toy.build(&engine, &image, "objects", cancel).await, Err(Unfinished::Cancelled));
}

#[tokio::test]
async fn a_trees_own_script_names_maintainers_or_says_why_not() {
    let Some((engine, image)) = engine("maintainers").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let ask = async |script: Option<&str>, patch: Option<&str>, file: Option<&str>| {
        let case = tempfile::tempdir_in(dir.path()).unwrap();
        let (source, work) = (case.path().join("tree"), case.path().join("work"));
        fs::create_dir_all(source.join("scripts")).unwrap();
        fs::create_dir_all(&work).unwrap();
        fs::write(source.join("there.c"), "").unwrap();
        if let Some(script) = script {
            fs::write(source.join("scripts/get_maintainer.pl"), script).unwrap();
        }
        let question = Question {
            source_dir: &source,
            patch,
            file,
            image_id: &image,
            work_dir: &work,
            attempt_label: "test",
        };
        maintainers::ask(&engine, question, CancellationToken::new()).await.unwrap()
    };
    // Says what it was asked, and complains besides.
    let echo =
        "warn 'noise'; my $f = pop; open(my $in, '<', $f) or die; print \"@ARGV $f: \", <$in>, \"\\n\";";
    let said = ask(Some(echo), Some("+++ b/x.c"), Some("there.c")).await;
    let lines: Vec<&str> = said.output.lines().filter(|line| !line.is_empty()).collect();
    let options = "--nogit --nogit-fallback";
    assert_eq!(
        lines,
        [format!("{options} /in/culprit.patch: +++ b/x.c"), format!("{options} -f there.c: ")],
        "{said:?}"
    );
    assert_eq!(said.problem, None);
    // A file that the tree does not have is not asked for.
    assert_eq!(ask(Some(echo), None, Some("gone.c")).await.output, "");

    let died = ask(Some("die 'no module'"), None, Some("there.c")).await.problem.unwrap();
    assert!(died.contains("no module"), "{died}");
    let lacking = ask(None, None, Some("there.c")).await.problem.unwrap();
    assert!(lacking.contains("the tree has no such script"), "{lacking}");
    // What it says of disks is no fault of the agent's.
    let sly = ask(Some("print 'No space left on device'; exit 5"), None, Some("there.c")).await;
    assert!(sly.problem.unwrap().contains("ended with code 5"));
    // One that died leaves what the other said.
    let half = "my $f = pop; die 'half' if $f =~ /patch/; print \"A <a\\@b.c> (maintainer:X)\\n\";";
    let said = ask(Some(half), Some("+++ b/x.c"), Some("there.c")).await;
    assert!(said.output.contains("A <a@b.c> (maintainer:X)"), "{said:?}");
    assert!(said.problem.unwrap().contains("ended with code"));
}
