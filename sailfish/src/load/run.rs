//! A run from the outside: starts the load processes, leads them through it, and reports.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, bail};
use engine::Clock;
use indicatif::{ProgressBar, ProgressStyle};
use loadgen::{GeneratorUse, Mail, Progress, Report, RoomEnd, Run, Scenario, ServerUse, Tally, Word, render};
use shard::Instant;

use super::chaos::Chaos;
use super::cost::Meter;
use super::settings::Settings;
use super::stopped::Stopped;
use super::worker::Order;
use crate::secret::Secret;

/// The time from the start order to operation 0: every process has read the order by then.
const HEAD_START: Duration = Duration::from_millis(300);
/// How long to wait for a message before looking at the clock again.
const LOOK: Duration = Duration::from_millis(20);

/// The result of checking a backend's ledger after a run, a line each.
#[derive(Default)]
pub(super) struct Audit {
    /// The sums that were compared.
    pub(super) sums: Vec<String>,
    /// What is wrong with them.
    pub(super) faults: Vec<String>,
}

/// Runs the load. The exit code says whether it passed. `books` checks the backend's ledger after the run.
pub(super) fn run(
    settings: &Settings,
    secret: &Secret,
    books: impl FnOnce(&Tally) -> anyhow::Result<Audit>,
) -> anyhow::Result<ExitCode> {
    let meter = Meter::new(&settings.server_pids)?;
    let json = settings.json.as_deref().map(create).transpose()?;
    announce(settings);
    let mut conductor = Conductor::start(settings, secret)?;
    let rss_before = meter.as_ref().map(Meter::rss_bytes).transpose()?;
    let storm_cpu = meter.as_ref().map(Meter::cpu_us).transpose()?;

    let begun = conductor.clock.now();
    conductor.tell(&Mail::Begin { at_ns: begun.unix_nanos() })?;
    conductor.wait(Stage::Connecting, |word| matches!(word, Word::Settled(_)), |_, _| Ok(None))?;
    let connected_cpu = meter.as_ref().map(Meter::cpu_us).transpose()?;
    let stopped = Stopped::start(settings, secret)?;
    let rss_after = meter.as_ref().map(Meter::rss_bytes).transpose()?;

    let plan = &settings.plans[0];
    let start = conductor.clock.now() + HEAD_START;
    let from = start + Duration::from_nanos(plan.warmup_ns);
    let until = plan.measure_ns.map(|measure_ns| from + Duration::from_nanos(measure_ns));
    let load_pids: Vec<u32> = conductor.children.iter().map(Child::id).collect();
    let load_meter = Meter::new(&load_pids)?;
    let mut window = Window::new(from, until);
    let mut load_window = Window::new(from, until);
    let mut chaos = match settings.restarts.as_slice() {
        [] => Chaos::new(start, &settings.strikes),
        commands => Chaos::rolling(from, commands, settings.stay, conductor.connections),
    };
    let mut rooms = Vec::new();
    // Without ready clients, the rest would be waiting for nothing.
    if conductor.sum().ready > 0 {
        conductor.tell(&Mail::Start { at_ns: start.unix_nanos() })?;
        let words = conductor.wait(
            Stage::Running { start, until },
            |word| matches!(word, Word::Sent { .. }),
            |now, progress| {
                window.look(now, meter.as_ref())?;
                load_window.look(now, load_meter.as_ref())?;
                let is_over = chaos.look(now, progress);
                Ok(is_over.then(|| {
                    load_window.stop(now);
                    Mail::Stop { at_ns: window.stop(now).unix_nanos() }
                }))
            },
        )?;
        rooms = room_ends(words);
    }
    if plan.scenario == Scenario::Storm {
        window.at_from = storm_cpu;
        window.at_until = meter.as_ref().map(Meter::cpu_us).transpose()?;
    }
    let mut failures = chaos.end(|| conductor.clock.now());
    conductor.tell(&Mail::Expect { rooms })?;
    let words = conductor.wait(Stage::Draining, |word| matches!(word, Word::Done(_)), |_, _| Ok(None))?;
    let mut tally = Tally::default();
    for word in words {
        if let Word::Done(one) = word {
            tally.merge(&one);
        }
    }
    conductor.end();
    let Audit { sums, faults } = books(&tally)?;
    failures.extend(faults);
    let server = window.cpu_us().zip(rss_before.zip(rss_after)).map(|(cpu_us, (before, after))| ServerUse {
        cpu_us,
        connect_cpu_us: connected_cpu.zip(storm_cpu).map_or(0.0, |(after, before)| after - before),
        rss_bytes: after - before,
    });
    let until = window.until.unwrap_or(from);
    let figures = Run {
        scenario: settings.scenario,
        connections: u64::from(settings.connections()),
        rate: settings.rate,
        seconds: until.since(from).as_secs_f64(),
        begun_ns: begun.unix_nanos(),
        reset_ns: (plan.scenario == Scenario::Storm).then_some(until.unix_nanos()),
        faults_made: settings.makes_faults(),
        stopped_readers: stopped.end(),
        server,
        generator: GeneratorUse {
            cpu_us: load_window.cpu_us().unwrap_or_default(),
            processes: load_pids.len(),
        },
    };
    report(Report::new(&figures, tally), json, &sums, &failures)
}

