//! Users and their permissions: who there is, and what a session may do.
//!
//! A [`User`] is an immutable value. A change makes a new one and puts it into its [`Account`],
//! which sessions hold on to by reference, so that they see it with their next command. What most
//! sessions need to know, that their user may do everything, is one flag of the account, looked at
//! once a turn by `dispatch::Executor`. For a restricted user a worker remembers the account and
//! value it used last and asks, per command, only whether the generation of all users is the same:
//! no lock is taken and no shared counter written. A session that never named a user holds nothing.
//!
//! Locks: the list of users is locked to change it, an account to read its value. Clients to be
//! closed are found after that, among the subscribers or all clients.

mod file;
mod log;
mod selector;
mod user;

pub use log::{AclLog, Denial, Reason};
pub(crate) use selector::has_space;
pub use selector::{Denied, RuleError, Selector};
pub use user::{User, merge_selectors};

use crate::config_file;
use crate::context::{Cx, Worker};
use crate::session::Session;
use crate::shared::Shared;
use crate::table::Entry;
use hypercache_protocol::parse::Args;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release,
};

/// The name of the user that connections have at first.
pub const DEFAULT_USER: &[u8] = b"default";

/// A user's name and what it may do now.
#[derive(Debug)]
pub struct Account {
    name: Box<[u8]>,
    user: RwLock<Arc<User>>,
    is_unrestricted: AtomicBool,
    is_deleted: AtomicBool,
}

impl Account {
    fn new(name: &[u8], user: User) -> Arc<Self> {
        let is_unrestricted = AtomicBool::new(user.is_unrestricted());
        let user = RwLock::new(Arc::new(user));
        Arc::new(Account { name: name.into(), user, is_unrestricted, is_deleted: false.into() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What it may do now.
    #[must_use]
    pub fn user(&self) -> Arc<User> {
        Arc::clone(&self.user.read())
    }

    /// Whether it may run everything.
    #[inline]
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.is_unrestricted.load(Acquire)
    }

    fn set(&self, user: User) {
        let is_unrestricted = user.is_unrestricted();
        *self.user.write() = Arc::new(user);
        self.is_unrestricted.store(is_unrestricted, Release);
    }
}

/// What clients may do that log in as nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Nothing but log in.
    Refused,
    /// What the default user may, which is not everything.
    Limited,
    /// Everything.
    Free,
}

/// The account and value that a worker used last.
#[derive(Debug)]
pub struct Recent {
    generation: u64,
    account: Arc<Account>,
    user: Arc<User>,
}

/// All users.
#[derive(Debug)]
pub struct Accounts {
    by_name: Mutex<BTreeMap<Box<[u8]>, Arc<Account>>>,
    default: Arc<Account>,
    /// Counts changes of any user.
    generation: AtomicU64,
    /// Whether the default user lets connections in without a password.
    lets_in: AtomicBool,
    /// `acl-pubsub-default`: whether a new user may use all channels.
    all_channels: AtomicBool,
    /// What was denied.
    pub log: AclLog,
}

impl Default for Accounts {
    fn default() -> Self {
        let default = Account::new(DEFAULT_USER, User::all_powerful());
        let by_name = BTreeMap::from([(DEFAULT_USER.into(), Arc::clone(&default))]);
        Accounts {
            by_name: Mutex::new(by_name),
            default,
            generation: AtomicU64::new(0),
            lets_in: AtomicBool::new(true),
            all_channels: AtomicBool::new(false),
            log: AclLog::default(),
        }
    }
}

impl Accounts {
    /// Whether a new connection may do without AUTH.
    #[inline]
    #[must_use]
    pub fn lets_in(&self) -> bool {
        self.lets_in.load(Acquire)
    }

    /// What clients may do that log in as nobody.
    #[must_use]
    pub fn strangers(&self) -> Strangers {
        match (self.lets_in(), self.default.is_unrestricted()) {
            (false, _) => Strangers::Refused,
            (true, false) => Strangers::Limited,
            (true, true) => Strangers::Free,
        }
    }

    /// The user that connections have at first.
    #[inline]
    #[must_use]
    pub fn default_account(&self) -> &Arc<Account> {
        &self.default
    }

    /// The user of a name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Arc<Account>> {
        self.by_name.lock().get(name).cloned()
    }

