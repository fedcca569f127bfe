// Generated from the API's description by `python -m tests.page.api_types`; do not edit.

/** The position of an action in the log; empty when there was nothing to do. */
export type ActionAnswer = {
  position: string;
};

/** A member that was added to an organization, or got another role. */
export type AddedMemberView = {
  organization: OrganizationView;
  user: UserView;
  role: "member" | "owner";
};

/** A failed attempt at a task, which another attempt followed. */
export type AttemptShape = {
  attempt: number;
  failure: "failure" | "lost" | "timeout";
  executor_task_id: string;
  executor_id: string;
  fail_error: string;
  setup_step: StepShape;
  steps: readonly StepShape[];
  start_time: string | null;
  end_time: string | null;
};

/** A change of a user, organization, project group, project, secret, variable or remote source. */
export type AuditEntry = {
  position: string;
  time: string;
  actor: string;
  kind: string;
  id: string;
  name: string;
  path: string;
  events: readonly AuditedEvent[];
};

/** An event of a change. */
export type AuditedEvent = {
  type: string;
  fields: Record<string, string | boolean>;
};

/** Files that tasks have kept under a key. */
export type Cache = {
  group: string;
  key: string;
  size: number;
  created: string;
};

/** Caches by group and key. */
export type CacheList = {
  caches: readonly Cache[];
  cursor: string;
};

/** One change: maintenance enabled or disabled. */
export type Change = {
  enabled: boolean;
  by: string;
  why: string;
  at: string;
};

/** The body of a commit: one of these. */
export type CommitBody = {
  json: unknown;
  text: string | null;
  base64: string | null;
};

/** POST /projects/{project}/createrun: a commit of the project's repository; exactly one of branch, tag and ref. */
export type CommitRunBody = {
  branch?: string;
  tag?: string;
  ref?: string;
  commit_sha?: string;
  cache_group?: string;
};

/** What a new run does about earlier runs of its name in its group. */
export type ConcurrencyBody = {
  policy?: "cancel_running" | "cancel_waiting" | "queue" | "skip";
  max_waiting?: number;
};

/** Patterns of included names, and of names excluded from these. */
export type ConditionsBody = {
  include?: readonly PatternBody[];
  exclude?: readonly PatternBody[];
};

/** Patterns of included names, and of names excluded from these. */
export type ConditionsView = {
  include?: readonly PatternView[];
  exclude?: readonly PatternView[];
};

/** A configuration file: its name says its format. */
export type ConfigFileBody = {
  name: "config.json" | "config.jsonnet" | "config.star" | "config.yml";
  content: string;
  imports?: Record<string, string>;
  path?: string;
};

/** A step of a run config. */
export type ConfigStepShape = {
  type: string;
  name: string;
  command: string;
  environment: Record<string, string>;
  working_dir: string;
  shell: string;
  tty: boolean;
  depth: number;
  recurse_submodules: boolean;
  key: string;
  keys: readonly string[];
  contents: readonly SaveContentBody[];
  dest_dir: string;
  step_timeout_interval: number;
  no_output_timeout: number;
};

/** A task of a run config. */
export type ConfigTaskShape = {
  id: string;
  name: string;
  level: number;
  depends: Record<string, DependBody>;
  runtime: RuntimeBody;
  environment: Record<string, string>;
  working_dir: string;
  shell: string;
  user: string;
  steps: readonly ConfigStepShape[];
  ignore_failure: boolean;
  skip: boolean;
  needs_approval: boolean;
  docker_registries_auth: Record<string, RegistryAuthBody>;
  task_timeout_interval: number;
  retry: RetryBody | null;
};

/** One container of a pod. */
export type ContainerBody = {
  image?: string;
  environment?: Record<string, string>;
  user?: string;
  privileged?: boolean;
  entrypoint?: string;
  volumes?: readonly VolumeBody[];
  resources?: ResourcesBody;
};

/** A number of runs, counted up to a bound. */
export type Count = {
  count: number;
  more: boolean;
};

/** POST /orgs. */
export type CreateOrganizationBody = {
  name?: string;
  visibility?: string;
};

/** POST /projects: with a repository at a remote source, or with any `repository` that git can clone. */
export type CreateProjectBody = {
  name?: string;
  parent_ref?: string;
  visibility?: string;
  repo_path?: string;
  remote_source_name?: string;
  skip_ssh_host_key_check?: boolean;
  pass_vars_to_forked_pr?: boolean;
  members_can_perform_run_actions?: boolean;
  default_branch?: string;
  repository?: RepositoryBody | null;
};