fn announce(settings: &Settings) {
    let plan = &settings.plans[0];
    let targets: Vec<_> = settings.addresses.iter().map(ToString::to_string).collect();
    let mut line = format!(
        "{}: {} connections to {}",
        settings.scenario.name(),
        settings.connections(),
        targets.join(", ")
    );
    if settings.rate > 0.0 {
        line += &format!(", {} a second", settings.rate);
    }
    line += &match plan.measure_ns {
        Some(measure_ns) => format!(" for {} s", measure_ns as f64 / 1e9),
        None => format!(" during {} restarts", settings.restarts.len()),
    };
    if matches!(plan.scenario, Scenario::Chat | Scenario::Room) {
        line += &format!(", {} bytes each", plan.payload_bytes);
    }
    if settings.plans.len() > 1 {
        line += &format!(", from {} processes", settings.plans.len());
    }
    for remark in &settings.remarks {
        line += &format!("\n  {remark}");
    }
    crate::cli::print(&format!("{line}\n\n"));
}

fn report(
    report: Report,
    json: Option<File>,
    sums: &[String],
    failures: &[String],
) -> anyhow::Result<ExitCode> {
    if let Some(mut file) = json {
        serde_json::to_writer_pretty(&mut file, &report).context("--json")?;
        file.write_all(b"\n").context("--json")?;
    }
    let mut text = render(&report);
    for (at, sum) in sums.iter().enumerate() {
        text += &format!(
            "{}  {:<12}  {sum}\n",
            if at == 0 { "\n" } else { "" },
            if at == 0 { "books" } else { "" }
        );
    }
    crate::cli::print(&text);
    for failure in failures {
        crate::cli::complain(failure);
    }
    let passed = report.passed() && failures.is_empty();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Called before the run, so that no run is lost because its report cannot be written.
fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("--json {}", path.display()))
}

/// The rooms that all processes reported.
fn room_ends(words: Vec<Word>) -> Vec<RoomEnd> {
    let ends = words.into_iter().map(|word| match word {
        Word::Sent { rooms } => rooms,
        _ => Vec::new(),
    });
    ends.flatten().collect()
}

/// The CPU time of the server's processes at both ends of the measured time.
struct Window {
    from: Instant,
    /// `None` until the end is known.
    until: Option<Instant>,
    at_from: Option<f64>,
    at_until: Option<f64>,
}

impl Window {
    fn new(from: Instant, until: Option<Instant>) -> Self {
        Self { from, until, at_from: None, at_until: None }
    }

    fn look(&mut self, now: Instant, meter: Option<&Meter<'_>>) -> anyhow::Result<()> {
        let Some(meter) = meter else { return Ok(()) };
        if self.at_from.is_none() && now >= self.from {
            self.at_from = Some(meter.cpu_us()?);
        }
        if self.at_until.is_none() && self.until.is_some_and(|until| now >= until) {
            self.at_until = Some(meter.cpu_us()?);
        }
        Ok(())
    }

    /// Notes that the end has come. Returns its time.
    fn stop(&mut self, now: Instant) -> Instant {
        *self.until.insert(now + HEAD_START)
    }

    fn cpu_us(&self) -> Option<f64> {
        Some(self.at_until? - self.at_from?)
    }
}

/// What the progress bar shows.
enum Stage {
    Connecting,
    Running { start: Instant, until: Option<Instant> },
    Draining,
}

/// The load processes, and the messages with them.
struct Conductor {
    clock: Clock,
    children: Vec<Child>,
    inputs: Vec<ChildStdin>,
    words: Receiver<(usize, Option<Word>)>,
    progress: Vec<Progress>,
    connections: u32,
    bar: ProgressBar,
}

