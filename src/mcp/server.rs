//! The MCP server: its tool, and the files that runs left.

use crate::audit::shortened;
use crate::image::LayerFile;
use crate::limits::BOOT_LIMIT;
use crate::log::say;
use crate::mcp::admission::Refused;
use crate::mcp::artifacts::{COUNT_MAX, SHOWN};
use crate::mcp::cell::Asked;
use crate::mcp::packages::{self, Wanted};
use crate::mcp::progress::{Printed, report};
use crate::mcp::run::{Run, limits};
use crate::mcp::run_end::Ended;
use crate::mcp::sessions::{self, Mismatch};
use crate::mcp::state::Shared;
use crate::mcp::tool::answer;
use crate::mcp::tool::arguments::Arguments;
use crate::mcp::tool::description::{TOOL, instructions, tool};
use crate::mcp::tool::remedies::{OTHER_SESSION, in_words};
use crate::mcp::transport::backpressure::AnswerKind;
use crate::mcp::transport::client::Client;
use crate::mcp::workspace::{Workspace, puts};
use crate::packages::Lock;
use crate::policy::Grant;
use crate::random;
use crate::record::{Failure, Record, Status};
use crate::session::protocol::Request;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, Implementation,
    InitializeRequestParams, InitializeResult, JsonObject, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// The time that a run may take beside its program: another process builds the template and fails,