/** POST /projectgroups. */
export type CreateProjectGroupBody = {
  name?: string;
  parent_ref?: string;
  visibility?: string;
};

/** POST /remotesources. */
export type CreateRemoteSourceBody = {
  name?: string;
  apiurl?: string;
  type?: string;
  auth_type?: string;
  skip_verify?: boolean;
  oauth_2_client_id?: string;
  oauth_2_client_secret?: string;
  ssh_host_key?: string;
  skip_ssh_host_key_check?: boolean;
  registration_enabled?: boolean;
  login_enabled?: boolean;
};

/** POST /runs: one run of resolved tasks; or with `run_id` a restart of that run, in its group. A restart runs all tasks again (`from_start`), chosen ones (`tasks`; with `descendants` also those that depend on them), or those that did not succeed and those that depend on them. */
export type CreateRunBody = {
  group?: string;
  name?: string;
  run_config_tasks?: Record<string, TaskBody> | null;
  setup_errors?: readonly string[];
  static_environment?: Record<string, string>;
  environment?: Record<string, string> | null;
  cache_group?: string;
  annotations?: Record<string, string>;
  run_timeout_interval?: number;
  run_id?: string;
  from_start?: boolean;
  tasks?: readonly string[];
  descendants?: boolean;
  fresh?: FreshBody | null;
  reset_tasks?: readonly string[] | null;
  concurrency?: "cancel_running" | "cancel_waiting" | "queue" | "skip" | ConcurrencyBody;
  priority?: number;
  fail_fast?: boolean;
};

/** POST /createruns: all runs of a configuration file whose `when` matches. */
export type CreateRunsBody = {
  config: ConfigFileBody;
  group?: string;
  branch?: string;
  tag?: string;
  ref?: string;
  commit_sha?: string;
  repository_url?: string;
  message?: string;
  environment?: Record<string, string>;
  annotations?: Record<string, string>;
  variables?: Record<string, string>;
  variable_files?: readonly InputFileBody[];
  secret_files?: readonly InputFileBody[];
  priority?: number | null;
  cache_group?: string;
  on_setup_error?: "refuse" | "run";
  strict?: boolean;
  warnings?: readonly string[];
};

/** POST /users/{user}/tokens. */
export type CreateTokenBody = {
  token_name?: string;
  scope?: "admin" | "read" | "run";
  expires_at?: string | null;
};

/** POST /users. */
export type CreateUserBody = {
  username?: string;
};

/** An account at a git host that was linked. Empty fields are left out. */
export type CreatedAccountView = {
  id?: string;
  remote_user_id?: string;
  remote_username?: string;
  remote_user_avatar_url?: string;
  remote_source_id?: string;
};

/** A task (by its id) that a task waits for, and the outcomes that let it run. */
export type DependBody = {
  task_id: string;
  conditions?: readonly ("always" | "on_failure" | "on_skipped" | "on_success")[];
};

/** One of the two runs, or moments of a run, that are compared. */
export type DiffSide = {
  id: string;
  name: string;
  group: string;
  counter: number;
  phase: string;
  result: string;
  enqueue_time: string;
  duration: number | null;
  at: string;
};

/** A value that differs. */
export type Difference = {
  area: "configuration" | "environment" | "outcome" | "source";
  task: string;
  path: readonly (string | number)[];
  kind: "added" | "changed" | "removed";
  before: unknown;
  after: unknown;
};

/** POST /user/createrun: a commit that was pushed to /repos/; exactly one of branch, tag and ref. */
export type DirectRunBody = {
  repo_uuid?: string;
  repo_path?: string;
  branch?: string;
  tag?: string;
  ref?: string;
  commit_sha?: string;
  message?: string;
  pull_request_ref_regexes?: readonly string[];
  variables?: Record<string, string> | null;
};

/** The activity of one component of a process. */
export type Doing = "draining" | "parked" | "running" | "starting" | "stopping";

/** One entry of an error's body. */
export type ErrorShape = {
  code: string;
  details: Record<string, unknown>;
  message: string;
  hint: string;
  kind: string;
  chain?: readonly string[];
};

/** PUT /executors/{id}/actions. */
export type ExecutorActionBody = {
  action_type: "drain" | "undrain";
};