impl Conductor {
    fn start(settings: &Settings, secret: &Secret) -> anyhow::Result<Self> {
        let (speaker, words) = channel();
        let mut conductor = Self {
            clock: Clock::start(),
            children: Vec::new(),
            inputs: Vec::new(),
            words,
            progress: vec![Progress::default(); settings.plans.len()],
            connections: settings.plans.iter().map(|plan| plan.clients).sum(),
            bar: ProgressBar::new(1),
        };
        for (i, plan) in settings.plans.iter().enumerate() {
            let order = Order {
                plan: plan.clone(),
                secret: secret.bytes.clone(),
                clock_offset_ns: conductor.clock.offset(),
                addresses: settings.addresses.iter().map(ToString::to_string).collect(),
                trust: settings.trust.clone(),
                resumes: settings.resumes,
                engine: settings.engine.map_or("auto".to_owned(), |kind| kind.to_string()),
                core: (!settings.cores.is_empty()).then(|| settings.cores[i % settings.cores.len()]),
            };
            conductor.spawn(i, &order, speaker.clone())?;
        }
        Ok(conductor)
    }

    fn spawn(
        &mut self,
        number: usize,
        order: &Order,
        speaker: Sender<(usize, Option<Word>)>,
    ) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("the own program")?;
        let mut child = Command::new(program)
            .arg("load-worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a load process")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        self.children.push(child);
        let (mut input, output) = input.zip(output).context("both are piped")?;
        say(&mut input, order)?;
        self.inputs.push(input);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // A line that is no message is an error's text on the wrong stream: the exit code will tell.
                let Ok(word) = serde_json::from_str(&line) else { continue };
                let is_last = matches!(word, Word::Done(_));
                if speaker.send((number, Some(word))).is_err() || is_last {
                    return;
                }
            }
            let _ = speaker.send((number, None)); // nobody listens at the end
        });
        Ok(())
    }

    fn tell(&mut self, mail: &Mail) -> anyhow::Result<()> {
        self.inputs.iter_mut().try_for_each(|input| say(input, mail))
    }

    /// Waits until every process has reported `wanted`. Meanwhile `look` gets the time and the progress of
    /// all, and may send them something.
    fn wait(
        &mut self,
        stage: Stage,
        wanted: impl Fn(&Word) -> bool,
        mut look: impl FnMut(Instant, Progress) -> anyhow::Result<Option<Mail>>,
    ) -> anyhow::Result<Vec<Word>> {
        self.style(&stage);
        let mut found = Vec::new();
        while found.len() < self.children.len() {
            let word = self.words.recv_timeout(LOOK).ok();
            let now = self.clock.now();
            if let Some(mail) = look(now, self.sum())? {
                self.tell(&mail)?;
            }
            match word {
                Some((number, Some(word))) => {
                    if let Word::Progress(progress) | Word::Settled(progress) = &word {
                        self.progress[number] = *progress;
                    }
                    if wanted(&word) {
                        found.push(word);
                    }
                }
                Some((number, None)) => bail!("load process {number} ended before its work: see above"),
                None => {}
            }
            self.show(&stage, now);
        }
        self.bar.finish_and_clear();
        Ok(found)
    }

    fn style(&mut self, stage: &Stage) {
        let (length, template) = match stage {
            Stage::Connecting => (u64::from(self.connections), "connecting {bar:40} {pos}/{len} {msg}"),
            Stage::Running { start, until: Some(until) } => {
                (until.since(*start).as_millis() as u64, "running    {bar:40} {msg}")
            }
            Stage::Running { until: None, .. } => (1, "running    {msg} {spinner}"),
            Stage::Draining => (1, "waiting for the last {spinner}"),
        };
        let style = ProgressStyle::with_template(template).expect("the templates are right");
        self.bar = ProgressBar::new(length).with_style(style);
    }

    /// The progress of all together.
    fn sum(&self) -> Progress {
        self.progress.iter().fold(Progress::default(), |sum, one| Progress {
            ready: sum.ready + one.ready,
            failed: sum.failed + one.failed,
            sent: sum.sent + one.sent,
            done: sum.done + one.done,
        })
    }

    fn show(&self, stage: &Stage, now: Instant) {
        let all = self.sum();
        match stage {
            Stage::Connecting => {
                self.bar.set_position(u64::from(all.ready));
                if all.failed > 0 {
                    self.bar.set_message(format!("{} failed", all.failed));
                }
            }
            Stage::Running { start, .. } => {
                self.bar.set_position(now.since(*start).as_millis() as u64);
                self.bar.set_message(format!("{} sent, {} arrived", all.sent, all.done));
            }
            Stage::Draining => self.bar.tick(),
        }
    }

    /// Ends the processes, which end with their stdin.
    fn end(mut self) {
        self.inputs.clear();
        for mut child in std::mem::take(&mut self.children) {
            let _ = child.wait(); // they have said all that counts
        }
    }
}

impl Drop for Conductor {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill(); // one that ended by itself cannot be killed
            let _ = child.wait();
        }
    }
}

fn say(input: &mut ChildStdin, word: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let said: io::Result<()> = input.write_all(&line).and_then(|()| input.flush());
    said.context("a load process does not listen: see above")
}
