//! An agent that gets one job after the other on the same connection, from a minimal host.

use crate::common::{Cache, mode};
use crate::machine::run_to_its_end;
use guest::{Decoder, Exit, FileStream, Frame, JobFrame, encode, stream};
use sandbox::internals::devices::Violation;
use sandbox::internals::devices::vsock::Peer;
use sandbox::internals::image::store;
use sandbox::internals::vm::{
    BootImages, Config, End, HypercallHandler, JobLimits, Layer, Vm, allow_kicks, host,
};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The hundredths of a second that all jobs of a test may take together.
const JOBS_TIMEOUT: u32 = 30_000;

/// A job, and the path of a file that it should leave.
struct Order {
    job: JobFrame,
    wanted: Option<&'static str>,
}

/// The result of a job.
#[derive(Debug, PartialEq)]
struct Ran {
    output: String,
    /// The records, as the agent sends them.
    files: Vec<u8>,
    exit: Option<Exit>,
}

/// A host that gives an agent its jobs, each when the previous one is over.
struct Bench {
    stop: Arc<AtomicBool>,
    decoder: Decoder,
    outgoing: VecDeque<u8>,
    orders: VecDeque<Order>,
    wanted: Option<&'static str>,
    files: FileStream,
    ran: Vec<Ran>,
    is_over: bool,
}

impl Bench {
    fn new(stop: Arc<AtomicBool>, orders: Vec<Order>, files: Vec<guest::File>) -> Self {
        Self {
            stop,
            decoder: Decoder::with_limit(guest::MAX_PAYLOAD),
            outgoing: VecDeque::new(),
            orders: orders.into(),
            wanted: None,
            files: FileStream::new(files),
            ran: Vec::new(),
            is_over: false,
        }
    }

    fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        self.outgoing.extend(bytes);
    }

    fn give_next(&mut self) {
        let Some(order) = self.orders.pop_front() else {
            self.is_over = true;
            return;
        };
        self.wanted = order.wanted;
        self.ran.push(Ran {
            output: String::new(),
            files: Vec::new(),
            exit: None,
        });
        self.send(&Frame::Start(order.job));
        self.send(&Frame::StdinEnd);
    }

    fn last(&mut self) -> &mut Ran {
        self.ran.last_mut().expect("a job")
    }
}

impl Peer for Bench {
    fn connected(&mut self) {}

    fn disconnected(&mut self) {
        self.is_over = true;
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.decoder.push(bytes);
        while let Some(frame) = self.decoder.next_frame()? {
            match frame {
                Frame::Ready => self.give_next(),
                Frame::Exit(exit) => {
                    self.last().exit = Some(exit);
                    self.files = FileStream::new(Vec::new());
                    match self.wanted {
                        Some(path) => self.send(&Frame::Collect(vec![path.into()])),
                        None => self.give_next(),
                    }
                }
                Frame::Collected => self.give_next(),
                other => return Err(Violation(format!("{other:?}"))),
            }
        }
        Ok(())
    }

    fn transmit(&mut self, room: usize) -> Vec<u8> {
        let count = room.min(self.outgoing.len());
        self.outgoing.drain(..count).collect()
    }

    fn is_done(&self) -> bool {
        self.is_over || self.stop.load(Ordering::Acquire)
    }
}