/** An executor, as it registered last. */
export type ExecutorShape = {
  executor_id: string;
  state: "deleted" | "drained" | "draining" | "full" | "lost" | "offline" | "ready" | "suspect";
  last_seen: string | null;
  full: string;
  clock_skew: number;
  archs: readonly string[];
  labels: Record<string, string>;
  allow_privileged_containers: boolean;
  allow_host: boolean;
  allow_pod: boolean;
  active_tasks_limit: number;
  active_tasks: number;
  dynamic: boolean;
  executor_group: string;
  version: string;
  sandbox: string;
  engine: string;
};

/** All executors, by id. */
export type ExecutorsAnswer = {
  executors: readonly ExecutorShape[];
};

/** A failed task. */
export type Failure = {
  task: string;
  task_id: string;
  attempt: number;
  step: number | null;
  step_name: string;
  exit_status: number | null;
  fail_error: string;
  lines: readonly LogLine[] | null;
};

/** The failed tasks of a run. */
export type Failures = {
  failures: readonly Failure[];
  more: boolean;
};

/** Flaky tasks, the most frequent first. */
export type FlakyList = {
  tasks: readonly FlakyTask[];
  failures: number;
  more: boolean;
};

/** A task that failed, and then passed with the same commit and run config. */
export type FlakyOccurrence = {
  commit: string;
  run_config_id: string;
  failed: FlakyRun;
  passed: FlakyRun;
  failures: number;
  end_time: string | null;
};

/** A run of a flaky task. */
export type FlakyRun = {
  id: string;
  counter: number;
  group: string;
};

/** A task that is flaky in the runs of a name. */
export type FlakyTask = {
  group: string;
  name: string;
  task: string;
  count: number;
  latest: readonly FlakyOccurrence[];
};

/** The file of the earlier run and its inputs, from which a restart resolves variables and secrets again. */
export type FreshBody = {
  config: ConfigFileBody;
  variables?: Record<string, string>;
  variable_files?: readonly InputFileBody[];
  secret_files?: readonly InputFileBody[];
};

/** POST /fsck; the body is optional. */
export type FsckBody = {
  partitions?: readonly number[];
  archive?: boolean;
  objects?: boolean | null;
};

/** The progress of a check. */
export type FsckProgress = {
  step: string;
  done: number;
  total: number;
};

/** What a check of rows, archive and objects against the log has found. */
export type FsckReport = {
  commits: number;
  rows: number;
  count: number;
  differences: readonly string[];
  archive: Record<string, unknown> | null;
  objects: Record<string, unknown> | null;
  stalls: readonly Stall[];
};

/** A check that runs or has ended. */
export type FsckState = {
  name: string;
  begun: string;
  progress: FsckProgress | null;
  result: FsckReport | null;
  error: readonly (Record<string, unknown>)[] | null;
};

/** The queue of a group, and its last finished runs. */
export type GroupView = {
  group: string;
  queue: readonly QueuedRun[];
  more: boolean;
  last: readonly RunTimes[];
  median_waited: number | null;
  median_took: number | null;
};

/** What a gateway knows about the servers behind it, as `runstream doctor` tells it. */
export type Health = {
  at: string;
  findings: readonly HealthFinding[];
};

/** What was found about one thing, and what to do about it. */
export type HealthFinding = {
  what: string;
  status: "ok" | "problem" | "unknown" | "warning";
  found: string;
  todo: string;
};

/** A user of a git host who gave the right password. */
export type HostAuthorizedAnswer = {
  remote_user_info: RemoteUserInfo;
  remote_source_name: string;
  oauth2_redirect: string;
};

/** A login through a git host; its cookies are in the headers. */
export type HostLoginAnswer = {
  user: UserView;
  oauth2_redirect: string;
};

/** POST /auth/login, POST /auth/authorize. */
export type HostLoginBody = {
  remote_source_name?: string;
  login_name?: string;
  password?: string;
};

/** Where the browser goes to log in at the git host. Empty after a registration by password, which is done. */
export type HostRedirectAnswer = {
  oauth2_redirect: string;
};

/** A file of variables or secrets (YAML or JSON); its name is for messages. */
export type InputFileBody = {
  name: string;
  content: string;
};