    /// All users in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.by_name.lock().values().cloned().collect()
    }

    /// Whether new users and selectors may use all channels (`acl-pubsub-default`).
    #[must_use]
    pub fn all_channels(&self) -> bool {
        self.all_channels.load(Acquire)
    }

    pub(crate) fn set_all_channels(&self, on: bool) {
        self.all_channels.store(on, Release);
    }

    /// Sessions look at their user anew. After every change, and before its reply.
    fn changed(&self) {
        let default = self.default.user();
        self.lets_in.store(default.has_no_pass() && default.is_on(), Release);
        self.generation.fetch_add(1, AcqRel);
    }

    /// Changes a user, or makes it.
    ///
    /// # Errors
    /// The rule at fault; nothing is changed then.
    pub fn set_user(&self, name: &[u8], rules: &[Vec<u8>]) -> Result<(), (Vec<u8>, RuleError)> {
        let all_channels = self.all_channels();
        let mut by_name = self.by_name.lock();
        let account = by_name.get(name);
        let mut user = account.map_or_else(|| User::new(all_channels), |a| (*a.user()).clone());
        for rule in rules {
            user.apply(rule, all_channels).map_err(|error| (rule.clone(), error))?;
        }
        match account {
            Some(account) => account.set(user),
            None => drop(by_name.insert(name.into(), Account::new(name, user))),
        }
        self.changed();
        Ok(())
    }

    /// `requirepass`.
    pub(crate) fn set_default_password(&self, password: &[u8]) {
        let _by_name = self.by_name.lock();
        let mut user = (*self.default.user()).clone();
        user.set_only_password(password);
        self.default.set(user);
        self.changed();
    }

    /// Removes a user, which may do nothing from now on.
    fn remove(&self, name: &[u8]) -> Option<Arc<Account>> {
        let account = self.by_name.lock().remove(name)?;
        self.retire(&account);
        Some(account)
    }

    fn retire(&self, account: &Account) {
        account.set(User::new(false));
        account.is_deleted.store(true, Release);
        self.changed();
    }

    /// Puts other users in the place of all there are; returns those that are gone.
    fn replace(&self, users: BTreeMap<Vec<u8>, User>) -> Vec<Arc<Account>> {
        let mut by_name = self.by_name.lock();
        let old = std::mem::take(&mut *by_name);
        for (name, user) in users {
            let account = match old.get(&name[..]) {
                Some(account) => {
                    account.set(user);
                    Arc::clone(account)
                }
                None => Account::new(&name, user),
            };
            by_name.insert(name.into(), account);
        }
        let gone: Vec<_> =
            old.into_iter().filter(|(name, _)| !by_name.contains_key(name)).collect();
        gone.iter().for_each(|(_, account)| self.retire(account));
        self.changed();
        gone.into_iter().map(|(_, account)| account).collect()
    }

    /// The account that may log in with these, if there is one.
    #[must_use]
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<Account>> {
        self.get(name).filter(|account| account.user().admits(password))
    }
}

/// The account of a session.
#[inline]
#[must_use]
pub fn account_of<'a>(shared: &'a Shared, session: &'a Session) -> &'a Arc<Account> {
    session.account().unwrap_or(&shared.acl.default)
}

/// Whether a session's user may run everything.
#[inline]
#[must_use]
pub fn is_unrestricted(shared: &Shared, session: &Session) -> bool {
    account_of(shared, session).is_unrestricted()
}

/// Whether a session's user may run a command with these arguments.
///
/// # Errors
/// What is denied.
#[inline]
pub fn check(
    shared: &Shared,
    worker: &mut Worker,
    session: &Session,
    entry: &Entry,
    args: Args<'_>,
) -> Result<(), Denied> {
    let account = account_of(shared, session);
    if account.is_unrestricted() {
        return Ok(());
    }
    user_of(shared, &mut worker.recent_user, account).check(entry, args)
}

/// Whether a session's user may have a command read keys that are not among its arguments.
pub(crate) fn may_read_any_key(cx: &mut Cx<'_>, args: Args<'_>) -> bool {
    let account = account_of(cx.shared, cx.session);
    account.is_unrestricted() || {
        let user = user_of(cx.shared, &mut cx.worker.recent_user, account);
        user.selectors().iter().any(|selector| selector.allows_any_read(cx.entry, args))
    }
}

/// The value of an account, from the worker's memory if it is there.
fn user_of<'a>(
    shared: &Shared,
    recent: &'a mut Option<Recent>,
    account: &Arc<Account>,
) -> &'a Arc<User> {
    let generation = shared.acl.generation.load(Acquire);
    let known = recent
        .take()
        .filter(|recent| recent.generation == generation && Arc::ptr_eq(&recent.account, account));
    let known = known.unwrap_or_else(|| {
        let (account, user) = (Arc::clone(account), account.user());
        Recent { generation, account, user }
    });
    &recent.insert(known).user
}