/// and then this one builds it itself.
const PREPARATION: Duration = BOOT_LIMIT.saturating_mul(2);
/// The bytes that an entry takes in a list of files, beside its names.
const ENTRY: u64 = 256;
/// The time for a client to read earlier answers before it gets the next run's.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The version of the protocol that has batches of messages, which the transports do not take.
const WITH_BATCHES: ProtocolVersion = ProtocolVersion::V_2025_03_26;
/// The message to a caller whose session has a call at work.
const WAITS_FOR_SESSION: &str = "it waits for an earlier call of its session";
/// The server's end of a connection.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn run(
        &self,
        given: Option<JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> CallToolResult {
        let _call = self.shared.calls.more(1);
        let client = Client::of(context);
        let arguments = match Arguments::parse(given, || self.shared.governor.offer()) {
            Ok(arguments) => arguments,
            Err(wrong) => {
                let governor = &self.shared.governor;
                return answer::refusal(governor.refuse_wrong(client.name(), wrong).await);
            }
        };
        match self.run_checked(&client, &arguments, context).await {
            Ok(result) => result,
            Err(refused) => answer::refusal(refused),
        }
    }

    /// Does one run: waits for a place, logs the start, executes it, logs the end, and keeps its
    /// files.
    async fn run_checked(
        &self,
        client: &Client,
        arguments: &Arguments,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, Refused> {
        let governor = &self.shared.governor;
        let wanted = governor.packages(client.name(), arguments).await?;
        let (grant, admitting) = governor.admit(client.name(), arguments).await?;
        let admission = tokio::select! {
            admission = admitting => admission,
            never = report(|| "it waits for its turn".into(), context) => match never {},
            () = client.gone(context) => return Err(cancelled().into()),
        };
        let begun = governor
            .begin(admission, client.name(), arguments, &grant)
            .await?;
        let mut ended = match self.bring(client, wanted, context).await {
            Ok(brought) => {
                self.execute(client, arguments, &grant, brought, context)
                    .await
            }
            Err(failure) => Ended::without_process(failure),
        };
        governor.end(&begun, &mut ended.record, ended.usage).await;
        // The run keeps its place until then, so that few records wait to be read.
        let files = ended.record.files.len().min(COUNT_MAX) as u64;
        let has_room = client.has_room(AnswerKind::Run, ended.size + files * SHOWN, context);
        if timeout(READ_TIMEOUT, has_room).await.is_err() {
            ended = ended.unread();
        }
        begun.leave(ended.usage);
        let Ended {
            record, workspace, ..
        } = ended;
        let (shared, name) = (Arc::clone(&self.shared), Arc::clone(client.name()));
        // There may be many files, so this is done off the runtime's thread.
        let kept = spawn_blocking(move || answer::keep(record, &shared.kept, &name, workspace));
        let (record, files) = kept.await.map_err(|error| Failure {
            message: format!("the server failed to keep the program's files: {error}"),
            remedy: "call again".into(),
        })?;
        Ok(answer::of(&record, files))
    }

    /// Brings the packages that a call may have.
    async fn bring(
        &self,
        client: &Client,
        wanted: Option<Wanted>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<(Lock, LayerFile)>, Failure> {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        let kvm = self.shared.kvm.clone();
        let bringing = spawn_blocking(move || wanted.bring(&kvm));
        let brought = tokio::select! {
            brought = bringing => brought.map_err(anyhow::Error::from),
            never = report(|| "it waits for its packages".into(), context) => match never {},
            () = client.gone(context) => return Err(cancelled()),
        };
        brought
            .and_then(|brought| brought)
            .map(Some)
            .map_err(|error| in_words(packages::failure(&error)))
    }

    /// Runs a process to its end, or until nobody waits for it any more.
    async fn execute(
        &self,
        client: &Client,
        arguments: &Arguments,
        grant: &Grant,
        brought: Option<(Lock, LayerFile)>,
        context: &RequestContext<RoleServer>,
    ) -> Ended {
        let execution = async {
            let (mut printed, output) = match context.meta.get_progress_token() {
                Some(_) => Some(Printed::open()?).unzip(),
                None => (None, None),
            };
            let how_far = || printed.as_mut().map(Printed::so_far).unwrap_or_default();
            let kvm = &self.shared.kvm;
            let (lock, layer) = brought.unzip();
            let directory = self.shared.directory.join(random::unguessable_id()?);
            let workspace = Workspace::create(directory)?;
            let mut run = match &arguments.session {
                Some(session) => {
                    let asked = asked(session, arguments, grant, workspace);
                    let packages = lock.clone().zip(layer);
                    let sessions = Arc::clone(&self.shared.sessions);
                    let name = Arc::clone(client.name());
                    let reserving =
                        sessions.reserve((&name, session), grant.memory, asked.is_alone());
                    let reserved = tokio::select! {
                        reserved = reserving => reserved,
                        never = report(|| WAITS_FOR_SESSION.into(), context) => match never {},
                        () = client.gone(context) => return Ok(Ended::cancelled()),
                    };
                    let its = (name, reserved);
                    Run::in_session(sessions, its, (asked, packages), (grant, kvm), output).await?
                }
                None => Run::start(workspace, (arguments, layer), grant, kvm, output).await?,
            };
            let ended = tokio::select! {
                ended = run.ended() => ended,
                never = report(how_far, context) => match never {},
                () = client.gone(context) => run.end(Record::empty(Status::Cancelled)).await,
                () = overdue(grant) => run.end(unending()).await,
            };
            ended.map(|mut ended| {
                ended.record.advice = self.shared.governor.advice(&ended.record);
                if let Some(lock) = lock {
                    lock.tell(&mut ended.record);
                }
                ended
            })
        };
        execution.await.unwrap_or_else(|error| not_run(&error))
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("sandbox", env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions(&self.shared.governor))
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let known = ProtocolVersion::KNOWN_VERSIONS.iter().cloned();
        known.filter(|version| *version != WITH_BATCHES).collect()
    }

    fn negotiate_initialize(
        &self,
        request: &InitializeRequestParams,
    ) -> Result<InitializeResult, ErrorData> {
        let asked = &request.protocol_version;
        let is_offered =
            asked.has_initialize() && self.supported_protocol_versions().contains(asked);
        let mut info = self.get_info();
        info.protocol_version = match asked {
            asked if is_offered => asked.clone(),
            // Whoever knows it knows the one before.
            asked if *asked == WITH_BATCHES => ProtocolVersion::V_2024_11_05,
            _ => ProtocolVersion::LATEST_WITH_INITIALIZE,
        };
        Ok(info)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![tool(
            &self.shared.governor,
        )]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name != TOOL {
            let name = shortened(&request.name);
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {name}"),
                None,
            ));
        }
        Ok(self.run(request.arguments, &context).await.into())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let client = Client::of(&context);
        let mut files = self.shared.kept.list(client.name());
        let (sessions, name) = (Arc::clone(&self.shared.sessions), Arc::clone(client.name()));
        let there = spawn_blocking(move || sessions.list(&name)).await;
        files.extend(there.unwrap_or_default());
        let bytes = files.iter().map(|file| file.uri.len() + file.name.len());
        let bytes = bytes.map(|bytes| bytes as u64 + ENTRY).sum();
        match client.has_room(AnswerKind::Files, bytes, &context).await {
            true => Ok(ListResourcesResult::with_all_items(files)),
            false => Err(nobody_waits()),
        }
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let client = Client::of(&context);
        let missing = || {
            let uri = shortened(&request.uri);
            ErrorData::resource_not_found(format!("there is no {uri}, or not any more"), None)
        };
        if sessions::is_address(&request.uri) {
            let (shared, name) = (Arc::clone(&self.shared), Arc::clone(client.name()));
            let uri = request.uri.clone();
            let described = spawn_blocking(move || shared.sessions.describe(&name, &uri)).await;
            let contents = described.ok().flatten().ok_or_else(missing)?;
            return Ok(ReadResourceResult::new(vec![contents]).into());
        }
        let find = || self.shared.kept.find(client.name(), &request.uri);
        let size = find().ok_or_else(missing)?.size();
        if !client.has_room(AnswerKind::Files, size, &context).await {
            return Err(nobody_waits());
        }
        // Newer files may have displaced it meanwhile.
        let entry = find().ok_or_else(missing)?;
        let contents = spawn_blocking(move || entry.contents()).await;
        match contents {
            Ok(Ok(contents)) => Ok(ReadResourceResult::new(vec![contents]).into()),
            _ => Err(missing()),
        }
    }
}