/** One instance, as the API shows it. */
export type InstanceShape = {
  id: string;
  components: readonly string[];
  host: string;
  pid: number;
  version: string;
  state: string;
  last_state: string;
  since: string | null;
  parked: boolean;
  epoch: number;
  parts: Record<string, PartRecord>;
  positions: Record<string, number>;
};

/** PUT /user/org_invitations/{org}/actions. */
export type InvitationActionBody = {
  action_type?: string;
};

/** An invitation of a user to an organization. */
export type InvitationView = {
  id: string;
  user_ref: string;
  organization_id: string;
  organization_name: string;
};

/** POST /orgs/{org}/invitations. */
export type InviteBody = {
  user_ref?: string;
  role?: string;
};

/** POST /users/{user}/linkedaccounts. */
export type LinkAccountBody = {
  remote_source_name?: string;
  remote_source_login_name?: string;
  remote_source_login_password?: string;
};

/** An account at a git host that is linked to a user. */
export type LinkedAccountView = {
  id: string;
  remote_source_id: string;
  remote_user_name: string;
  remote_user_avatar_url: string;
};

/** A linked account. */
export type LinkedAnswer = {
  linked_account: CreatedAccountView;
  oauth2_redirect: string;
};

/** A line of a log. */
export type LogLine = {
  number: number;
  offset: number;
  time: string | null;
  text: string;
  cut: boolean;
};

/** Successive lines of a log. */
export type LogLines = {
  lines: readonly LogLine[];
  next: number | null;
};

/** A link that logs a user in once. */
export type LoginLink = {
  url: string;
  expires_at: string;
};

/** POST /auth/loginlink. */
export type LoginLinkBody = {
  username?: string | null;
};

/** POST /auth/session. */
export type LoginTokenBody = {
  token?: string;
};

/** A login; after POST, its cookies are in the headers. */
export type LoginView = {
  user: UserView | null;
  admin: boolean;
  scope: "admin" | "read" | "run";
};

/** The maintenance of one service, as the API shows it. */
export type MaintenanceAnswer = {
  RequestedStatus: boolean;
  CurrentStatus: boolean;
  service: string;
  parked: boolean;
  by: string;
  reason: string;
  since: string | null;
  deadline: string | null;
  instances: readonly InstanceShape[];
  history: readonly Change[];
  tag?: string;
};

/** Who changes the mode, and why; the body is optional. */
export type MaintenanceBody = {
  by?: string;
  reason?: string;
  deadline?: string;
};

/** PUT /orgs/{org}/members/{user}. */
export type MemberBody = {
  role?: string;
};

/** A member of an organization. */
export type MemberView = {
  user: UserView;
  role: "member" | "owner";
};

/** Members of an organization. */
export type MembersView = {
  organization: OrganizationView;
  members: readonly MemberView[];
};

/** An organization of a user, and the user's role there. */
export type MembershipView = {
  Organization: OrganizationView;
  Role: string;
};

/** What a login at a git host was for (`createuserla`, `loginuser`, `authorize` or `registeruser`), and its answer. The answer is that of the same request with a password. */
export type OAuth2CallbackAnswer = {
  request_type: string;
  response: Record<string, unknown>;
};

/** An organization. */
export type OrganizationView = {
  id: string;
  name: string;
  visibility: "private" | "public";
};

/** A container of a task. */
export type OwnedContainer = {
  image: string;
};

/** A run of a project or user. */
export type OwnedRun = {
  number: number;
  name: string;
  annotations: Record<string, string>;
  phase: string;
  result: string;
  setup_errors: readonly string[] | null;
  stopping: boolean;
  tasks: Record<string, OwnedTaskSummary>;
  tasks_waiting_approval: readonly string[];
  enqueue_time: string | null;
  start_time: string | null;
  end_time: string | null;
  can_restart_from_scratch: boolean;
  can_restart_from_failed_tasks: boolean;
};

/** PUT …/runs/{number}/actions of a project or user. */
export type OwnedRunActionBody = {
  action_type: "cancel" | "restart" | "stop";
  from_start?: boolean;
};

/** A run of a project or user, in a list. */
export type OwnedRunSummary = {
  number: number;
  name: string;
  annotations: Record<string, string>;
  phase: string;
  result: string;
  tasks_waiting_approval: readonly string[];
  enqueue_time: string | null;
  start_time: string | null;
  end_time: string | null;
};

/** The setup of a task. */
export type OwnedSetupStep = {
  phase: string;
  name: string;
  start_time: string | null;
  end_time: string | null;
};