impl HypercallHandler for Bench {
    fn output(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Violation> {
        match stream {
            stream::FILES => self.last().files.extend(bytes),
            stream::STDOUT | stream::STDERR => {
                let text = String::from_utf8_lossy(bytes);
                self.last().output.push_str(&text);
            }
            _ => {}
        }
        Ok(())
    }

    fn job(&mut self, _: usize) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn limits(&self) -> JobLimits {
        JobLimits {
            withheld: 0,
            pids: 100,
        }
    }

    fn files(&mut self, room: usize) -> Vec<u8> {
        self.files.take(room)
    }

    fn no_files(&mut self, _: u8) {}

    fn exited(&mut self, _: u8) {}

    fn wants_stdin(&mut self) {}

    fn input(&mut self, _: usize) -> Vec<u8> {
        Vec::new()
    }

    fn has_begun(&self) -> bool {
        true
    }
}

/// Opens the runtime image in the cache that the tests share.
fn runtime() -> File {
    let directory = Cache::shared().0.path().join("sandbox");
    let paths = fs::read_dir(directory).unwrap();
    let mut paths = paths.map(|entry| entry.unwrap().path());
    let image = paths.find(|path| path.extension() == Some("erofs".as_ref()));
    File::open(image.expect("a runtime image")).unwrap()
}

/// Runs the orders in one machine.
fn run(orders: Vec<Order>) -> Vec<Ran> {
    run_with(orders, &[], Vec::new())
}

/// Runs the orders in one machine whose windows show these layers, with these files.
fn run_with(orders: Vec<Order>, layers: &[Layer], files: Vec<guest::File>) -> Vec<Ran> {
    allow_kicks().unwrap();
    let kvm = host::open(Path::new("/dev/kvm")).expect("these tests need KVM");
    let stop = Arc::new(AtomicBool::new(false));
    let config = Config {
        memory: 128 << 20,
        runtime: runtime(),
        layers,
        images: BootImages {
            kernel: &store::kernel().unwrap(),
            agent: store::AGENT,
        },
        console: None,
    };
    let bench = Bench::new(Arc::clone(&stop), orders, files);
    let vm = Vm::boot(&kvm, mode(), config, bench).unwrap();
    let (vm, end) = run_to_its_end(vm, &stop, JOBS_TIMEOUT);
    let console = String::from_utf8_lossy(&vm.console()).into_owned();
    assert_eq!(end, End::Done, "{console}");
    let bench = vm.into_host();
    assert!(bench.orders.is_empty(), "{:?}\n{console}", bench.ran);
    bench.ran
}

fn order(argv: &[&str]) -> Order {
    let job = JobFrame {
        argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/bin:/bin".to_vec()],
        pids_limit: 10,
        user: guest::USER,
        group: guest::USER,
        has_own_root: false,
        workdir: guest::WORKDIR.into(),
        terminal: None,
    };
    Order { job, wanted: None }
}

fn ran(output: &str, exit: Exit) -> Ran {
    Ran {
        output: output.into(),
        files: Vec::new(),
        exit: Some(exit),
    }
}

fn signaled(out_of_memory: bool) -> Exit {
    Exit::Signaled {
        signal: 9,
        out_of_memory,
    }
}

#[test]
fn an_agent_takes_a_second_job_when_nothing_of_the_first_is_left_running() {
    let first = "python3 -c 'import os, time; os.setsid(); time.sleep(1000)' &
        echo $! >left; [ -d /proc/$! ] && echo first runs on; exit 3";
    let second =
        "read -r pid <left; [ -d /proc/$pid ] && echo first still runs; echo second; exit 4";
    let kept = Order {
        wanted: Some("/work/left"),
        ..order(&["bash", "-c", first])
    };
    let [first, second] = run(vec![kept, order(&["bash", "-c", second])])
        .try_into()
        .unwrap();
    assert_eq!(
        (first.output.as_str(), first.exit),
        ("first runs on\n", Some(Exit::Exited(3)))
    );
    assert!(first.files.starts_with(&[1, 0, 0, 0]), "{:?}", first.files);
    assert_eq!(second, ran("second\n", Exit::Exited(4)));
}

#[test]
fn a_job_that_failed_says_nothing_of_the_next_one() {
    let greedy = "a = []\nwhile True: a.append(bytearray(1 << 20))";
    let orders = vec![
        order(&["python3", "-c", greedy]),
        order(&["/no/such/program"]),
        order(&["bash", "-c", "kill -KILL $$"]),
        order(&["bash", "-c", "echo fourth"]),
    ];
    let expected = [
        ran("", signaled(true)),
        ran("", Exit::NotStarted(libc::ENOENT as u8)),
        ran("", signaled(false)),
        ran("fourth\n", Exit::Exited(0)),
    ];
    assert_eq!(run(orders), expected);
}

#[test]
fn layers_are_mounted_where_they_belong_and_cannot_be_written_to() {
    // Any file system will do: the image's own.
    let layers: Vec<_> = (0..2).map(|_| Layer::of_file(runtime()).unwrap()).collect();
    let mounts = ["/usr/local/lib", "/work/deep/er"].into_iter().enumerate();
    let files: Vec<_> = mounts
        .flat_map(|(window, path)| {
            let directory = guest::File {
                path: path.into(),
                mode: guest::kind::DIRECTORY | 0o755,
                ..Default::default()
            };
            [directory, guest::File::layer(path.into(), window)]
        })
        .collect();
    let code = "for d in /usr/local/lib /work/deep/er; do cmp /usr/bin/bash $d/usr/bin/bash && cat $d/etc/hostname
        touch $d/etc/x 2>&1 | grep -c Read-only; done";
    let mut order = order(&["bash", "-c", code]);
    (order.job.user, order.job.group) = (0, 0);
    let ran = run_with(vec![order], &layers, files);
    assert_eq!(ran[0].output, "sandbox\n1\nsandbox\n1\n");
}
