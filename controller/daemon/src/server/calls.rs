//! The calls of the API: convert the request, call the engine or a reader, convert the answer.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};
use wardline_datapath::observe;
use wardline_policy::{
    quarantine::Whom,
    words::{mac::Mac, problem::Problem},
};
use wardline_proto::{
    time::to_proto,
    v1::{self, segmentation_server::Segmentation},
};

use super::{
    convert::{edit, explained, question},
    mud::Asked,
    sheet::{Sheet, adopted},
    view::View,
};
use crate::{
    access::{
        audit::{Audit, Entry},
        roles::{Caller, Revisions},
    },
    engine::{
        Engine,
        grants::Granted,
        refusal::Refusal,
        terms::{Applied, Author, Terms},
    },
    thread::{Handle, Stopped},
};

/// Most problems that are reported for one document; this many fit the headers that clients accept.
const MOST_PROBLEMS: usize = 200;

/// The parts of the daemon that calls use.
#[derive(Clone)]
pub struct Service {
    /// The engine, for changes.
    pub engine: Handle,
    /// The state, for reading.
    pub view: View,
    /// The audit.
    pub audit: Audit,
}

impl Service {
    /// Makes a change in the engine, after the interfaces were listed again.
    async fn change(
        &self,
        change: impl FnOnce(&mut Engine) -> Result<Applied, Refusal> + Send + 'static,
    ) -> Answer<v1::ChangeResponse> {
        self.look_around().await?;
        let applied = self.engine.call(change).await??;
        Ok(changed(applied))
    }

    /// Lists the interfaces again, so that one which appeared a moment ago is guarded when the
    /// answer says so, not soon after.
    async fn look_around(&self) -> Result<(), Status> {
        match observe::observe().await {
            Ok(inventory) => Ok(self
                .engine
                .call(|engine| engine.catch_up(inventory))
                .await??),
            // The previous list suffices, because a change must not wait for this.
            Err(error) => {
                tracing::warn!(%error, "can't see what interfaces there are");
                Ok(())
            }
        }
    }
}

/// Most bytes of a change's reason. Each is kept in the history and in the audit.
const LONGEST_REASON: usize = 1024;

/// The author of a change: the caller and its reason, which the audit records too.
fn author<T>(request: &Request<T>, kind: &'static str, reason: &str) -> Result<Author, Status> {
    let caller = caller(request)?;
    if reason.len() > LONGEST_REASON {
        let problem = Problem {
            path: "reason".to_owned(),
            message: format!("has {} bytes; at most {LONGEST_REASON}", reason.len()),
        };
        let message = "the reason is too long".to_owned();
        return Err(violations(Code::InvalidArgument, message, vec![problem]));
    }
    let _ = caller.reason.set(reason.to_owned());
    Ok(Author {
        actor: caller.peer.actor.clone(),
        reason: reason.to_owned(),
        request_id: caller.request_id.clone(),
        kind,
    })
}

fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    let caller = request.extensions().get();
    caller.ok_or_else(|| Status::unauthenticated("no peer identity on this connection"))
}

/// The answer to a change. The audit reads the revisions before and after from it.
fn changed(applied: Applied) -> Response<v1::ChangeResponse> {
    let revisions = Revisions {
        before: applied.parent,
        after: applied.revision,
    };
    let mut response = Response::new(v1::ChangeResponse {
        revision: applied.revision,
        confirm_by: applied.confirm_by.map(to_proto),
        warnings: applied.warnings,
        unchanged: applied.unchanged,
        ..v1::ChangeResponse::default()
    });
    response.extensions_mut().insert(revisions);
    response
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Invalid(problems) => violations(Code::InvalidArgument, message, problems),
            Refusal::TooLarge(problems) => violations(Code::ResourceExhausted, message, problems),
            Refusal::Stale { .. } => Self::aborted(message),
            Refusal::Missing(problems) => violations(Code::NotFound, message, problems),
            Refusal::Used(problems) => violations(Code::FailedPrecondition, message, problems),
            Refusal::NoRevision(_) | Refusal::NotKept(_) | Refusal::NotGuarded { .. } => {
                Self::not_found(message)
            }
            Refusal::NothingBefore(_)
            | Refusal::Pending { .. }
            | Refusal::NothingPending
            | Refusal::OtherPending { .. }
            | Refusal::OldConnection(_)
            | Refusal::NotInQuarantine(_)
            | Refusal::QuarantineFull(_)
            | Refusal::NoPolicy(_)
            | Refusal::NoGrant(_) => Self::failed_precondition(message),
            Refusal::Unwanted => Self::cancelled(message),
            // It may succeed later, with the same request.
            Refusal::Store(_) => Self::unavailable(message),
            Refusal::Datapath(_) => Self::internal(message),
        }
    }
}