/// Returns the cell that a call asks for in this session.
fn asked(session: &str, arguments: &Arguments, grant: &Grant, workspace: Workspace) -> Asked {
    Asked {
        session: session.into(),
        request: Request::Run {
            code: arguments.code.clone(),
            language: Some(arguments.language.clone()),
            context: None,
            stdin: Some(BASE64_STANDARD.encode(&arguments.stdin)),
            timeout_s: grant.timeout.map(|timeout| timeout.as_secs_f64()),
        },
        limits: limits(grant),
        puts: puts(&arguments.files),
        gets: workspace.gets(&arguments.files),
        workspace,
    }
}

/// Returns the end of a run that could not be started. But for a mismatch, the server's log has the reason.
fn not_run(error: &anyhow::Error) -> Ended {
    Ended::without_process(match error.downcast_ref::<Mismatch>() {
        Some(mismatch) => Failure {
            message: mismatch.to_string(),
            remedy: OTHER_SESSION.into(),
        },
        None => {
            say(&format!("{error:#}"));
            Failure {
                message: "the server failed to run the program".into(),
                remedy: "call again; the server's log says why".into(),
            }
        }
    })
}

/// Waits until a run whose process keeps its limits must have ended.
async fn overdue(grant: &Grant) {
    match grant.timeout {
        Some(timeout) => sleep(timeout + PREPARATION).await,
        None => std::future::pending().await,
    }
}

fn unending() -> Record {
    Record {
        error: Some(Failure {
            message: "the process that ran the program did not end at its time limit".into(),
            remedy: "call again; if that happens again, please report it".into(),
        }),
        ..Record::empty(Status::Error)
    }
}

fn nobody_waits() -> ErrorData {
    ErrorData::internal_error("nobody waits for the answer", None)
}

fn cancelled() -> Failure {
    Failure {
        message: "the call was cancelled".into(),
        remedy: "call again".into(),
    }
}