/** A step of a task. */
export type OwnedStep = {
  phase: string;
  type: string;
  name: string;
  command: string;
  shell: string;
  exit_status: number | null;
  start_time: string | null;
  end_time: string | null;
  log_archived: boolean;
};

/** A task of a run, with its steps. */
export type OwnedTask = {
  id: string;
  name: string;
  status: string;
  timedout: boolean;
  containers: readonly OwnedContainer[];
  waiting_approval: boolean;
  approved: boolean;
  approval_annotations: Record<string, string> | null;
  setup_step: OwnedSetupStep;
  steps: readonly OwnedStep[];
  start_time: string | null;
  end_time: string | null;
  task_timeout_interval: number;
};

/** PUT …/runs/{number}/tasks/{task}/actions of a project or user. */
export type OwnedTaskActionBody = {
  action_type: "approve";
};

/** A task of a run, without its steps. */
export type OwnedTaskSummary = {
  id: string;
  name: string;
  status: string;
  timedout: boolean;
  level: number;
  depends: Record<string, DependBody>;
  waiting_approval: boolean;
  approved: boolean;
  approval_annotations: Record<string, string> | null;
  start_time: string | null;
  end_time: string | null;
  task_timeout_interval: number;
};

/** PUT /parked/{epoch}/{partition}/{sequence}/actions. */
export type ParkedActionBody = {
  action_type: "skip";
  reason: string;
};

/** A commit that is parked or was skipped, as it is in the log. */
export type ParkedCommitDetail = {
  position: string;
  aggregate: string;
  subject: string;
  stored_at: string;
  headers: Record<string, string>;
  parked: ParkedCommitView | null;
  behind: readonly string[];
  skipped: SkippedCommit | null;
  body: CommitBody;
};

/** A commit that could not be read or applied. */
export type ParkedCommitView = {
  position: string;
  subject: string;
  aggregate: string;
  reason: string;
  at: string;
};

/** Parked commits, in the order of the log. */
export type ParkedList = {
  parked: readonly ParkedCommitView[];
  more: boolean;
};

/** PUT /parked/actions. */
export type ParkedRetryBody = {
  action_type: "retry";
  positions?: readonly string[];
};

/** The state of one component. */
export type PartRecord = {
  doing: Doing;
  under_way?: number;
};

/** A name, or an RE2 expression. */
export type PatternBody = {
  match: string;
  type?: "regexp" | "simple";
};

/** A name, or an RE2 expression. */
export type PatternView = {
  type: "regexp" | "simple";
  match: string;
};

/** A user, as that user and administrators see it. */
export type PrivateUserView = {
  id: string;
  username: string;
  tokens: readonly string[];
  linked_accounts: readonly LinkedAccountView[];
  admin: boolean;
};

/** A project group. */
export type ProjectGroupView = {
  id: string;
  name: string;
  path: string;
  parent_path: string;
  visibility: "private" | "public";
  global_visibility: "private" | "public";
};

/** A project. Fields that are false or empty are left out. */
export type ProjectView = {
  id?: string;
  name?: string;
  path?: string;
  parent_path?: string;
  visibility?: string;
  global_visibility?: string;
  pass_vars_to_forked_pr?: boolean;
  default_branch?: string;
  members_can_perform_run_actions?: boolean;
  repository_url?: string;
};

/** An unfinished run of a group, and what is before it. */
export type QueuedRun = {
  run: RunSummaryShape;
  waits_for: string;
  ahead: number;
};

/** One reason why a run waits. */
export type ReasonShape = {
  code: string;
  message: string;
  tasks: readonly string[];
  details: Record<string, unknown>;
};

/** POST /auth/register. */
export type RegisterBody = {
  remote_source_name?: string;
  remote_source_login_name?: string;
  remote_source_login_password?: string;
  username?: string;
};

/** How to log in at a container registry. */
export type RegistryAuthBody = {
  type?: string;
  username?: string;
  password?: string;
  auth?: string;
};

/** A repository of a git host. */
export type RemoteRepositoryView = {
  id: string;
  path: string;
};

/** A git host. */
export type RemoteSourceView = {
  id: string;
  name: string;
  auth_type: "oauth2" | "password";
  registration_enabled: boolean;
  login_enabled: boolean;
};

/** A user of a git host. */
export type RemoteUserInfo = {
  ID: string;
  LoginName: string;
  Email: string;
};