/// Whom a call is about: a device or a port.
fn whom(device: String, port: String) -> Result<Whom, Status> {
    match (device.is_empty(), port.is_empty()) {
        (_, true) => Ok(Whom::Device(device)),
        (true, false) => Ok(Whom::Port(port)),
        (false, false) => {
            let message = "name a device or a port, one of the two";
            Err(Status::invalid_argument(message))
        }
    }
}

/// The conditions of a change of the document.
fn terms(base: u64, confirm_within_s: u32) -> Terms {
    let within = Duration::from_secs(confirm_within_s.into());
    Terms {
        base,
        confirm_within: (confirm_within_s != 0).then_some(within),
    }
}

/// A refusal with one violation for each problem.
pub(super) fn violations(code: Code, message: String, problems: Vec<Problem>) -> Status {
    // Many clients show nothing but the message.
    let message = match &problems[..] {
        [first, rest @ ..] if !message.contains(&first.path) => {
            let more = match rest.len() {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            format!("{message}: {}: {}{more}", first.path, first.message)
        }
        _ => message,
    };
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    let mut violations: Vec<FieldViolation> = problems
        .into_iter()
        .take(MOST_PROBLEMS)
        .map(|problem| FieldViolation::new(problem.path, problem.message))
        .collect();
    if more != 0 {
        violations.push(FieldViolation::new("", format!("and {more} more problems")));
    }
    Status::with_error_details(code, message, ErrorDetails::with_bad_request(violations))
}

/// The table of a request.
fn sheet(devices: &v1::DevicesCsv) -> Result<Sheet, Status> {
    Sheet::read(devices).map_err(|problems| {
        let message = format!("the table has {} problems", problems.len());
        violations(Code::InvalidArgument, message, problems)
    })
}

/// The document that a request must have.
fn required(policy: Option<v1::Policy>) -> Result<v1::Policy, Status> {
    policy.ok_or_else(|| {
        let problem = Problem {
            path: "policy".to_owned(),
            message: "is missing".to_owned(),
        };
        let message = "the document has problems".to_owned();
        violations(Code::InvalidArgument, message, vec![problem])
    })
}

pub(super) type Answer<T> = Result<Response<T>, Status>;
pub(super) type Many<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Segmentation for Service {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Answer<v1::GetStatusResponse> {
        let status = self.view.read(|view| {
            let interfaces = view.interfaces();
            Ok(v1::GetStatusResponse {
                interfaces,
                ..view.status()?
            })
        });
        Ok(Response::new(status.await?))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::PlanResponse> {
        let v1::PlanRequest {
            policy,
            put,
            delete,
            devices,
        } = request.into_inner();
        if let Some(devices) = devices {
            if policy.is_some() || put.is_some() || !delete.is_empty() {
                let message = "a plan is of a document, of an edit or of a table, one of them";
                return Err(Status::invalid_argument(message));
            }
            let sheet = sheet(&devices)?;
            let plan =
                move |view: &View, wanted: &dyn Fn() -> bool| view.plan_sheet(&sheet, wanted);
            let planned = self.view.read_in(&self.view.plans, plan).await?;
            return Ok(Response::new(planned));
        }
        let is_edit = put.is_some() || !delete.is_empty();
        if policy.is_some() && is_edit {
            let message = "a plan is of a document or of an edit, one of the two";
            return Err(Status::invalid_argument(message));
        }
        let planned = if is_edit {
            let edit = edit(v1::EditRequest {
                put,
                delete,
                ..v1::EditRequest::default()
            });
            let plan = move |view: &View, wanted: &dyn Fn() -> bool| view.plan_edit(&edit, wanted);
            self.view.read_in(&self.view.plans, plan).await?
        } else {
            let policy = required(policy)?;
            let plan = move |view: &View, wanted: &dyn Fn() -> bool| view.plan(policy, wanted);
            self.view.read_in(&self.view.plans, plan).await?
        };
        Ok(Response::new(planned))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "apply", &request.get_ref().reason)?;
        let request = request.into_inner();
        let terms = terms(request.base, request.confirm_within_s);
        let policy = Arc::new(required(request.policy)?);
        // Not in the engine, so that nothing there waits for it.
        let compiled = self.view.compile(Arc::clone(&policy)).await?;
        self.change(move |engine| engine.apply(policy, compiled, &terms, &author))
            .await
    }

    async fn edit(&self, request: Request<v1::EditRequest>) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "edit", &request.get_ref().reason)?;
        let request = request.into_inner();
        let terms = terms(request.base, request.confirm_within_s);
        let edit = edit(request);
        self.change(move |engine| engine.edit(edit, &terms, &author))
            .await
    }

    async fn rename(&self, request: Request<v1::RenameRequest>) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "rename", &request.get_ref().reason)?;
        let request = request.into_inner();
        let terms = terms(request.base, request.confirm_within_s);
        self.change(move |engine| {
            engine.rename(&request.object, &request.new_name, &terms, &author)
        })
        .await
    }

    async fn confirm(&self, request: Request<v1::ConfirmRequest>) -> Answer<v1::ChangeResponse> {
        let arrived = caller(&request)?.peer.since;
        let revision = match request.into_inner().revision {
            0 => return Err(Status::invalid_argument("name the revision to confirm")),
            revision => revision,
        };
        let applied = self
            .engine
            .call(move |engine| engine.confirm(revision, arrived))
            .await??;
        Ok(changed(applied))
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "rollback", &request.get_ref().reason)?;
        let revision = request.into_inner().revision;
        self.change(move |engine| engine.rollback(revision, &author))
            .await
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Answer<v1::GetPolicyResponse> {
        let v1::GetPolicyRequest { revision, diff } = request.into_inner();
        let read = self.view.read_in(&self.view.documents, move |view, _| {
            view.policy(revision, diff)
        });
        Ok(Response::new(read.await?))
    }

    async fn list_revisions(
        &self,
        request: Request<v1::ListRevisionsRequest>,
    ) -> Answer<v1::ListRevisionsResponse> {
        let limit = match request.into_inner().limit {
            0 => 100,
            limit => limit,
        };
        let revisions = self.view.read(move |view| view.revisions(limit)).await?;
        Ok(Response::new(v1::ListRevisionsResponse { revisions }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        let question = question(request.into_inner());
        let answer = self.view.read(move |view| view.explain(&question)).await?;
        let answer = answer.map(|answer| Response::new(explained(answer)));
        answer.map_err(|problems| {
            let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
            violations(Code::InvalidArgument, message.join("; "), problems)
        })
    }

    async fn explain_drops(
        &self,
        request: Request<v1::ExplainDropsRequest>,
    ) -> Answer<v1::ExplainDropsResponse> {
        let response = self.view.explain_drops(request.into_inner()).await?;
        Ok(Response::new(response))
    }

    // A quarantine does not wait until interfaces are listed.
    async fn quarantine(
        &self,
        request: Request<v1::QuarantineRequest>,
    ) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "quarantine", &request.get_ref().reason)?;
        let v1::QuarantineRequest { device, port, .. } = request.into_inner();
        let whom = whom(device, port)?;
        let applied = self
            .engine
            .call(move |engine| engine.set_quarantine(&whom, true, &author))
            .await??;
        Ok(changed(applied))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "release", &request.get_ref().reason)?;
        let v1::ReleaseRequest { device, port, .. } = request.into_inner();
        let whom = whom(device, port)?;
        let applied = self
            .engine
            .call(move |engine| engine.set_quarantine(&whom, false, &author))
            .await??;
        Ok(changed(applied))
    }

    async fn grant(&self, request: Request<v1::GrantRequest>) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "grant", &request.get_ref().reason)?;
        let request = request.into_inner();
        self.look_around().await?;
        let Granted {
            applied,
            name,
            expires,
        } = self
            .engine
            .call(move |engine| engine.grant(request.into(), &author))
            .await??;
        let mut response = changed(applied);
        response.get_mut().name = name;
        response.get_mut().expires = Some(to_proto(expires));
        Ok(response)
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "revoke", &request.get_ref().reason)?;
        let name = request.into_inner().name;
        self.change(move |engine| engine.revoke(&name, &author))
            .await
    }

    async fn list_devices(
        &self,
        _: Request<v1::ListDevicesRequest>,
    ) -> Answer<v1::ListDevicesResponse> {
        let devices = self.view.read(View::devices).await?;
        Ok(Response::new(v1::ListDevicesResponse { devices }))
    }

    async fn list_unknown(
        &self,
        _: Request<v1::ListUnknownRequest>,
    ) -> Answer<v1::ListUnknownResponse> {
        let unknown = self.view.read(View::unknown).await?;
        Ok(Response::new(v1::ListUnknownResponse { unknown }))
    }

    async fn adopt_device(
        &self,
        request: Request<v1::AdoptDeviceRequest>,
    ) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "adopt", &request.get_ref().reason)?;
        let request = request.into_inner();
        let terms = terms(request.base, request.confirm_within_s);
        let mac = Mac::of_any(&request.mac).map_err(|error| {
            let problem = Problem {
                path: "mac".to_owned(),
                message: format!("{:?} is {error}", request.mac),
            };
            violations(
                Code::InvalidArgument,
                "the MAC can't be read".to_owned(),
                vec![problem],
            )
        })?;
        let device = v1::Device {
            name: request.name,
            zone: request.zone,
            macs: vec![mac.to_string()],
            port: request.port,
            ..v1::Device::default()
        };
        let make = move |policy: &v1::Policy| adopted(policy, device);
        self.change(move |engine| engine.edit_by(make, &terms, &author))
            .await
    }

    async fn import_devices(
        &self,
        request: Request<v1::ImportDevicesRequest>,
    ) -> Answer<v1::ChangeResponse> {
        let author = author(&request, "import", &request.get_ref().reason)?;
        let request = request.into_inner();
        let terms = terms(request.base, request.confirm_within_s);
        let sheet = sheet(&request.devices.unwrap_or_default())?;
        self.change(move |engine| {
            let make = |policy: &v1::Policy| Ok(sheet.edit(policy));
            let mut applied = engine
                .edit_by(make, &terms, &author)
                .map_err(|refusal| sheet.refused(refusal))?;
            applied.warnings.extend(sheet.warnings.iter().cloned());
            Ok(applied)
        })
        .await
    }

    async fn list_interfaces(
        &self,
        _: Request<v1::ListInterfacesRequest>,
    ) -> Answer<v1::ListInterfacesResponse> {
        let interfaces = self.view.read(|view| Ok(view.interfaces())).await?;
        Ok(Response::new(v1::ListInterfacesResponse { interfaces }))
    }

    async fn list_names(&self, _: Request<v1::ListNamesRequest>) -> Answer<v1::ListNamesResponse> {
        let names = self.view.read(View::names).await?;
        Ok(Response::new(v1::ListNamesResponse { names }))
    }

    async fn list_services(
        &self,
        _: Request<v1::ListServicesRequest>,
    ) -> Answer<v1::ListServicesResponse> {
        let services = self.view.read(|view| Ok(view.services())).await?;
        Ok(Response::new(v1::ListServicesResponse { services }))
    }

    async fn check_mud(
        &self,
        request: Request<v1::CheckMudRequest>,
    ) -> Answer<v1::CheckMudResponse> {
        let request = request.into_inner();
        let checked = self.view.check_mud(Asked {
            file: request.file,
            signature: request.signature,
            device: request.device,
            label: request.label,
            is_approved: request.approve,
        });
        Ok(Response::new(checked.await?.into()))
    }

    async fn import_mud(
        &self,
        mut request: Request<v1::ImportMudRequest>,
    ) -> Answer<v1::ImportMudResponse> {
        let message = std::mem::take(request.get_mut());
        if message.device.is_empty() && message.label.is_empty() {
            return Err(Status::invalid_argument(
                "name the device or the label that the file is for",
            ));
        }
        let checked = self.view.check_mud(Asked {
            file: message.file,
            signature: message.signature,
            device: message.device,
            label: message.label,
            is_approved: !message.approve.is_empty(),
        });
        let checked = checked.await?;
        // The audit has it also of a file that is not believed.
        let reason = checked.reason(&message.approve, &message.reason);
        let author = author(&request, "mud", &reason)?;
        checked.believed()?;
        // What was checked is true of this revision only.
        let base = if message.base == 0 {
            checked.base
        } else {
            message.base
        };
        let (terms, edit) = (terms(base, message.confirm_within_s), checked.edit());
        let change = self.change(move |engine| engine.edit(edit, &terms, &author));
        let (metadata, change, extensions) = change.await?.into_parts();
        let answer = v1::ImportMudResponse {
            checked: Some(checked.into()),
            change: Some(change),
        };
        Ok(Response::from_parts(metadata, answer, extensions))
    }

    async fn assess_mud(
        &self,
        request: Request<v1::AssessMudRequest>,
    ) -> Answer<v1::AssessMudResponse> {
        let device = request.into_inner().device;
        let read = self
            .view
            .read_in(&self.view.documents, move |view, _| view.assess(&device));
        Ok(Response::new(read.await?))
    }

    async fn draft_mud(
        &self,
        request: Request<v1::DraftMudRequest>,
    ) -> Answer<v1::DraftMudResponse> {
        let v1::DraftMudRequest { device, url } = request.into_inner();
        let read = self.view.read_in(&self.view.documents, move |view, _| {
            view.draft_mud(&device, &url)
        });
        Ok(Response::new(read.await?))
    }

    type ListFlowsStream = Many<v1::Flow>;

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Answer<Self::ListFlowsStream> {
        let limit = request.into_inner().limit;
        let flows = self.view.read(move |view| view.flows(limit)).await?;
        Ok(Response::new(Box::pin(tokio_stream::iter(
            flows.into_iter().map(Ok),
        ))))
    }

    async fn get_counters(
        &self,
        _: Request<v1::GetCountersRequest>,
    ) -> Answer<v1::GetCountersResponse> {
        Ok(Response::new(self.view.read(View::counters).await?))
    }

    type WatchEventsStream = Many<v1::Event>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        self.view.watch(request.into_inner()).await
    }

    type ReadAuditStream = Many<v1::AuditEntry>;

    async fn read_audit(
        &self,
        request: Request<v1::ReadAuditRequest>,
    ) -> Answer<Self::ReadAuditStream> {
        let limit = request.into_inner().limit;
        let audit = self.audit.clone();
        let (send, receive) = tokio::sync::mpsc::channel(64);
        // When the client disconnects, the thread ends with its next line.
        tokio::task::spawn_blocking(move || {
            let told = |entry: Entry| send.blocking_send(Ok(entry.into())).is_ok();
            if let Err(error) = audit.tell(limit, told) {
                let status = Status::internal(format!("the audit can't be read: {error}"));
                let _ = send.blocking_send(Err(status));
            }
        });
        let entries = tokio_stream::wrappers::ReceiverStream::new(receive);
        Ok(Response::new(Box::pin(entries)))
    }

    type GetBackupStream = Many<v1::BackupPiece>;

    async fn get_backup(&self, _: Request<v1::GetBackupRequest>) -> Answer<Self::GetBackupStream> {
        let pieces = self.view.backup(&self.audit).await?;
        let pieces = tokio_stream::wrappers::ReceiverStream::new(pieces);
        Ok(Response::new(Box::pin(pieces)))
    }
}