/// Counts a denial and notes it in ACL LOG.
#[cold]
pub fn note(
    cx: &Cx<'_>,
    session: &Session,
    denied: Denied,
    context: &'static str,
    entry: &Entry,
    args: Args<'_>,
) {
    let stats = &cx.worker.stats;
    let (reason, counter, object) = match denied {
        Denied::Command => {
            (Reason::Command, &stats.acl_denied_commands, entry.full_name.as_bytes())
        }
        Denied::Key(i) => (Reason::Key, &stats.acl_denied_keys, args.get(i)),
        Denied::Channel(i) => (Reason::Channel, &stats.acl_denied_channels, args.get(i)),
    };
    counter.add(1);
    let name = account_of(cx.shared, session).name();
    add_to_log(cx, session, reason, context, object, name);
}

/// Counts a failed login and notes it in ACL LOG.
#[cold]
pub fn note_failed_login(cx: &Cx<'_>, name: &[u8], command: &[u8]) {
    cx.worker.stats.acl_denied_logins.add(1);
    let is_queued = cx.session.client.has(crate::client::ClientFlags::MULTI);
    let context = if is_queued { "multi" } else { "toplevel" };
    add_to_log(cx, cx.session, Reason::Auth, context, command, name);
}

fn add_to_log(
    cx: &Cx<'_>,
    session: &Session,
    reason: Reason,
    context: &'static str,
    object: &[u8],
    name: &[u8],
) {
    let kept = |text: &[u8]| text[..text.len().min(log::TEXT_MAX)].to_vec();
    cx.shared.acl.log.add(Denial {
        count: 1,
        reason,
        context,
        object: kept(object),
        username: kept(name),
        at_ms: cx.worker.now_ms,
        client: crate::clients::line_of(cx, &session.client),
    });
}

/// Closes the clients of users that are gone, as Redis does.
fn close_clients_of(cx: &mut Cx<'_>, gone: &[Arc<Account>]) {
    if gone.is_empty() {
        return;
    }
    for client in cx.shared.clients.all() {
        let account = client.names().account;
        let is_gone = account.is_some_and(|a| gone.iter().any(|gone| Arc::ptr_eq(gone, &a)));
        if is_gone {
            close(cx, &client);
        }
    }
}

/// Closes a client; the caller itself gets its reply yet.
fn close(cx: &mut Cx<'_>, client: &Arc<crate::client::Client>) {
    if client.id == cx.session.client.id {
        cx.session.is_closing = true;
    } else {
        cx.shared.kill(client);
    }
}

/// Closes the subscribers that have what their users may no longer use.
fn close_subscribers(cx: &mut Cx<'_>, accounts: &[Arc<Account>]) {
    let users = accounts.iter().map(|account| (account, account.user()));
    let users: Vec<_> = users.filter(|(_, user)| !user.allows_all_channels()).collect();
    if users.is_empty() {
        return;
    }
    for (name, is_pattern, client) in cx.shared.pubsub.subscribers() {
        let account = client.names().account;
        let account = account.as_ref().unwrap_or(&cx.shared.acl.default);
        let of_client = users.iter().find(|(changed, _)| Arc::ptr_eq(changed, account));
        if of_client.is_some_and(|(_, user)| !user.allows_channel(&name, is_pattern)) {
            close(cx, &client);
        }
    }
}

/// Whether a client that has just subscribed still may: its user may have lost the right since the
/// check, on another worker, before this client was among the subscribers.
pub(crate) fn still_may_subscribe(cx: &mut Cx<'_>, args: Args<'_>) -> bool {
    check(cx.shared, cx.worker, cx.session, cx.entry, args).is_ok()
}

/// ACL SETUSER.
///
/// # Errors
/// The rule at fault.
pub(crate) fn set_user(
    cx: &mut Cx<'_>,
    name: &[u8],
    rules: &[Vec<u8>],
) -> Result<(), (Vec<u8>, RuleError)> {
    cx.shared.acl.set_user(name, rules)?;
    let changed = cx.shared.acl.get(name);
    close_subscribers(cx, changed.as_slice());
    Ok(())
}

/// ACL DELUSER of one user; returns whether there was one.
pub(crate) fn delete_user(cx: &mut Cx<'_>, name: &[u8]) -> bool {
    let Some(account) = cx.shared.acl.remove(name) else { return false };
    close_clients_of(cx, &[account]);
    true
}