/** Any repository that git can clone, and the access to it. */
export type RepositoryBody = {
  url?: string;
  username?: string;
  password?: string;
  ssh_private_key?: string;
  known_hosts?: string;
};

/** The limits of a container: thousandths of a processor, and bytes; 0 for none. */
export type ResourcesBody = {
  cpu?: number;
  memory?: number;
};

/** The tasks that a restart would run again, and those that it would keep. */
export type RestartPreview = {
  possible: boolean;
  reason: string;
  hint: string;
  again: readonly string[];
  kept: readonly string[];
};

/** Which run a restart repeats, and how. */
export type RestartShape = {
  run_id: string;
  scope: "all" | "chosen" | "failed";
  tasks: readonly string[];
  descendants: boolean;
  fresh: boolean;
};

/** The number of parked commits that are tried again. */
export type RetriedCommits = {
  asked: number;
};

/** When a task is tried again. */
export type RetryBody = {
  max: number;
  backoff?: number;
  on?: readonly ("failure" | "lost" | "timeout")[];
};

/** PUT /runs/{id}/actions. `changephase` takes the phase, which is `cancelled` for a user. */
export type RunActionBody = {
  action_type: "cancel" | "changephase" | "pause" | "resume" | "stop";
  phase?: string;
  change_groups_update_tokens?: string;
};

/** One run. */
export type RunAnswer = {
  run: RunShape;
  run_config: RunConfigShape | null;
  change_groups_update_tokens?: string;
};

/** A commit of a run, of an executor task of the run, or a decision to skip one of these. */
export type RunCommit = {
  number: number;
  position: string;
  time: string;
  actor: string;
  commit: string;
  cause: string;
  cause_kind: "" | "commit" | "executor_lost" | "request" | "retention" | "timeout";
  cause_number: number | null;
  aggregate: string;
  version: number;
  task: string;
  events: readonly RunEvent[];
  changes: readonly (readonly unknown[])[];
  removals: readonly (readonly (string | number)[])[];
  error: string;
};

/** A run config; tasks are keyed by the ids that they have in this run. */
export type RunConfigShape = {
  id: string;
  name: string;
  group: string;
  setup_errors: readonly string[];
  annotations: Record<string, string>;
  static_environment: Record<string, string>;
  environment: Record<string, string>;
  tasks: Record<string, ConfigTaskShape>;
  cache_group: string;
  run_timeout_interval: number;
  concurrency: ConcurrencyBody;
  priority: number;
  fail_fast: boolean;
};

/** The runs of a list by phase and by result, whatever phases and results the list is of. */
export type RunCounts = {
  phases: Record<string, Count>;
  results: Record<string, Count>;
};

/** What differs in a run from another one, or from the same run at another moment. */
export type RunDiff = {
  run: DiffSide;
  vs: DiffSide;
  differences: readonly Difference[];
  tasks: readonly TaskTiming[];
};

/** An event of a commit. */
export type RunEvent = {
  type: string;
  data: unknown;
};

/** A part of the history of a run. */
export type RunHistoryAnswer = {
  answer: RunAnswer;
  commits: readonly RunCommit[];
  next: number | null;
  count: number;
  ended: boolean;
};

/** A run with its tasks. */
export type RunShape = {
  id: string;
  creationTime: string;
  sequence: number;
  name: string;
  run_config_id: string;
  counter: number;
  group: string;
  annotations: Record<string, string>;
  phase: string;
  result: string;
  stop: boolean;
  timedout: boolean;
  reason: string;
  priority: number;
  paused_at: string | null;
  setup_errors: readonly string[];
  tasks_waiting_approval: readonly string[];
  enqueue_time: string;
  start_time: string | null;
  end_time: string | null;
  archived: boolean;
  logs_removed_at: string | null;
  archives_removed_at: string | null;
  tasks: Record<string, RunTaskShape>;
  restart: RestartShape | null;
  can_restart_from_scratch: boolean;
  can_restart_from_failed_tasks: boolean;
};

/** A run in a list. */
export type RunSummaryShape = {
  id: string;
  creationTime: string;
  sequence: number;
  name: string;
  run_config_id: string;
  counter: number;
  group: string;
  annotations: Record<string, string>;
  phase: string;
  result: string;
  stop: boolean;
  timedout: boolean;
  reason: string;
  priority: number;
  paused_at: string | null;
  setup_errors: readonly string[];
  tasks_waiting_approval: readonly string[];
  enqueue_time: string;
  start_time: string | null;
  end_time: string | null;
  archived: boolean;
  logs_removed_at: string | null;
  archives_removed_at: string | null;
};

/** A task of a run. */
export type RunTaskShape = {
  id: string;
  name: string;
  level: number;
  depends: Record<string, DependBody>;
  image: string;
  status: string;
  kept: boolean;
  timedout: boolean;
  failure: "" | "failure" | "lost" | "timeout";
  attempt: number;
  max_attempts: number;
  not_before: string | null;
  attempts: readonly AttemptShape[];
  annotations: Record<string, string>;
  skip: boolean;
  waiting_approval: boolean;
  approved: boolean;
  approval_time: string | null;
  executor_task_id: string;
  executor_id: string;
  fail_error: string;
  workspace_archives: readonly number[];
  setup_step: StepShape;
  steps: readonly StepShape[];
  start_time: string | null;
  end_time: string | null;
};

/** A finished run, and how long it waited and took, in seconds. */
export type RunTimes = {
  run: RunSummaryShape;
  waited: number | null;
  took: number | null;
};

/** A page of runs. */
export type RunsAnswer = {
  runs: readonly RunSummaryShape[];
  next_start: number | null;
  cursor: string;
  counts: RunCounts | null;
  tasks: Record<string, Record<string, number>> | null;
};

/** The runs of a configuration file, in its order; those that were not created, and why. */
export type RunsCreatedAnswer = {
  runs: readonly RunAnswer[];
  skipped: readonly SkippedRunShape[];
  warnings: readonly WarningShape[];
};

/** Where a task runs. */
export type RuntimeBody = {
  type?: "host" | "pod";
  arch?: string;
  containers?: readonly ContainerBody[];
  labels?: Record<string, string>;
};

/** The files that a save step takes. */
export type SaveContentBody = {
  source_dir?: string;
  dest_dir?: string;
  paths?: readonly string[];
};

/** POST and PUT of a secret. */
export type SecretBody = {
  name?: string;
  type?: string;
  data?: Record<string, string>;
  secret_provider_id?: string;
  path?: string;
};

/** A secret, without its texts. */
export type SecretView = {
  id: string;
  name: string;
  parent_path: string;
};

/** A login with cookies. */
export type SessionView = {
  id: string;
  created_at: string;
  expires_at: string;
  user_agent: string;
  current: boolean;
};

/** A decision that a commit is never applied. */
export type SkippedCommit = {
  position: string;
  subject: string;
  skipped: string;
  aggregate_version: number;
  by: string;
  at: string;
  reason: string;
  sha256: string;
};

/** All skipped commits, in the order of each partition. */
export type SkippedList = {
  skipped: readonly SkippedCommit[];
};

/** A run of a configuration file that was not created. */
export type SkippedRunShape = {
  name: string;
  reason: "ci_skip" | "when";
};

/** A consumer of the log that makes no progress in one partition, or has parked commits. */
export type Stall = {
  component: string;
  kind: string;
  partition: number;
  position: string;
  since: string;
  commits: number;
  why: string;
  todo: string;
  service: string;
};

/** One step; which fields count depends on its type. */
export type StepBody = {
  type: "clone" | "restore_cache" | "restore_workspace" | "run" | "save_cache" | "save_to_workspace";
  name?: string;
  command?: string;
  environment?: Record<string, string>;
  working_dir?: string;
  shell?: string;
  tty?: boolean | null;
  depth?: number | null;
  recurse_submodules?: boolean;
  key?: string;
  keys?: readonly string[];
  contents?: readonly SaveContentBody[];
  dest_dir?: string;
  step_timeout_interval?: number;
  no_output_timeout?: number;
};

/** The state of a step. */
export type StepShape = {
  name: string;
  phase: string;
  log_phase: string;
  exit_status: number | null;
  start_time: string | null;
  end_time: string | null;
  timedout: "" | "no_output" | "timeout";
  warnings: readonly string[];
};

/** What the object storage holds, and what retention removes next. */
export type StorageStatus = {
  measured_at: string;
  kinds: readonly StoredKind[];
};

/** The objects of one kind. */
export type StoredKind = {
  kind: string;
  objects: number;
  bytes: number | null;
  next_removal: string | null;
  next_group: string;
  due: number;
};