/// Makes a session that of a user. Fails if the user was deleted meanwhile, in which case the
/// session may do nothing.
pub(crate) fn log_in(shared: &Shared, session: &mut Session, account: Arc<Account>) -> bool {
    let is_default = Arc::ptr_eq(&account, &shared.acl.default);
    let mine = (!is_default).then(|| Arc::clone(&account));
    if session.account().is_some() || mine.is_some() {
        session.client.rename(|names| names.account.clone_from(&mine));
        session.make_cold().account = mine;
    }
    !account.is_deleted.load(Acquire)
}

/// ACL LOAD.
///
/// # Errors
/// What is wrong with the file, in Redis' words.
pub(crate) fn load(cx: &mut Cx<'_>, path: &Path) -> Result<(), Vec<u8>> {
    let gone = load_file(cx.shared, path)?;
    close_clients_of(cx, &gone);
    let all = cx.shared.acl.all();
    close_subscribers(cx, &all);
    Ok(())
}

fn load_file(shared: &Shared, path: &Path) -> Result<Vec<Arc<Account>>, Vec<u8>> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| {
        format!("Error loading ACLs, opening file '{shown}': {}", plain(&error))
    })?;
    let mut users = file::parse(&text, &shown.to_string(), shared.acl.all_channels())?;
    users.entry(DEFAULT_USER.to_vec()).or_insert_with(|| {
        let mut user = User::all_powerful();
        user.set_only_password(shared.config.get("requirepass").as_bytes());
        user
    });
    Ok(shared.acl.replace(users))
}

/// What the system says of an error, without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().map(str::to_owned).unwrap_or(text)
}

/// The users of the settings, at start: those of `aclfile`, or those of `user` lines.
///
/// # Errors
/// One sentence that says what is wrong with the file or a line.
pub fn load_at_start(shared: &Shared) -> Result<(), String> {
    let path = shared.config.get("aclfile");
    if path.is_empty() {
        return load_lines(shared);
    }
    if !shared.config.users.is_empty() {
        return Err("users are defined both by `user` lines and by an aclfile: choose one".into());
    }
    let loaded = load_file(shared, Path::new(&path));
    loaded.map(drop).map_err(|text| String::from_utf8_lossy(&text).into_owned())
}

fn load_lines(shared: &Shared) -> Result<(), String> {
    for (name, rules) in &shared.config.users {
        // The default user is there already, and its line says all that it may do.
        let reset = (name == DEFAULT_USER).then(|| b"reset".to_vec());
        let rules: Vec<_> = reset.into_iter().chain(rules.iter().cloned()).collect();
        shared.acl.set_user(name, &rules).map_err(|(rule, error)| {
            // The line was right when it was read; the setting came later.
            let (name, rule) = (name.escape_ascii(), rule.escape_ascii());
            format!("user '{name}', rule '{rule}' under acl-pubsub-default: {}", error.text())
        })?;
    }
    Ok(())
}

/// ACL SAVE.
///
/// # Errors
/// Those of the file system.
pub(crate) fn save(shared: &Shared, path: &Path) -> std::io::Result<()> {
    let lines: Vec<Vec<u8>> = shared.acl.all().iter().map(|account| line_of(account)).collect();
    let text = [&lines.join(&b'\n')[..], b"\n"].concat();
    crate::config_command::replace_file(path, &text)
}

/// The lines of all users for the settings' file: none while there is an ACL file, or while there
/// is but the default user as `requirepass` has it.
///
/// # Errors
/// A sentence that names a user whose rules cannot stand in such a file.
pub(crate) fn config_lines(shared: &Shared) -> Result<Vec<Vec<u8>>, String> {
    let all = shared.acl.all();
    let mut default = User::all_powerful();
    default.set_only_password(shared.config.get("requirepass").as_bytes());
    let is_said = all.len() == 1 && *shared.acl.default.user() == default;
    if is_said || !shared.config.get("aclfile").is_empty() {
        return Ok(Vec::new());
    }
    let lines = all.iter().map(|account| {
        let rules = account.user().rules();
        if [account.name()].into_iter().chain(rules.iter().map(|rule| &rule[..])).all(is_utf8) {
            return Ok(config_file::user_line(account.name(), &rules));
        }
        let name = account.name().escape_ascii();
        Err(format!("user '{name}' has rules that are not UTF-8; keep users in an aclfile"))
    });
    lines.collect()
}

fn is_utf8(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok()
}

/// A user as ACL LIST and the file show it.
pub(crate) fn line_of(account: &Account) -> Vec<u8> {
    let rules = account.user().rules();
    [b"user ", account.name(), b" ", &rules.join(&b' ')[..]].concat()
}

#[cfg(test)]
mod tests;