/** PUT /runs/{id}/tasks/{task}/actions: approve a task, or replace its annotations. */
export type TaskActionBody = {
  action_type: "approve" | "setannotations";
  annotations?: Record<string, string>;
  change_groups_update_tokens?: string;
};

/** One task of the graph (rule create-3). The gateway computes `level` and ignores the one that is sent. */
export type TaskBody = {
  name: string;
  runtime: RuntimeBody;
  id?: string;
  level?: number;
  depends?: Record<string, DependBody>;
  environment?: Record<string, string>;
  working_dir?: string;
  shell?: string;
  user?: string;
  steps?: readonly StepBody[];
  ignore_failure?: boolean;
  skip?: boolean;
  needs_approval?: boolean;
  docker_registries_auth?: Record<string, RegistryAuthBody>;
  task_timeout_interval?: number;
  retry?: number | RetryBody;
};

/** How long a task took in both, in seconds; None for what has not ended, or does not exist. */
export type TaskTiming = {
  task: string;
  after: number | null;
  before: number | null;
  steps_after: readonly (number | null)[];
  steps_before: readonly (number | null)[];
};

/** A mount in memory. */
export type TmpfsBody = {
  size?: number;
};

/** A token of a user, without its text. */
export type TokenEntry = {
  name: string;
  scope: "admin" | "read" | "run";
  expires_at: string | null;
  created_at: string | null;
};

/** A new token, which is shown this once. */
export type TokenView = {
  token: string;
};

/** PUT /orgs/{org}. */
export type UpdateOrganizationBody = {
  visibility?: string | null;
};

/** PUT /projects/{project}. */
export type UpdateProjectBody = {
  name?: string | null;
  parent_ref?: string | null;
  visibility?: string | null;
  pass_vars_to_forked_pr?: boolean | null;
  members_can_perform_run_actions?: boolean | null;
  default_branch?: string | null;
  repository?: RepositoryBody | null;
};

/** PUT /projectgroups/{group}. */
export type UpdateProjectGroupBody = {
  name?: string | null;
  parent_ref?: string | null;
  visibility?: string | null;
};

/** PUT /remotesources/{source}. */
export type UpdateRemoteSourceBody = {
  name?: string | null;
  apiurl?: string | null;
  skip_verify?: boolean | null;
  oauth_2_client_id?: string | null;
  oauth_2_client_secret?: string | null;
  ssh_host_key?: string | null;
  skip_ssh_host_key_check?: boolean | null;
  registration_enabled?: boolean | null;
  login_enabled?: boolean | null;
};

/** PUT /users/{user}: another name, or whether the user is an administrator. */
export type UpdateUserBody = {
  username?: string | null;
  admin?: boolean | null;
};

/** A user. */
export type UserView = {
  id: string;
  username: string;
};

/** POST and PUT of a variable. */
export type VariableBody = {
  name?: string;
  values?: readonly VariableValueBody[];
};

/** A value of a variable: a key of a secret. */
export type VariableValueBody = {
  secret_name?: string;
  secret_var?: string;
  when?: WhenBody | null;
};

/** A value of a variable: a key of a secret. */
export type VariableValueView = {
  secret_name: string;
  secret_var: string;
  matching_secret_parent_path: string;
  when: WhenView | null;
};

/** A variable. */
export type VariableView = {
  id: string;
  name: string;
  parent_path: string;
  values: readonly VariableValueView[];
};

/** The service's version and its log. */
export type VersionAnswer = {
  service: string;
  version: string;
  namespace: string;
  epoch: number;
  partitions: number;
};

/** A mount in a container. */
export type VolumeBody = {
  path: string;
  tmpfs: TmpfsBody;
};

/** A warning about a configuration file. */
export type WarningShape = {
  path: string;
  line: number | null;
  message: string;
  hint: string;
};

/** For which branches, tags and refs a value is meant. */
export type WhenBody = {
  branch?: ConditionsBody | null;
  tag?: ConditionsBody | null;
  ref?: ConditionsBody | null;
};

/** For which branches, tags and refs a value is meant. */
export type WhenView = {
  branch?: ConditionsView | null;
  tag?: ConditionsView | null;
  ref?: ConditionsView | null;
};

/** Why a run waits; phase and result are empty where they are unknown. */
export type WhyAnswer = {
  run: string;
  phase: string;
  result: string;
  reasons: readonly ReasonShape[];
  omitted?: number;
};
